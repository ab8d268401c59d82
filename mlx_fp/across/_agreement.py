"""A check that all processes start from the same facts and the same arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..core._mlx import mx
from ..core._types import Array, Tree
from ..tree._paths import flat
from ._world import World

__all__ = ["check_facts", "check_replicas", "checksums"]

_WIDTH = 160
"""The number of bytes of a fact that an error shows."""


def check_facts(world: World, facts: Mapping[str, object]) -> None:
    """Raise ValueError, with the first difference, unless all processes have the same facts.

    Args:
        world: The processes.
        facts: Values by name, of which the texts are compared. All processes have the same names.

    >>> check_facts(World(), {"epochs": 3})
    """
    texts = {name: str(value) for name, value in facts.items()}
    rows = [_digest(text) + text.encode()[:_WIDTH].ljust(_WIDTH) for text in texts.values()]
    sent = mx.array(list(b"".join(rows)), mx.uint8).reshape(len(rows), -1)
    received = world.gather(sent)
    for i, name in enumerate(texts):
        each = [bytes(received[rank, i].tolist()) for rank in range(world.size)]  # type: ignore[arg-type]
        if len(set(each)) > 1:
            seen = {rank: value[32:].decode(errors="replace").strip() for rank, value in enumerate(each)}
            raise ValueError(f"the processes differ in {name}: {seen}")


def check_replicas(world: World, tree: Tree, name: str) -> None:
    """Raise ValueError, with the first path, unless a tree has the same bits in all processes.

    This waits for the device.

    >>> check_replicas(World(), {"w": mx.ones((3,))}, "parameters")
    """
    sums = checksums(tree)
    received = world.gather(mx.stack(list(sums.values()))).tolist()
    for i, path in enumerate(sums):
        if len({row[i] for row in received}) > 1:  # type: ignore[index, union-attr]  # a list of lists
            raise ValueError(f"the processes differ in the {name}: {path} has not the same bits in all of them")


def checksums(tree: Tree) -> dict[str, Array]:
    """Return a checksum of the bits of each array by path, uint32 scalars. They depend on the order of the elements.

    >>> a, b = (checksums({"w": mx.array(values)})["w"].item() for values in ([1.0, 2.0], [2.0, 1.0]))
    >>> a == b
    False
    """
    return {path: _checksum(leaf) for path, leaf in flat(tree).items()}


def _checksum(array: Array) -> Array:
    """Sum the words of an array, each times an odd number of its index, modulo 2^32."""
    unsigned = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint32}[array.itemsize]
    whole = array.astype(mx.uint8) if array.dtype == mx.bool_ else array
    words = mx.contiguous(whole.reshape(-1)).view(unsigned).astype(mx.uint32)
    factors = mx.arange(words.size, dtype=mx.uint32) * 2654435761 | 1
    return (words * factors).sum()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
