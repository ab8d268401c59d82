"""The parameters of a model with its low-rank adapters switched off."""

from __future__ import annotations

from ..core._mlx import mx, utils
from ..core._types import Array, Params
from ..tree._paths import flat

__all__ = ["without_adapters"]

_FACTOR, _MAGNITUDE = "lora_b", "m"
"""The names of the second factor of a low-rank adapter, which begins at zero, and of a trained magnitude beside it."""


def without_adapters(params: Params) -> Params:
    """Switch low-rank adapters off: at the returned parameters a model computes as it did before its fine-tuning.

    The second factor of each adapter, `lora_b`, becomes zero. All other arrays are the same arrays. It is a pure
    function of parameters, so it also works within a loss: `forward.evaluated_at(nn.without_adapters(forward.params))`.

    Args:
        params: The parameters of a model with adapters.

    Returns:
        The parameters, in the same tree.

    Raises:
        ValueError: There is no adapter, or an adapter trains a magnitude, too (DoRA): zero does not switch it off.

    >>> off = without_adapters({"linear": {"weight": mx.ones((2, 2))}, "lora_b": mx.ones((1, 2))})
    >>> off["lora_b"].tolist(), off["linear"]["weight"].sum().item()
    ([[0.0, 0.0]], 4.0)
    """
    leaves = flat(params)
    owners = {path.rpartition(".")[0] for path in leaves if path.rpartition(".")[2] == _FACTOR}
    if not owners:
        raise ValueError(f"no adapter is there to switch off: no parameter is called {_FACTOR}")
    with_magnitude = [owner for owner in owners if (f"{owner}.{_MAGNITUDE}" if owner else _MAGNITUDE) in leaves]
    if with_magnitude:
        raise ValueError(
            f"the adapter at {sorted(with_magnitude)[0]} has a magnitude, as DoRA has, and lora_b = 0 does not switch "
            "it off: put the first model beside the trained one with nn.with_frozen"
        )

    def switched_off(path: str, leaf: Array) -> Array:
        return mx.zeros_like(leaf) if path.rpartition(".")[2] == _FACTOR else leaf

    result: Params = utils.tree_map_with_path(switched_off, params)
    return result
