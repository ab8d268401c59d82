"""Names for the shapes that functions and trees take; no behaviour, and no mlx at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import mlx.core as mx

    Array: TypeAlias = mx.array
else:
    Array = "mlx.core.array"

__all__ = ["Array", "Batch", "Forward", "Loss", "Params", "State", "Tree"]

Tree: TypeAlias = Any
"""A plain dict, list or tuple of arrays, nested at will."""

Params: TypeAlias = Any
"""A tree of weights and buffers under mlx.nn's own paths."""

State: TypeAlias = dict[str, Any]
"""What goes from step to step beside the parameters, as plain dicts of arrays."""

Batch: TypeAlias = Any
"""A dict, a tuple or list, or a single array."""


class Forward(Protocol):
    """The model bound to one step's parameters, random stream and mode."""

    params: Params
    train: bool

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        """Run the model."""


Loss: TypeAlias = Callable[..., Any]
"""`loss(forward, ...)` gives a scalar array, or `(scalar, dict of scalars)`."""
