"""A function of trees as a function of arrays that MLX can export, and the layouts of its trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..compile import rng
from ..core._exporting import exporting
from ..core._signature import name_of
from ..core._types import Array, Tree
from ..nn._layer import Layer
from ..tree._conversion import as_arrays
from ..tree._flattening import Flattening, builder, flattening, list_arrays
from ._layout import array_paths, nodes

__all__ = ["Arguments", "Flat", "arguments_of", "differences", "flat_function", "input_paths", "require_function"]

Arguments = tuple[tuple[Tree, ...], Mapping[str, Tree]]
"""`(args, kwargs)` of a call."""


def require_function(target: object, taker: str) -> None:
    """Raise TypeError for a value that is no function of arrays."""
    if isinstance(target, Layer):
        raise TypeError(f"{taker} takes a function of arrays; make one of {target.name}: nn.predictor(params)(model)")
    if not callable(target):
        raise TypeError(f"{taker} takes a step or a function of arrays, such as nn.predictor makes; got {target!r}")


def arguments_of(example: Tree) -> Arguments:
    """Return the arguments of a call: a dict by name, a tuple by position, anything else as the one argument.

    >>> arguments_of({"x": 1}), arguments_of((1, 2)), arguments_of(1)
    (((), {'x': 1}), ((1, 2), {}), ((1,), {}))
    """
    if isinstance(example, dict):
        return (), as_arrays(example)
    args: tuple[Tree, ...] = as_arrays(example if type(example) is tuple else (example,))
    return args, {}


@dataclass(frozen=True, slots=True)
class Flat:
    """A function of trees as a function of the arrays in them."""

    fn: Callable[..., Tree]
    structure: Flattening
    arguments: Arguments
    results: list[Tree] = field(default_factory=list)
    """The result of the latest call."""

    def __call__(self, *arrays: Array) -> list[Array]:
        """Return the arrays of the result. The function draws no random numbers but from keys among its arguments."""
        args, kwargs = self.structure.build(list(arrays))
        (result, drawn), _ = rng.run(0, lambda: exporting(lambda: _observed(lambda: self.fn(*args, **kwargs)))())
        if drawn:
            raise ValueError(
                f"{name_of(self.fn)} draws random numbers without a key, and its file would draw the same ones at each "
                "call: pass a key as an argument, and draw from it"
            )
        builder(result)  # refuses a result that is no tree
        self.results[:] = [result]
        return list_arrays(result)

    def arrays(self, arguments: Arguments, name: str) -> list[Array]:
        """List the arrays of arguments; raise ValueError where their structure is another one."""
        arrays = self.structure.flatten(*arguments)
        if arrays is None:
            raise ValueError(
                f"{name} has another structure than the first example, which needs a file of its own: "
                f"{differences(self.arguments, arguments)}"
            )
        return arrays


def _observed(fn: Callable[[], Tree]) -> tuple[Tree, bool]:
    """Return the result of a function, and whether it drew from the random stream outside `rng.run`."""
    rng.run(0, lambda: None)  # `has_moved` counts from here
    return fn(), rng.has_moved()


def flat_function(fn: Callable[..., Tree], arguments: Arguments) -> Flat:
    """Make a function of arrays of a function of trees; `arguments` are those of one call."""
    return Flat(fn, flattening(*arguments, names=("arguments", "keywords")), arguments)


def input_paths(arguments: Arguments) -> list[str]:
    """Name each array among the arguments of a call, in tree order.

    >>> input_paths(arguments_of({"x": mx.array(0)})), input_paths(((mx.array(0), [mx.array(0)]), {}))
    (['x'], ['input_0', 'input_1.0'])
    """
    args, kwargs = arguments
    named = {"input" if len(args) == 1 else f"input_{i}": tree for i, tree in enumerate(args)} | dict(kwargs)
    return [path for name, tree in named.items() for path in array_paths(tree, name)]


def differences(expected: Arguments, given: Arguments) -> str:
    """Describe the first differences between the arguments of two calls, without the shapes of arrays."""
    one, other = _nodes(expected), _nodes(given)
    wrong = [path for path in {**one, **other} if one.get(path) != other.get(path)]
    texts = [f"{path} is {other.get(path, 'not there')}, and was {one.get(path, 'not there')}" for path in wrong[:3]]
    return "; ".join(texts)


def _nodes(arguments: Arguments) -> dict[str, str]:
    args, kwargs = arguments
    named = {**{f"argument {i}": tree for i, tree in enumerate(args)}, **kwargs}
    return {path: kind for name, tree in named.items() for path, kind in nodes(tree, name).items()}
