"""What a step is made of and starts from, checked before it is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .door import mx
from .errors import is_count
from .nn.layer import Layer, shapes
from .tree import flat
from .types import Params

__all__ = ["check_given", "check_options", "check_parts", "check_trainable"]


def check_given(model: Layer, params: Params) -> None:
    """Compare given parameters with the model's own, path by path and shape by shape."""
    own = {path: tuple(leaf.shape) for path, leaf in flat(shapes(model)).items()}
    came = {path: tuple(leaf.shape) for path, leaf in flat(params).items()}
    odd = [path for path in own | came if own.get(path) != came.get(path)]
    if odd:
        each = [f"{path} is {own.get(path, 'not there')}, given {came.get(path, 'nothing')}" for path in odd]
        raise ValueError(f"the parameters are not those of {model.name}: {'; '.join(each[:5])}")


def check_trainable(kept: Params) -> None:
    """Refuse parameters of which none can train, or some are of no floating type."""
    named = flat(kept)
    if not named:
        raise ValueError("nothing trains: every parameter is frozen, a buffer, or outside `trainable`")
    odd = [f"{path} ({leaf.dtype})" for path, leaf in named.items() if not mx.issubdtype(leaf.dtype, mx.floating)]
    if odd:
        raise ValueError(f"only floating parameters can train; freeze {', '.join(odd)}")


def check_options(compile: Any, dtype: Any, streams: Any) -> None:
    """Refuse options that no step can have."""
    if not is_count(streams, least=1):
        raise ValueError(f"streams is a count, 1 or more; got {streams!r}")
    if isinstance(compile, Mapping) and compile.get("shapeless"):
        raise ValueError("MLX's gradients are wrong, or crash, under shapeless compilation: pad or bucket batches")
    if dtype is not None and not (isinstance(dtype, mx.Dtype) and mx.issubdtype(dtype, mx.floating)):
        raise TypeError(f"dtype is a floating type of MLX, such as mx.bfloat16; got {dtype!r}")


def check_parts(model: Any, loss: Any) -> None:
    """Refuse a model that is no Layer, and a loss that is no function."""
    if not isinstance(model, Layer):
        raise TypeError(f"a step takes a Layer as model; got {type(model).__name__}: lift or split it")
    if not callable(loss):
        raise TypeError(f"a step takes a function as loss; got {loss!r}")
