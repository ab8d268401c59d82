"""Types of a call of a layer: its arguments, its result, and the computation itself."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from ..core._types import Params

__all__ = ["Inputs", "Keywords", "LayerCall", "Output", "Result"]

Inputs: TypeAlias = tuple[Any, ...]
"""The positional arguments of a call of a model: arrays, or other values that the model takes."""

Keywords: TypeAlias = dict[str, Any]
"""The keyword arguments of a call of a model."""

Output: TypeAlias = Any
"""The value that a model returns: an array, or a tuple, list or dict of arrays."""

Result: TypeAlias = tuple[Output, Params]
"""`(y, params)`: the output of a layer, and its parameters with updated buffers."""


class LayerCall(Protocol):
    """The computation of a layer. It draws random numbers from the stream that is installed during the call."""

    def __call__(self, params: Params, xs: Inputs, kw: Keywords, train: bool, /) -> Result:
        """Run the layer on positional arguments `xs` and keyword arguments `kw`."""
