"""Checks of the parts, the options and the state of a step. They run before the step is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._signature import name_of
from ..core._types import Params, State, Tree
from ..nn._layer import Layer
from ..tree._paths import flat

_MODULES_OF_ARRAY_LOSSES = ("mlx.nn.losses", "mlx_fp.nn.losses")

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


def check_state(opt_state: object) -> None:
    """Refuse a state that no step has made, for example the state of the optimiser alone."""
    if not isinstance(opt_state, dict) or not {"key", "optimizer", "metrics"} <= opt_state.keys():
        has = f"has {', '.join(opt_state) or 'nothing'}" if isinstance(opt_state, dict) else type(opt_state).__name__
        raise TypeError(f"a step takes the opt_state of its own init, with key, optimizer and metrics; this {has}")


def layout(state: Tree) -> Layout:
    """Return the paths and shapes of a state.

    >>> sorted(layout({"step": mx.array(0), "memory": {"w": mx.zeros((2,))}}))
    [('memory.w', (2,)), ('step', ())]
    """
    return frozenset((path, tuple(leaf.shape)) for path, leaf in flat(state).items())


def check_layout(name: str, expected: Layout, state_layout: Layout) -> None:
    """Refuse a state of another optimiser or of other parameters. The message lists the differences."""
    if expected != state_layout:
        extra, missing = (
            sorted(f"{path} {shape}" for path, shape in difference)
            for difference in (state_layout - expected, expected - state_layout)
        )
        extra_words = [f"the state has {_listed(extra)}, which {name} does not keep"] if extra else []
        missing_words = [f"{name} keeps {_listed(missing)}, which the state does not have"] if missing else []
        raise ValueError(f"the state is not that of this step's optimiser: {'; '.join(extra_words + missing_words)}")


def check_memory(names: Iterable[str], memory: State) -> None:
    """Refuse the memory of other metrics than these. The message lists both."""
    if set(names) != memory.keys():
        both = f"it folds {', '.join(names) or 'none'}, and the state has {', '.join(memory) or 'none'}"
        raise ValueError(f"the state is not that of this step's metrics: {both}")


def _listed(words: list[str], maximum: int = 4) -> str:
    """Join words, the first few of many."""
    more = f" and {len(words) - maximum} more" if len(words) > maximum else ""
    return ", ".join(words[:maximum]) + more


def check_trainable(trainable: Params) -> None:
    """Refuse an empty tree of trainable parameters, and parameters that have no floating type."""
    by_path = flat(trainable)
    if not by_path:
        raise ValueError("nothing trains: every parameter is frozen, a buffer, or outside `trainable`")
    non_floating = [
        f"{path} ({leaf.dtype})" for path, leaf in by_path.items() if not mx.issubdtype(leaf.dtype, mx.floating)
    ]
    if non_floating:
        raise ValueError(f"only floating parameters can train; freeze {', '.join(non_floating)}")


def check_options(compile: object, dtype: object, **counts: object) -> None:
    """Refuse options that no step can have; `counts` are the options that are numbers of parts, by name."""
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


def check_parts(model: object, loss: object) -> None:
    """Refuse a model that is no Layer, and a loss that is no function of a model."""
    if not isinstance(model, Layer):
        raise TypeError(f"a step takes a Layer as model; got {type(model).__name__}: lift or split it")
    if not callable(loss):
        raise TypeError(f"a step takes a function as loss; got {loss!r}")
    if getattr(loss, "__module__", None) in _MODULES_OF_ARRAY_LOSSES:
        name = name_of(loss)
        remedy = f"lambda model, x, y: {name}(model(x), y).mean()"
        raise TypeError(f"{name} compares arrays, and a loss takes the model: {remedy}")
