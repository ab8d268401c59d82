"""Compile functions of trees once per structure and shape, count traces, and warn about repeated retracing."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from pathlib import Path
from traceback import extract_tb
from typing import Any

import toolz

from ..core._errors import unknown
from ..core._exporting import is_exporting
from ..core._mlx import mx
from ..core._types import Array, Tree
from ..tree._conversion import as_arrays
from ..tree._flattening import Flattening, builder, describe_nodes, flattening, list_arrays
from ..tree._paths import copy_arrays

__all__ = ["Compiled", "available", "compiled"]

_MANY = 5
"""The number of the trace at which the warning about repeated retracing appears."""

_EVALUATED = (
    "Attempting to eval an array during function transformations",
    "Attempting to eval an array without a primitive",
)
"""The messages of MLX for a program that reads the value of an array during a trace."""

_finding = threading.Lock()
"""Held while a structure is looked up, so that two threads do not compile the same structure twice."""


def compiled(
    fn: Callable[..., Tree],
    *names: str,
    compile: bool | Mapping[str, Any] = True,
    title: str = "function",
    numpy: Container[str] = (),
) -> Compiled:
    """Compile a pure function of trees.

    Args:
        fn: The function.
        names: The names of its arguments, in order.
        compile: False runs the function without `mx.compile`. A mapping holds options of `mx.compile`. Default: True.
        title: The name of the function in warnings and errors. For example, "training step".
        numpy: The names of the arguments that may contain numpy arrays.

    Returns:
        The compiled function.

    Raises:
        TypeError: `compile` is neither a flag nor a mapping, or holds an unknown option.

    >>> double = compiled(lambda tree: {"y": tree["x"] * 2}, "tree")
    >>> [double({"x": mx.array(v)})["y"].item() for v in (1, 2, 3)]
    [2, 4, 6]
    """
    if not isinstance(compile, (bool, Mapping)):
        raise TypeError(f"compile is True, False or a mapping of mx.compile's options; got {compile!r}")
    for name in compile if isinstance(compile, Mapping) else ():
        if name != "shapeless":
            raise TypeError(unknown("option of compile", name, ["shapeless"]))
    compiles = compile is not False and available()
    options = dict(compile) if isinstance(compile, Mapping) else {}
    return Compiled(fn, names, options if compiles else None, title, [name in numpy for name in names])


@cache
def available() -> bool:
    """Tell whether `mx.compile` compiles on this machine, by counting traces. Warn once where it does not.

    On Linux CPUs MLX needs `g++` on PATH. Without `g++` MLX runs the function at each call, without compilation.
    """
    calls: list[Array] = []

    def probe(x: Array) -> Array:
        calls.append(x)
        return x

    twice = mx.compile(probe)
    twice(mx.array(0))
    twice(mx.array(0))
    if len(calls) == 1:
        return True
    warnings.warn(
        "mx.compile compiles nothing here, so steps run slower than they could: on Linux CPUs it needs g++ on PATH "
        "(Debian, Ubuntu: apt install g++), and MLX_DISABLE_COMPILE must not be set",
        RuntimeWarning,
        stacklevel=4,
    )
    return False


class Compiled:
    """Run a compiled pure function of trees. `traces` counts its traces over all structures and shapes."""

    __slots__ = ("_changes", "_fn", "_last", "_latest", "_names", "_numpy", "_options", "_title", "_variants", "traces")

    def __init__(
        self,
        fn: Callable[..., Tree],
        names: Sequence[str],
        options: dict[str, Any] | None,
        title: str,
        numpy: Sequence[bool],
    ) -> None:
        self._fn, self._names, self._options, self._title, self._numpy = fn, names, options, title, numpy
        self._variants: list[_Variant] = []
        self._last: _Variant | None = None
        self._latest: dict[str, str] = {}
        """The nodes of the latest trace, as `describe_nodes` describes them."""
        self.traces = self._changes = 0

    def __call__(self, *args: Tree) -> Tree:
        """Run the function on trees of arrays and constants."""
        if self._options is None or is_exporting():  # a compiled function would hold the trace of a custom function
            return self._fn(*map(copy_arrays, self._arrays(args)))
        variant = self._last
        inputs = None if variant is None else variant.flattening.flatten(*args)
        if variant is None or inputs is None:
            variant, inputs = self._find(self._arrays(args))
        outputs = variant.run(inputs)
        return variant.layouts[outputs[0]](outputs)

    @property
    def compiles(self) -> bool:
        """Whether the function is compiled. False means that MLX runs it at each call."""
        return self._options is not None

    def _arrays(self, args: tuple[Tree, ...]) -> tuple[Tree, ...]:
        return tuple(as_arrays(arg) if numpy else arg for arg, numpy in zip(args, self._numpy, strict=True))

    def _find(self, args: tuple[Tree, ...]) -> tuple[_Variant, list[Array]]:
        """Return the variant for the structure of the arguments, and their arrays. A new structure adds a variant."""
        with _finding:
            for variant in self._variants:
                inputs = variant.flattening.flatten(*args)
                if inputs is not None:
                    break
            else:
                variant = _Variant(self, flattening(*args, names=self._names), self._options or {})
                inputs = variant.flattening.flatten(*args)
                self._variants.append(variant)
        assert inputs is not None
        self._last = variant
        return variant, inputs

    def trace(self, args: tuple[Tree, ...]) -> Tree:
        """Run the function on tracers, and count the trace."""
        self.traces += 1
        before, self._latest = self._latest, describe_nodes(dict(zip(self._names, args, strict=True)))
        self._changes += before != self._latest  # MLX traces again in each new thread: the nodes are then the same
        if self._changes == _MANY and before != self._latest:
            warnings.warn(_keeps_retracing(self._title, before, self._latest), RuntimeWarning, stacklevel=4)
        try:
            return self._fn(*args)
        except (ValueError, RuntimeError) as error:
            if not any(words in str(error) for words in _EVALUATED):
                raise
            raise ValueError(_reads_values(self._title, error)) from error


class _Variant:
    """Hold the compiled function for one structure of arguments. Each trace appends the layout of its result."""

    __slots__ = ("flattening", "layouts", "run")

    def __init__(self, owner: Compiled, flattening: Flattening, options: dict[str, Any]) -> None:
        self.flattening = flattening
        self.layouts: list[Callable[[list[Any]], Tree]] = []

        def traced(inputs: list[Array]) -> list[Any]:
            result = owner.trace(flattening.build(inputs))
            layout = builder(result, first=1)
            self.layouts.append(layout)
            return [self.layouts.index(layout), *list_arrays(result)]

        self.run = mx.compile(traced, **options)


def _reads_values(title: str, error: Exception) -> str:
    """Return the message that names the function which reads the value of an array during a trace, and the remedy."""
    frames = extract_tb(error.__traceback__)
    libraries = [
        Path(__file__).parents[1],
        Path(mx.__file__).parent,
        Path(toolz.__file__).parent,
        Path(functools.__file__),
    ]
    user_frames = [frame for frame in frames if not any(map(Path(frame.filename).is_relative_to, libraries))]
    frame = user_frames[-1] if user_frames else None
    where = f"{frame.name!r}, line {frame.lineno} of {frame.filename}," if frame else "a function"
    return (
        f"{where} reads the value of an array, and there is none while the compiled {title} is traced: `if`, `min`, "
        "`float`, `print` and numpy need one. Compute with mx.where, mx.minimum, … instead, or run with compile=False"
    )


def _keeps_retracing(title: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    changed = [
        f"{path} was {before.get(path, 'absent')}, is {now.get(path, 'absent')}"
        for path in {**before, **now}
        if before.get(path) != now.get(path)
    ]
    return (
        f"the compiled {title} was traced for the {_MANY}th time, and each trace costs as much as many calls. Between "
        f"the last two, {'; '.join(changed[:4])}. Pad or bucket batches to few "
        "shapes, and pass numbers that change as arrays"
    )
