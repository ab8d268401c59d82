"""Weights that do not train: files may leave them out, and a run that goes on brings the same ones itself."""

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
    """Return the parameters and buffers to keep, and a record that knows the others by their bits."""
    frozen = _frozen(loop, params)
    kept = Select(lambda path, leaf: path not in frozen, "all but frozen weights")
    marks = {path: _fingerprint(leaf) for path, leaf in frozen.items()}
    best = recorded["best_params"]
    told = {
        "frozen": {path: mark.item() for path, mark in marks.items()},
        "best_params": None if best is None else partition(kept)(best)[0],
    }
    return kept, {**recorded, **told}


def fill_frozen(checkpoint: Checkpoint, own: Params) -> tuple[Tree, Params | None]:
    """Return the parameters of a checkpoint, and the best ones, with weights of one's own where it leaves some out.

    Those are by path then.

    CheckpointError, with the paths, where there are none or where they have other bits.
    """
    best = checkpoint.metadata["best_params"]
    if not checkpoint.left_out:
        return checkpoint.params, best
    mine, told = flat(own), checkpoint.metadata.get("frozen")
    marks = told if isinstance(told, Mapping) else {}
    other = [
        path for path in checkpoint.left_out if path not in mine or _fingerprint(mine[path]).item() != marks.get(path)
    ]
    if other:
        more = f" and {len(other) - 8} more" if len(other) > 8 else ""
        raise CheckpointError(
            f"{checkpoint.path} leaves frozen weights out, and this run has none or others at "
            f"{', '.join(other[:8])}{more}: give the weights that the first run began with as params="
        )
    outer = {path: mine[path] for path in checkpoint.left_out}
    return {**flat(checkpoint.params), **outer}, None if best is None else {**flat(best), **outer}


def _frozen(loop: Loop, params: Params) -> dict[str, Array]:
    """Return the weights that do not train, by path; buffers do not train either, and change."""
    trained, weight = flat(loop.step.trainable(params)), loop.trainer.model.trainable.leaves(params)
    return {path: leaf for path, leaf in flat(params).items() if path not in trained and weight(path, leaf)}


def _fingerprint(leaf: Array) -> Array:
    """Return a number that tells the bits of an array from others: a sum of its words, each mixed with its place.

    Mixing is one to one, so that one other word always makes another sum.

    >>> _fingerprint(mx.array([1, 2])).item() == _fingerprint(mx.array([2, 1])).item()
    False
    """
    parts = mx.view(leaf.reshape(-1), mx.float32) if leaf.dtype == mx.complex64 else leaf.reshape(-1)
    words = mx.view(parts, _WORDS.get(parts.dtype.size, mx.uint32)).astype(mx.uint32)
    odd, other = mx.array(_ODD, mx.uint32), mx.array(_OTHER_ODD, mx.uint32)
    mixed = (words ^ (mx.arange(words.size, dtype=mx.uint32) * odd)) * other
    return mx.sum((mixed ^ (mixed >> 15)) * odd)
