"""Evaluate arrays, also where a signal ends the compiler that builds their kernels.

Ctrl-C in a terminal goes to every process in it. On a CPU it ends the compiler that MLX has started, and MLX raises
RuntimeError. MLX keeps the arrays that it has not evaluated, with their operations. So a second evaluation continues
where the first one stopped, with the same bits, and a run ends after its step as it does after every Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core._mlx import mx
from ..core._types import Tree

__all__ = ["queue", "wait_for"]

_FAILURES = ("[Compile::eval_cpu]", "Could not load C++ shared library")
"""The begins of MLX's messages for a kernel that was not built."""


def wait_for(*trees: Tree) -> None:
    """Evaluate the arrays of trees, and wait for them.

    >>> wait_for({"x": mx.array(1) + 1})
    """
    _evaluate(mx.eval, trees)


def queue(*trees: Tree) -> None:
    """Evaluate the arrays of trees without waiting for them.

    >>> queue({"x": mx.array(1) + 1})
    """
    _evaluate(mx.async_eval, trees)


def _evaluate(evaluate: Callable[..., None], trees: tuple[Tree, ...]) -> None:
    try:
        evaluate(*trees)
    except RuntimeError as error:
        if not _is_unbuilt(error):  # before this call Python calls the handlers of signals; the second one may raise
            raise
        evaluate(*trees)


def _is_unbuilt(error: RuntimeError) -> bool:
    """Tell whether MLX could not build a kernel."""
    return any(words in str(error) for words in _FAILURES)
