"""The flags of a message: the kind of the message, and the requests of processes."""

from __future__ import annotations

from typing import NamedTuple

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["Flags"]


class Flags(NamedTuple):
    """The flags that a process sends with a message. On arrival each flag is the sum over the processes.

    The first three tell the kind of the message: all processes must send messages of one kind.
    """

    steps: int = 0
    evaluations: int = 0
    agreements: int = 0
    failed: int = 0
    """Whether an error has ended the run in this process."""
    ending: int = 0
    """Whether this process knows of an error, and waits for the others."""
    sigint: int = 0
    """Whether SIGINT asks this process to end the run."""
    sigterm: int = 0
    """The same for another signal."""
    stop: int = 0
    """Whether a hook asks to stop."""
    final: int = 0
    """Whether such a stop is final."""
    save: int = 0
    validate: int = 0

    def array(self) -> Array:
        """Return the flags as a float32 array, `(11,)`."""
        return mx.array([float(flag) for flag in self])

    @classmethod
    def of(cls, array: Array) -> Flags:
        """Read flags from an array. This waits for the device.

        >>> Flags.of(Flags(steps=1, save=1).array())[:1], Flags.of(Flags(save=1).array()).save
        ((1,), 1)
        """
        return cls(*(round(flag) for flag in array.tolist()))  # type: ignore[union-attr, arg-type]  # a list of floats
