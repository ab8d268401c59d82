"""Batches of packed rows: their labels, and the inputs that keep a model within the segments."""

from __future__ import annotations

from typing import Any

from ..core._types import Array, Batch, Forward, Tree
from ..nn._segment_mask import segment_mask

__all__ = ["PACKED", "context_of", "shifted_columns"]

PACKED = ("tokens", "mask", "segments", "positions")
"""The columns of packed rows."""


def shifted_columns(batch: dict[str, Any]) -> Batch:
    """Split columns `(n, tokens + 1)` into inputs and labels, as the columns of a batch for language modeling.

    A label counts where its mask is 1, and where it is of the segment of the token before it. Segment 0 is padding.

    >>> import mlx.core as mx
    >>> batch = shifted_columns({"tokens": mx.array([[5, 6, 7, 0]]), "segments": mx.array([[1, 1, 2, 0]])})
    >>> batch["y"].tolist(), batch["mask"].astype(mx.int32).tolist(), batch["segments"].tolist()
    ([[6, 7, 0]], [[1, 0, 0]], [[1, 1, 2]])
    """
    tokens = batch["tokens"]
    for name, column in batch.items():
        if column.ndim != 2 or column.shape != tokens.shape or column.shape[1] < 2:
            raise ValueError(
                f"tokens of a batch, and their {', '.join(PACKED[1:])}, are arrays (n, tokens + 1) of one shape; "
                f"{name} is {tuple(column.shape)} and tokens are {tuple(tokens.shape)}"
            )
    columns = {"x": tokens[:, :-1], "y": tokens[:, 1:]}
    segments, counts = batch.get("segments"), None if "mask" not in batch else batch["mask"][:, 1:] != 0
    if segments is not None:
        within = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] != 0)
        counts = within if counts is None else counts & within
    columns |= {} if counts is None else {"mask": counts}
    return columns | {name: batch[name][:, :-1] for name in ("segments", "positions") if name in batch}


def context_of(forward: Forward, segments: Array | None, positions: Array | None) -> dict[str, Tree]:
    """Return the inputs by name that a model takes of packed rows: the mask of the segments, segments, positions.

    Raises:
        ValueError: There are segments, and the model takes neither a mask nor segments.
    """
    takes = getattr(forward, "takes", frozenset[str]())
    inputs: dict[str, Tree] = {"segments": segments, "positions": positions}
    if segments is not None:
        if not takes & {"mask", "segments"}:
            raise ValueError(
                "the batch has segments, and the model takes neither `mask` nor `segments`, so tokens would attend "
                "other sequences of their row: write the model as nn.define(forward) with forward(m, tokens, mask), "
                "wrap a model of mlx-lm by lm.packed, or leave the column out if each row is one sequence"
            )
        inputs["mask"] = segment_mask(segments) if "mask" in takes else None
    return {name: value for name, value in inputs.items() if value is not None and name in takes}
