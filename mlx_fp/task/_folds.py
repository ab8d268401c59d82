"""Metrics as folds over batches, computed inside the compiled step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core._batch_call import call_with_batch
from ..core._errors import located, unknown
from ..core._mlx import mx
from ..core._pickling import Picklable
from ..core._types import Batch, State, Tree

__all__ = ["Metric", "check_mode", "checked", "fold", "is_scalar", "start", "values"]

_MODES = ("min", "max")


@dataclass(frozen=True, slots=True)
class Metric(Picklable):
    """A fold: `init() -> memory`, `update(memory, output, **batch) -> memory`, `value(memory) -> scalar`.

    Memory is a tree of arrays. `update` gets what the model returned last and the batch, a dict by name, a tuple or
    list by position, as the loss does, and must count examples so that batches of any size weigh right. The value over
    nothing is NaN. A value may be a tree of arrays, which a row holds as lists: a report shows it as a table, and no
    monitor can watch it.
    """

    name: str
    init: Callable[[], Tree]
    update: Callable[..., Tree]
    value: Callable[[Tree], Tree]
    mode: str = "min"
    """Whether less of it is better, or `"max"`: what a monitor of it takes."""
    merge: Callable[[Tree, Tree], Tree] | None = None
    """Makes of the memories of two parts of the data that of both: `merge(one, other) -> memory`. All metrics of
    `mlx_fp.metrics` have one."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"the name of a metric is a text; got {self.name!r}")
        for part in ("init", "update", "value", "merge"):
            given = getattr(self, part)
            if not (callable(given) or (part == "merge" and given is None)):
                raise TypeError(f"{part} of metric {self.name!r} is a function; got {given!r}")
        check_mode(self.mode)

    def __repr__(self) -> str:
        return self.name


def check_mode(mode: Any) -> None:
    """Raise ValueError for a mode that is neither "min" nor "max"."""
    if mode not in _MODES:
        raise ValueError(unknown("mode", str(mode), _MODES))


def checked(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Return metrics as a tuple; TypeError for what is none, ValueError for two of one name."""
    odd = [m for m in metrics if not isinstance(m, Metric)]
    if odd:
        raise TypeError(f"a metric is a Metric(name, init, update, value); got {odd[0]!r}")
    names = [m.name for m in metrics]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two metrics are called {', '.join(sorted(twice))}")
    return tuple(metrics)


def start(metrics: Sequence[Metric]) -> State:
    """Return the memory of each metric, by name, before any batch."""
    return {m.name: _called(m, "init") for m in metrics}


def fold(metrics: Sequence[Metric], memory: State, output: Any, batch: Batch) -> State:
    """Take a batch into the memory of each metric. ValueError when the loss did not call the model."""
    if metrics and output is None:
        raise ValueError("metrics are computed of what the model returns, and the loss did not call it")
    after = {m.name: _updated(m, memory[m.name], output, batch) for m in metrics}
    for name, new in after.items():
        if new is None and memory[name] is not None:
            raise TypeError(f"update of metric {name!r} returned None: it returns the memory after the batch")
    return after


def values(metrics: Sequence[Metric], memory: State) -> dict[str, Any]:
    """Read the value of each metric: a float, or lists and dicts of floats for one that is no scalar."""
    read = {m.name: _called(m, "value", memory[m.name]) for m in metrics}
    mx.eval([value for value in read.values() if value is not None])
    return {name: _plain(name, value) for name, value in read.items()}


def is_scalar(m: Metric) -> bool:
    """Tell whether the value of a metric is a single number, by that over nothing."""
    value = _called(m, "value", _called(m, "init"))
    return not isinstance(value, (dict, list, tuple)) and getattr(value, "size", 1) == 1


def _called(m: Metric, function: str, *values: Any) -> Any:
    """Call a function of a metric; a note on its error names both."""
    with located(metric=m.name, function=function):
        return getattr(m, function)(*values)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(name, one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, one) for one in value]
    if isinstance(value, mx.array) and value.size != 1:
        return _plain(name, value.tolist())
    try:
        return float(value)
    except (TypeError, ValueError):
        kind = "None" if value is None else type(value).__name__
        raise TypeError(f"value of metric {name!r} returned {kind}: it returns a scalar, or a tree of arrays") from None


def _updated(m: Metric, memory: Tree, output: Any, batch: Batch) -> Tree:
    """Take a batch into the memory of a metric; an error of the call names the metric."""
    update = partial(m.update, memory)
    update.__name__ = m.name  # type: ignore[attr-defined]
    with located(metric=m.name, function="update"):
        return call_with_batch(update, output, batch, "metric")
