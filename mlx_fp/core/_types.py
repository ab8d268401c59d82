"""Names for the types of trees and functions. They have no behaviour, and need no MLX at run time."""

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
"""A plain dict, list or tuple of arrays, nested to any depth. For example, `{"weight": w, "layers": [{"bias": b}]}`."""

Params: TypeAlias = Tree
"""A tree of weights and buffers. Its paths are those of the module in mlx.nn."""

State: TypeAlias = dict[str, Any]
"""The values beside the parameters that one step hands to the next: plain dicts of arrays."""

Batch: TypeAlias = Tree
"""A dict, a tuple or list, or a single array."""


class Forward(Protocol):
    """A model that is bound to the parameters, the random stream and the mode of one step."""

    params: Params
    train: bool

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        """Run the model."""

    def evaluated_at(self, params: Params) -> Callable[..., Any]:
        """Return the model on other parameters, in evaluation mode and without gradients."""


Loss: TypeAlias = Callable[..., Any]
"""`loss(forward, ...)` returns a scalar array, or `(scalar, dict of scalars)`."""
