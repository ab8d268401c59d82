"""How far the loop may run ahead of the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..door import mx
from ..tree import leaves
from ..types import Params

__all__ = ["LARGE", "SYNC", "is_large"]

SYNC: dict[str, Callable[..., Any]] = {"async": mx.async_eval, "step": mx.eval}
"""What is done with what a step gives, by the name of a `sync`; nothing where there is no name."""

LARGE = 32 << 20
"""Bytes of parameters from which on, on a CPU, a queued step waits for the one before: its arrays need the room."""


def is_large(params: Params) -> bool:
    """Tell whether queueing a step while the one before still runs would cost more memory than it saves time.

    >>> is_large({"weight": mx.zeros((8, 8))})
    False
    """
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return on_cpu and sum(leaf.nbytes for leaf in leaves(params)) >= LARGE
