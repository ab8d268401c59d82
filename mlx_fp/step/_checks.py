"""What a step is made of and starts from, checked before it is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._signature import name_of
from ..core._types import Params, State
from ..nn._layer import Layer
from ..tree._paths import flat

_OF_ARRAYS = ("mlx.nn.losses", "mlx_fp.nn.losses")

__all__ = [
    "Layout",
    "check_layout",
    "check_memory",
    "check_options",
    "check_parts",
    "check_state",
    "check_trainable",
    "layout",
]

Layout = frozenset[tuple[str, tuple[int, ...]]]
"""The paths and shapes of a tree."""


def check_state(opt_state: Any) -> None:
    """Refuse a state that a step has not made, the optimiser's own say."""
    if not isinstance(opt_state, dict) or not {"key", "optimizer", "metrics"} <= opt_state.keys():
        has = f"has {', '.join(opt_state) or 'nothing'}" if isinstance(opt_state, dict) else type(opt_state).__name__
        raise TypeError(f"a step takes the opt_state of its own init, with key, optimizer and metrics; this {has}")


def layout(state: State) -> Layout:
    """Return the paths and shapes of a state.

    >>> sorted(layout({"step": mx.array(0), "memory": {"w": mx.zeros((2,))}}))
    [('memory.w', (2,)), ('step', ())]
    """
    return frozenset((path, tuple(leaf.shape)) for path, leaf in flat(state).items())


def check_layout(name: str, own: Layout, given: Layout) -> None:
    """Refuse a state of another optimiser, or of other parameters, and list the memories of both."""
    if own != given:
        theirs, mine = (sorted(f"{path} {shape}" for path, shape in one) for one in (given - own, own - given))
        more = [f"the state has {_listed(theirs)}, which {name} does not keep"] if theirs else []
        less = [f"{name} keeps {_listed(mine)}, which the state does not have"] if mine else []
        raise ValueError(f"the state is not that of this step's optimiser: {'; '.join(more + less)}")


def check_memory(names: Iterable[str], given: State) -> None:
    """Refuse the memory of other metrics, and list both."""
    if set(names) != given.keys():
        both = f"it folds {', '.join(names) or 'none'}, and the state has {', '.join(given) or 'none'}"
        raise ValueError(f"the state is not that of this step's metrics: {both}")


def _listed(words: list[str], most: int = 4) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def check_trainable(kept: Params) -> None:
    """Refuse parameters of which none can train, or some are of no floating type."""
    named = flat(kept)
    if not named:
        raise ValueError("nothing trains: every parameter is frozen, a buffer, or outside `trainable`")
    odd = [f"{path} ({leaf.dtype})" for path, leaf in named.items() if not mx.issubdtype(leaf.dtype, mx.floating)]
    if odd:
        raise ValueError(f"only floating parameters can train; freeze {', '.join(odd)}")


def check_options(compile: Any, dtype: Any, **counts: Any) -> None:
    """Refuse options that no step can have."""
    for name, count in counts.items():
        if not is_count(count, least=1):
            raise ValueError(f"{name} is a count, 1 or more; got {count!r}")
    if isinstance(compile, Mapping) and compile.get("shapeless"):
        raise ValueError(
            "under shapeless compilation MLX's gradients are wrong, or crash, and metrics keep the size of the first "
            "batch: pad or bucket batches"
        )
    if dtype is not None and not (isinstance(dtype, mx.Dtype) and mx.issubdtype(dtype, mx.floating)):
        raise TypeError(f"dtype is a floating type of MLX, such as mx.bfloat16; got {dtype!r}")


def check_parts(model: Any, loss: Any) -> None:
    """Refuse a model that is no Layer, and a loss that is no function."""
    if not isinstance(model, Layer):
        raise TypeError(f"a step takes a Layer as model; got {type(model).__name__}: lift or split it")
    if not callable(loss):
        raise TypeError(f"a step takes a function as loss; got {loss!r}")
    if getattr(loss, "__module__", None) in _OF_ARRAYS:
        name = name_of(loss)
        usual = f"lambda model, x, y: {name}(model(x), y).mean()"
        raise TypeError(f"{name} compares arrays, and a loss takes the model: {usual}")
