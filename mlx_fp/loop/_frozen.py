"""Frozen weights: files may leave them out, and a resumed run supplies the same weights itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._errors import CheckpointError
from ..core._mlx import mx
from ..core._types import Array, Params, Tree
from ..store._checkpoint import Checkpoint
from ..tree._paths import flat, partition
from ..tree._select import Select
from ._state import Loop

__all__ = ["fill_frozen", "trained_only"]

_WORDS = {1: mx.uint8, 2: mx.uint16}

_ODD, _OTHER_ODD = 2_654_435_761, 2_246_822_519


def trained_only(loop: Loop, params: Params, recorded: Mapping[str, Any]) -> tuple[Select, dict[str, Any]]:
    """Return a Select of the arrays to keep, and a record with a fingerprint of each of the others."""
    frozen = _frozen(loop, params)
    trained = Select(lambda path, leaf: path not in frozen, "all but frozen weights")
    fingerprints = {path: _fingerprint(leaf) for path, leaf in frozen.items()}
    best = recorded["best_params"]
    changes = {
        "frozen": {path: fingerprint.item() for path, fingerprint in fingerprints.items()},
        "best_params": None if best is None else partition(trained)(best)[0],
    }
    return trained, {**recorded, **changes}


def fill_frozen(checkpoint: Checkpoint, present: Params) -> tuple[Tree, Params | None]:
    """Return the parameters of a checkpoint, and the best ones, with the present weights where it leaves some out.

    With weights left out, both are dicts by path. Raise CheckpointError, with the paths, where a present weight is
    missing or has other bits.
    """
    best = checkpoint.metadata["best_params"]
    if not checkpoint.left_out:
        return checkpoint.params, best
    weights, recorded = flat(present), checkpoint.metadata.get("frozen")
    fingerprints = recorded if isinstance(recorded, Mapping) else {}
    differing = [
        path
        for path in checkpoint.left_out
        if path not in weights or _fingerprint(weights[path]).item() != fingerprints.get(path)
    ]
    if differing:
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise CheckpointError(
            f"{checkpoint.path} leaves frozen weights out, and this run has none or others at "
            f"{', '.join(differing[:8])}{more}: give the weights that the first run began with as params="
        )
    missing = {path: weights[path] for path in checkpoint.left_out}
    return {**flat(checkpoint.params), **missing}, None if best is None else {**flat(best), **missing}


def _frozen(loop: Loop, params: Params) -> dict[str, Array]:
    """Return the frozen weights by path. Buffers are not among them: they do not train, but they change."""
    trained, weight = flat(loop.step.trainable(params)), loop.trainer.model.trainable.leaves(params)
    return {path: leaf for path, leaf in flat(params).items() if path not in trained and weight(path, leaf)}


def _fingerprint(leaf: Array) -> Array:
    """Return a number that depends on all bits of an array: the sum of its words, each mixed with its position.

    The mixing is one to one, so that a change of a single word always changes the sum.

    >>> _fingerprint(mx.array([1, 2])).item() == _fingerprint(mx.array([2, 1])).item()
    False
    """
    parts = mx.view(leaf.reshape(-1), mx.float32) if leaf.dtype == mx.complex64 else leaf.reshape(-1)
    words = mx.view(parts, _WORDS.get(parts.dtype.size, mx.uint32)).astype(mx.uint32)
    odd, other = mx.array(_ODD, mx.uint32), mx.array(_OTHER_ODD, mx.uint32)
    mixed = (words ^ (mx.arange(words.size, dtype=mx.uint32) * odd)) * other
    return mx.sum((mixed ^ (mixed >> 15)) * odd)
