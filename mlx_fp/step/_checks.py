"""What a step is made of and starts from, checked before it is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._signature import name_of
from ..core._types import Params
from ..nn._layer import Layer
from ..tree._paths import flat

_OF_ARRAYS = ("mlx.nn.losses", "mlx_fp.nn.losses")

__all__ = ["check_options", "check_parts", "check_state", "check_trainable"]


def check_state(opt_state: Any) -> None:
    """Refuse a state that a step has not made, the optimiser's own say."""
    if not isinstance(opt_state, dict) or not {"key", "optimizer", "metrics"} <= opt_state.keys():
        has = f"has {', '.join(opt_state) or 'nothing'}" if isinstance(opt_state, dict) else type(opt_state).__name__
        raise TypeError(f"a step takes the opt_state of its own init, with key, optimizer and metrics; this {has}")


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
