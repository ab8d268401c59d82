"""Counts of bytes: as text, from text, and the memory of the device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ._errors import is_count
from ._mlx import mx

__all__ = ["as_bytes", "bytes_text", "device_bytes"]

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES = {"": 1, **_UNITS} | {f"{unit[0]}IB": 1 << 10 * power for power, unit in enumerate("KMGT", 1)}

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""The files with the memory limit of a container on Linux."""


def as_bytes(value: int | str, name: str) -> int:
    """Return a count of bytes as an int; `name` is the name of the option in messages.

    Args:
        value: An int, or a text with a unit: `B`, `KB`, `MB`, `GB`, `TB` are powers of 1000, `KiB` to `TiB` of 1024.
        name: The name of the option.

    Raises:
        ValueError: The value is neither, or it is no more than 0.

    >>> as_bytes("8 GB", "limit"), as_bytes("1.5 GiB", "limit"), as_bytes(300, "limit")
    (8000000000, 1610612736, 300)
    """
    if isinstance(value, str):
        parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        if parts and parts[2].upper() in _SIZES:
            value = int(float(parts[1]) * _SIZES[parts[2].upper()])
    if not is_count(value, least=1):
        raise ValueError(f"{name} is a number of bytes above 0, or a text such as '8 GB'; got {value!r}")
    return int(value)


def bytes_text(count: float) -> str:
    """Write a count of bytes in the largest unit of at least 1.

    >>> bytes_text(512), bytes_text(1_234_567), bytes_text(8e9)
    ('512 B', '1.23 MB', '8 GB')
    """
    *_, (unit, size) = [each for each in _UNITS.items() if each[1] <= max(abs(count), 1)]
    return f"{count / size:.3g} {unit}"


def device_bytes() -> int:
    """Return how many bytes of memory a program should use on the default device.

    On a Mac it is the working set that the system recommends. Elsewhere it is the memory limit of MLX, or that of the
    container if it is smaller.

    >>> device_bytes() > 1 << 20
    True
    """
    facts: Mapping[str, object] = mx.device_info()
    recommended = facts.get("max_recommended_working_set_size")
    if isinstance(recommended, int):
        return recommended
    return min([int(mx.get_memory_limit()), *_container_limits()])


def _container_limits() -> list[int]:
    texts = [Path(file).read_text().strip() for file in _CONTAINER_LIMITS if Path(file).is_file()]
    return [int(text) for text in texts if text.isdigit()]
