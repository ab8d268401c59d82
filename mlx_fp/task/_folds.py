"""Metrics as folds over batches, computed inside the compiled step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

from ..compile._evaluation import wait_for
from ..core._batch_call import call_with_batch
from ..core._errors import located, unknown
from ..core._mlx import mx
from ..core._pickling import Picklable
from ..core._types import Batch, State, Tree

__all__ = ["Metric", "check_mode", "checked", "fold", "is_scalar", "merged", "start", "values"]

_MODES = ("min", "max")


@dataclass(frozen=True, slots=True)
class Metric(Picklable):
    """A fold over batches: `init() -> memory`, `update(memory, output, **batch) -> memory`, `value(memory) -> scalar`.

    The memory is a tree of arrays. `update` receives the output of the model, and the batch as the loss receives it: a
    dict by name, a tuple or list by position. It must count examples, so that batches of different sizes have the
    correct weight. For example, the memory of a mean is `{"total": …, "count": …}`.

    Where no example counts the value is NaN. A value may also be a tree of arrays. A row then holds it as lists, a
    report shows it as a table, and no monitor can watch it.
    """

    name: str
    """The name of the metric in rows and reports."""
    init: Callable[[], Tree]
    update: Callable[..., Tree]
    value: Callable[[Tree], Tree]
    mode: str = "min"
    """`"min"` where a smaller value is better, else `"max"`. A monitor of the metric takes this direction."""
    merge: Callable[[Tree, Tree], Tree] | None = None
    """`merge(one, other) -> memory`: merge the memories of two parts of the data. All metrics of `mlx_fp.metrics` have
    it."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"the name of a metric is a text; got {self.name!r}")
        for part in ("init", "update", "value", "merge"):
            function = getattr(self, part)
            if not (callable(function) or (part == "merge" and function is None)):
                raise TypeError(f"{part} of metric {self.name!r} is a function; got {function!r}")
        check_mode(self.mode)

    def __repr__(self) -> str:
        return self.name


def check_mode(mode: object) -> None:
    """Raise ValueError for a mode that is neither "min" nor "max"."""
    if mode not in _MODES:
        raise ValueError(unknown("mode", str(mode), _MODES))


def checked(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Return metrics as a tuple; TypeError for other values, ValueError for two metrics of one name."""
    others = [m for m in metrics if not isinstance(m, Metric)]
    if others:
        raise TypeError(f"a metric is a Metric(name, init, update, value); got {others[0]!r}")
    names = [m.name for m in metrics]
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise ValueError(f"two metrics are called {', '.join(sorted(duplicates))}")
    return tuple(metrics)


def start(metrics: Sequence[Metric]) -> State:
    """Return the memory of each metric, by name, before the first batch."""
    return {m.name: _call(m, "init") for m in metrics}


def fold(metrics: Sequence[Metric], memory: State, output: Tree, batch: Batch) -> State:
    """Update the memory of each metric with a batch; ValueError where the loss did not call the model."""
    if metrics and output is None:
        raise ValueError("metrics are computed from the output of the model, and the loss did not call it")
    after = {m.name: _update(m, memory[m.name], output, batch) for m in metrics}
    for name, new in after.items():
        if new is None and memory[name] is not None:
            raise TypeError(f"update of metric {name!r} returned None: it returns the memory after the batch")
    return after


def merged(metrics: Sequence[Metric], memories: Sequence[State]) -> State:
    """Merge the memories of several parts of the data, in order. Each metric has `merge`."""
    return {m.name: reduce(partial(_call, m, "merge"), [memory[m.name] for memory in memories]) for m in metrics}


def values(metrics: Sequence[Metric], memory: State) -> dict[str, Tree]:
    """Read the value of each metric: a float, or lists and dicts of floats where the value is no scalar."""
    lazy = {m.name: _call(m, "value", memory[m.name]) for m in metrics}
    wait_for([value for value in lazy.values() if value is not None])
    return {name: _as_floats(name, value) for name, value in lazy.items()}


def is_scalar(m: Metric) -> bool:
    """Tell whether the value of a metric is a single number. It reads the value before the first batch."""
    value = _call(m, "value", _call(m, "init"))
    return not isinstance(value, (dict, list, tuple)) and getattr(value, "size", 1) == 1


def _call(m: Metric, function: str, *values: Tree) -> Tree:
    """Call a function of a metric. A note on an error names the metric and the function."""
    with located(metric=m.name, function=function):
        return getattr(m, function)(*values)


def _as_floats(name: str, value: Tree) -> Tree:
    """Return a value of a metric with floats in the place of arrays."""
    if isinstance(value, dict):
        return {str(key): _as_floats(name, entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_floats(name, entry) for entry in value]
    if isinstance(value, mx.array) and value.size != 1:
        return _as_floats(name, value.tolist())
    try:
        return float(value)
    except (TypeError, ValueError):
        kind = "None" if value is None else type(value).__name__
        raise TypeError(f"value of metric {name!r} returned {kind}: it returns a scalar, or a tree of arrays") from None


def _update(m: Metric, memory: Tree, output: Tree, batch: Batch) -> Tree:
    """Update the memory of a metric with a batch. An error of the call names the metric."""
    update = partial(m.update, memory)
    update.__name__ = m.name  # type: ignore[attr-defined]  # messages read the name of a function there
    with located(metric=m.name, function="update"):
        return call_with_batch(update, output, batch, "metric")
