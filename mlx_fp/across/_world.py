"""The processes of a program: how many there are, and the rank of this one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..core._mlx import mx
from ..core._options import check_options, count, optional
from ..core._types import Array

__all__ = ["ALONE", "World", "world"]

_LAUNCHED_BY = ("MLX_HOSTFILE", "MLX_IBV_DEVICES", "MLX_JACCL_COORDINATOR", "NCCL_HOST_IP", "OMPI_COMM_WORLD_SIZE")
"""Variables of the environment that the launchers of `mlx.launch` and `mpirun` set."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that run the same program. `fp.world()` makes it.

    A world of one process sends no message.
    """

    rank: int = 0
    """The number of this process, from 0 on."""
    size: int = 1
    """The number of processes."""
    check_every: int | None = None
    """The number of steps of a run between two comparisons of the parameters of all processes. None: at the start."""
    group: Any = field(default=None, compare=False, repr=False)
    """The group of MLX; None for one process."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"a rank is from 0 to size - 1; got rank {self.rank} of {self.size}")

    def sum(self, array: Array) -> Array:
        """Sum an array over the processes, in one message. Each process has the same bits.

        >>> ALONE.sum(mx.array([1.0, 2.0])).tolist()
        [1.0, 2.0]
        """
        return array if self.group is None else mx.distributed.all_sum(array, group=self.group)

    def gather(self, array: Array) -> Array:
        """Stack the arrays of the processes by rank, in one message: `(…) -> (size, …)`.

        >>> ALONE.gather(mx.array([1.0, 2.0])).tolist()
        [[1.0, 2.0]]
        """
        return array[None] if self.group is None else mx.distributed.all_gather(array[None], group=self.group)

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(world, check_every=self.check_every)
        return (World, (self.rank, self.size)) if self.group is None else (made, ())


ALONE = World()
"""The world of a program without a launcher."""


def world(*, backend: str = "any", check_every: int | None = None) -> World:
    """Return the processes that a launcher has started with this program, for example `mlx.launch -n 2 program.py`.

    Args:
        backend: The transport of `mx.distributed.init`: "ring", "mpi", "nccl", "jaccl", or "any", the default.
        check_every: The number of steps of a run after which the bits of the parameters of all processes are compared.
            They are always compared at the start. None, the default: only then.

    Returns:
        A World. Without a launcher it has one process, and `across=world` changes nothing.

    Raises:
        ValueError: `check_every` is no count of 1 or more.
        RuntimeError: A launcher has started this process, and MLX cannot reach the others. MLX alone would train a
            model of its own in each process.

    >>> world()
    World(rank=0, size=1, check_every=None)
    """
    check_options("world", {"check_every": check_every}, {"check_every": optional(count(1))})
    if not any(os.environ.get(name) for name in _LAUNCHED_BY) or _is_ring_of_one():
        return ALONE
    group = mx.distributed.init(strict=True, backend=backend)
    return ALONE if group.size() == 1 else World(group.rank(), group.size(), check_every, group)


def _is_ring_of_one() -> bool:
    """Tell whether `mlx.launch -n 1` has started this process: MLX's ring cannot connect to itself."""
    path = os.environ.get("MLX_HOSTFILE")
    return path is not None and len(json.loads(Path(path).read_text(encoding="utf-8"))) == 1
