"""Errors that end a program in several processes: each process learns of the errors of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from ..core._errors import named_error
from ..core._mlx import mx
from ._world import World

__all__ = ["PeerError", "from_first", "gather_texts", "is_lost", "peer_error", "tell", "together"]

T = TypeVar("T")

_TRANSPORTS = ("[ring]", "[mpi]", "[jaccl]", "[nccl]")
"""The beginnings of the errors of MLX's transports."""

_TEXT_BYTES = 512
"""The number of bytes of a text that a process sends."""


class PeerError(RuntimeError):
    """An error in another process has ended the work of all."""


def is_lost(error: BaseException) -> bool:
    """Tell whether an error means that the connection to another process is lost. No message can be sent after it.

    >>> is_lost(RuntimeError("[ring] Receiving failed")), is_lost(ValueError("no such row"))
    (True, False)
    """
    return isinstance(error, RuntimeError) and str(error).startswith(_TRANSPORTS)


def gather_texts(world: World, text: str) -> dict[int, str]:
    """Exchange texts of at most 512 bytes. Return those that are not empty, by rank.

    >>> gather_texts(World(), "no such row")
    {0: 'no such row'}
    """
    own = text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES)
    rows = world.gather(mx.array(list(own), mx.uint8)).tolist()
    texts = [bytes(row).decode(errors="replace").strip() for row in rows]  # type: ignore[arg-type, union-attr]
    return {rank: each for rank, each in enumerate(texts) if each}


def peer_error(texts: Mapping[int, str]) -> PeerError:
    """Return the error of a process that has none of its own. `texts` are the errors of the others, by rank.

    >>> peer_error({1: "ValueError: no such row"})
    PeerError('process 1 has failed: ValueError: no such row')
    """
    return PeerError("; ".join(f"process {rank} has failed: {text}" for rank, text in texts.items()))


def tell(world: World, error: BaseException) -> None:
    """Tell the other processes, which call `gather_texts`, of an error of this process.

    >>> tell(World(), ValueError("no such row"))
    """
    with suppress(RuntimeError):  # the transport: another process has ended by itself
        gather_texts(world, named_error(error))


def from_first(world: World, make: Callable[[], str]) -> str:
    """Call a function in the first process alone, and return its result, of at most 512 bytes, in all of them.

    Raises:
        PeerError: The function failed, in other processes than the first.

    >>> from_first(World(), lambda: "trial-1")
    'trial-1'
    """
    made = together(world, make if world.rank == 0 else lambda: "")
    return made if world.size == 1 else gather_texts(world, made).get(0, "")


def together(world: World, make: Callable[[], T]) -> T:
    """Call a function in all processes, and return its result. Where it fails in one process, raise an error in all.

    Args:
        world: The processes. All of them must call this.
        make: A function that sends no message.

    Raises:
        PeerError: The function failed in other processes alone.

    >>> together(World(), lambda: 3)
    3
    """
    if world.size == 1:
        return make()
    try:
        made = make()
    except Exception as error:
        tell(world, error)
        raise
    texts = gather_texts(world, "")
    if texts:
        raise peer_error(texts)
    return made
