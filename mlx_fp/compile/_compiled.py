"""`mx.compile` for functions of trees: compiles once per structure and shape, counts traces, warns of many."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from pathlib import Path
from traceback import extract_tb
from typing import Any

from ..core._errors import unknown
from ..core._mlx import mx
from ..core._types import Array
from ..tree._flattening import Structure, arrays, as_arrays, builder, describe, structure
from ..tree._paths import fresh

__all__ = ["Compiled", "available", "compiled"]

_MANY = 5
"""The trace at which a function counts as one that keeps retracing."""

_EVALUATED = (
    "Attempting to eval an array during function transformations",
    "Attempting to eval an array without a primitive",
)
"""What MLX says of a value that is read while a function is traced."""

_OWN = {"mlx", "mlx_fp", "toolz", "functools.py"}
"""Folders and files whose frames are none of a user's."""

_finding = threading.Lock()


def compiled(
    fn: Callable[..., Any],
    *names: str,
    compile: bool | Mapping[str, Any] = True,
    title: str = "function",
    numpy: Container[str] = (),
) -> Compiled:
    """Compile a pure function of trees whose arguments, in order, are called `names`.

    `compile=False` runs it as it is; a mapping holds options of `mx.compile`. `title` is what a warning calls it. The
    arguments named by `numpy` may hold numpy arrays.

    >>> double = compiled(lambda tree: {"y": tree["x"] * 2}, "tree")
    >>> [double({"x": mx.array(v)})["y"].item() for v in (1, 2, 3)]
    [2, 4, 6]
    """
    if not isinstance(compile, (bool, Mapping)):
        raise TypeError(f"compile is True, False or a mapping of mx.compile's options; got {compile!r}")
    for name in compile if isinstance(compile, Mapping) else ():
        if name != "shapeless":
            raise TypeError(unknown("option of compile", name, ["shapeless"]))
    wanted = compile is not False and available()
    options = dict(compile) if isinstance(compile, Mapping) else {}
    return Compiled(fn, names, options if wanted else None, title, [name in numpy for name in names])


@cache
def available() -> bool:
    """Tell whether `mx.compile` compiles here, by counting traces; warn, once, when it does not.

    MLX needs `g++` on PATH for it on Linux CPUs, and runs the function as it is without.
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
    """A compiled pure function of trees; `traces` counts how often it was traced, over all structures and shapes."""

    __slots__ = ("_changes", "_fn", "_last", "_latest", "_names", "_numpy", "_options", "_title", "_variants", "traces")

    def __init__(
        self,
        fn: Callable[..., Any],
        names: Sequence[str],
        options: dict[str, Any] | None,
        title: str,
        numpy: Sequence[bool],
    ) -> None:
        self._fn, self._names, self._options, self._title, self._numpy = fn, names, options, title, numpy
        self._variants: list[_Variant] = []
        self._last: _Variant | None = None
        self._latest: dict[str, str] = {}
        self.traces = self._changes = 0

    def __call__(self, *args: Any) -> Any:
        """Run the function on trees of arrays and constants."""
        if self._options is None:
            return self._fn(*map(fresh, self._arrays(args)))
        variant = self._last
        inputs = None if variant is None else variant.structure.flatten(*args)
        if variant is None or inputs is None:
            variant, inputs = self._find(self._arrays(args))
        outputs = variant.run(inputs)
        return variant.layouts[outputs[0]](outputs)

    @property
    def compiles(self) -> bool:
        """Whether the function is compiled, and not run as it is."""
        return self._options is not None

    def _arrays(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(as_arrays(arg) if numpy else arg for arg, numpy in zip(args, self._numpy, strict=True))

    def _find(self, args: tuple[Any, ...]) -> tuple[_Variant, list[Any]]:
        with _finding:
            for variant in self._variants:
                inputs = variant.structure.flatten(*args)
                if inputs is not None:
                    break
            else:
                variant = _Variant(self, structure(*args, names=self._names), self._options or {})
                inputs = variant.structure.flatten(*args)
                self._variants.append(variant)
        assert inputs is not None
        self._last = variant
        return variant, inputs

    def trace(self, args: tuple[Any, ...]) -> Any:
        """Run the function on tracers, and count it."""
        self.traces += 1
        before, self._latest = self._latest, describe(dict(zip(self._names, args, strict=True)))
        self._changes += before != self._latest  # MLX traces for each thread anew: that is no change
        if self._changes == _MANY and before != self._latest:
            warnings.warn(_keeps_retracing(self._title, before, self._latest), RuntimeWarning, stacklevel=4)
        try:
            return self._fn(*args)
        except (ValueError, RuntimeError) as error:
            if not any(words in str(error) for words in _EVALUATED):
                raise
            raise ValueError(_reads_values(self._title, error)) from error


class _Variant:
    """The compiled function for one structure of arguments; each trace leaves the layout of what it returned."""

    __slots__ = ("layouts", "run", "structure")

    def __init__(self, owner: Compiled, known: Structure, options: dict[str, Any]) -> None:
        self.structure = known
        self.layouts: list[Callable[[list[Any]], Any]] = []

        def traced(inputs: list[Any]) -> list[Any]:
            result = owner.trace(known.build(inputs))
            layout = builder(result, first=1)
            self.layouts.append(layout)
            return [self.layouts.index(layout), *arrays(result)]

        self.run = mx.compile(traced, **options)


def _reads_values(title: str, error: Exception) -> str:
    """Say which function reads the value of an array while it is traced, and what to do."""
    outside = [frame for frame in extract_tb(error.__traceback__) if not _OWN.intersection(Path(frame.filename).parts)]
    frame = outside[-1] if outside else None
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
