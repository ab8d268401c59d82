"""Type `pipe` of toolz: the result of a pipeline has the return type of its last function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

__all__ = ["pipe"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")
I_ = TypeVar("I_")
J = TypeVar("J")
K = TypeVar("K")
L = TypeVar("L")
M = TypeVar("M")
N = TypeVar("N")
O_ = TypeVar("O_")


@overload
def pipe(value: A, /) -> A: ...


@overload
def pipe(value: A, f1: Callable[[A], B], /) -> B: ...


@overload
def pipe(value: A, f1: Callable[[A], B], f2: Callable[[B], C], /) -> C: ...


@overload
def pipe(value: A, f1: Callable[[A], B], f2: Callable[[B], C], f3: Callable[[C], D], /) -> D: ...


@overload
def pipe(value: A, f1: Callable[[A], B], f2: Callable[[B], C], f3: Callable[[C], D], f4: Callable[[D], E], /) -> E: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    /,
) -> F: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    /,
) -> G: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    /,
) -> H: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    /,
) -> I_: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    /,
) -> J: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    f10: Callable[[J], K],
    /,
) -> K: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    f10: Callable[[J], K],
    f11: Callable[[K], L],
    /,
) -> L: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    f10: Callable[[J], K],
    f11: Callable[[K], L],
    f12: Callable[[L], M],
    /,
) -> M: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    f10: Callable[[J], K],
    f11: Callable[[K], L],
    f12: Callable[[L], M],
    f13: Callable[[M], N],
    /,
) -> N: ...


@overload
def pipe(
    value: A,
    f1: Callable[[A], B],
    f2: Callable[[B], C],
    f3: Callable[[C], D],
    f4: Callable[[D], E],
    f5: Callable[[E], F],
    f6: Callable[[F], G],
    f7: Callable[[G], H],
    f8: Callable[[H], I_],
    f9: Callable[[I_], J],
    f10: Callable[[J], K],
    f11: Callable[[K], L],
    f12: Callable[[L], M],
    f13: Callable[[M], N],
    f14: Callable[[N], O_],
    /,
) -> O_: ...


def pipe(value: object, /, *functions: Callable[[Any], object]) -> object:
    """Call functions one after another, each with the result of the function before it.

    This is `toolz.pipe`. A type checker knows the type of the result for up to 14 functions. For example,
    `pipe(trainer, fit(train))` is a Report.

    Args:
        value: The argument of the first function.
        functions: Functions of one argument.

    Returns:
        The result of the last function, or `value` where there are no functions.

    >>> pipe(3, float, str)
    '3.0'
    """
    from toolz import pipe as call  # imported at the first call

    return call(value, *functions)
