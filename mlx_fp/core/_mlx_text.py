"""Text for layers and optimisers that are lifted from MLX: printed options, docstrings and signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ._signature import name_of

__all__ = ["lifted_text", "mlx_page", "printed_call", "show_as", "shown_signature"]

F = TypeVar("F", bound=Callable[..., object])

_PAGES = "https://ml-explore.github.io/mlx/build/html/python"
_LONGEST = 40
"""The longest text of one option; a longer one is replaced by the name of its type."""


def printed_call(name: str, fn: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> str:
    """Return a call as text, with the arguments that were given, by the names of their parameters.

    Without arguments, return the name alone. Long values, such as arrays, are printed as their types.

    >>> def linear(input_dims, output_dims, bias=True): ...
    >>> printed_call("Linear", linear, (64, 10), {}), printed_call("relu", abs, (), {})
    ('Linear(input_dims=64, output_dims=10)', 'relu')
    """
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except (TypeError, ValueError):  # a builtin without a signature, or arguments that do not fit
        return name
    texts: list[str] = []
    for option, value in bound.arguments.items():
        kind = bound.signature.parameters[option].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            texts += map(_printed, value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            texts += [f"{key}={_printed(item)}" for key, item in value.items()]
        else:
            texts.append(f"{option}={_printed(value)}")
    return f"{name}({', '.join(texts)})" if texts else name


def mlx_page(folder: str, name: str) -> str:
    """Return the address of a page of MLX's documentation.

    >>> mlx_page("nn/_autosummary", "mlx.nn.Linear")
    'https://ml-explore.github.io/mlx/build/html/python/nn/_autosummary/mlx.nn.Linear.html'
    """
    return f"{_PAGES}/{folder}/{name}.html"


def lifted_text(first_line: str, page: str, source: object) -> str:
    """Return a docstring: one line of this library's, the link to MLX's page, and MLX's own text."""
    return f"{first_line}\n\nSee {page}.\n\n{inspect.cleandoc(getattr(source, '__doc__', None) or '')}".rstrip()


def show_as(fn: F, source: Callable[..., object], returns: str) -> F:
    """Let `inspect.signature` and `help` show the parameters of `source` for `fn`, and the return type of `fn`.

    Nothing changes if the parameters of `source` are unknown. For example, MLX may not be installed.

    >>> inspect.signature(show_as(lambda *args: None, complex, "Layer"))
    <Signature (real=0, imag=0) -> 'Layer'>
    """
    signature = shown_signature(source, returns)
    if signature is not None:
        fn.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect
    return fn


def shown_signature(source: Callable[..., object], returns: str) -> inspect.Signature | None:
    """Return the parameters of `source` with another return type. Return None if its parameters are unknown.

    >>> print(shown_signature(complex, "Layer"))
    (real=0, imag=0) -> 'Layer'
    """
    if isinstance(source, type) or inspect.isroutine(source) or hasattr(source, "__wrapped__"):
        return inspect.signature(source).replace(return_annotation=returns)
    return None


def _printed(value: object) -> str:
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(_printed, value))
        text = f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    elif value is None or isinstance(value, (int, float, str)):
        text = repr(value)
    elif callable(value):  # a schedule is a function within the function that makes it
        text = getattr(value, "__qualname__", "").partition(".<locals>")[0] or name_of(value)
    else:
        shape = getattr(value, "shape", None)
        text = type(value).__name__ + (str(tuple(shape)) if isinstance(shape, (list, tuple)) else "")
    return text if len(text) <= _LONGEST else type(value).__name__
