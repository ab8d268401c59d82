"""How far the loop may run ahead of the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container
from typing import Any

from ..core._mlx import mx
from ..core._types import Params
from ..tree._paths import size

__all__ = ["SMALL", "SYNC", "check_unrolling"]

SYNC: dict[str, Callable[..., Any]] = {"async": mx.async_eval, "step": mx.eval}
"""What is done with what a step gives, by the name of a `sync`; nothing where there is no name."""

SMALL = 1 << 17
"""Elements of parameters up to which several steps in one call were measured to be faster."""


def check_unrolling(count: int, params: Params, heard: Container[str]) -> None:
    """Refuse several steps in one call where a hook wants to come between; warn where they gain nothing.

    >>> check_unrolling(2, {}, {"after_backward"})
    Traceback (most recent call last):
    ValueError: steps_per_call=2 takes whole steps, and a hook listens to after_backward, which is in the midst of one
    """
    if count == 1:
        return
    if "after_backward" in heard:
        told = "takes whole steps, and a hook listens to after_backward, which is in the midst of one"
        raise ValueError(f"steps_per_call={count} {told}")
    if size(params) > SMALL:
        warnings.warn(
            f"steps_per_call={count} is for small models: with {size(params):,} parameters it saves nothing, and costs "
            "memory and time to compile",
            RuntimeWarning,
            stacklevel=2,
        )
