"""Count the cores that a container's quota of CPU time allows.

Source: cgroups(7); the kernel's documentation of cgroup v2 (cpu.max) and of the CFS bandwidth control (v1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil

__all__ = ["allowed_cores"]


def allowed_cores(root: str = "/") -> int:
    """Return how many cores this process may keep busy: those of the machine, or fewer by a quota of its groups.

    A quota of 1.5 cores allows two threads, which rest for a quarter of the time.

    Args:
        root: The root of the file system.
    """
    return max(1, min([os.cpu_count() or 1, *(ceil(cores) for cores in _quotas(root))]))


def _quotas(root: str) -> Iterator[float]:
    """Find the quotas of the groups of this process, in cores."""
    with suppress(OSError):
        for line in _read(root, "proc/self/cgroup").splitlines():
            _, controllers, group = line.split(":", 2)
            mount = os.path.join(root, "sys/fs/cgroup", "cpu" if controllers else "")
            if not controllers or "cpu" in controllers.split(","):
                parts = group.strip("/").split("/")
                for depth in range(len(parts) + 1):
                    yield from _quota(os.path.join(mount, *parts[:depth]))


def _quota(folder: str) -> Iterator[float]:
    """Read the quota of a group: the time that it gets, over the period in which it gets it."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # a file that is missing, or "max": no quota
            time, period = (int(word) for name in names for word in _read(folder, name).split())
            if time > 0 and period > 0:
                yield time / period


def _read(folder: str, name: str) -> str:
    with open(os.path.join(folder, name)) as file:  # `pathlib` takes 3 ms to import, and the first layer needs this
        return file.read()
