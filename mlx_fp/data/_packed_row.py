"""One row of several sequences: tokens, segments, positions and mask."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, cast

from ..core._errors import unknown
from ..core._types import Array
from ._bins import Piece
from ._types import Item

__all__ = ["packed_row", "tokens_of"]


def tokens_of(row: Item) -> Any:
    """Return the tokens of a row: the row itself, or the column `tokens` of a dict.

    >>> tokens_of({"tokens": [5, 6]}), tokens_of([5, 6])
    ([5, 6], [5, 6])
    """
    tokens = row
    if isinstance(row, dict):
        if "tokens" not in row:
            raise ValueError(unknown("column of pack,", "tokens", list(map(str, row))))
        tokens = row["tokens"]
    if not hasattr(tokens, "__len__") or isinstance(tokens, (str, bytes)) or getattr(tokens, "ndim", 1) != 1:
        raise TypeError(
            f"pack takes sequences of token ids, or dicts with them as 'tokens'; got {type(tokens).__name__} "
            f"{getattr(tokens, 'shape', '')}".rstrip()
            + ": tokenize the text, and pack before batch"
        )
    return tokens


def packed_row(pieces: Iterable[Piece], length: int) -> dict[str, Array]:
    """Lay pieces of rows one after the other into arrays `(length,)`, int32. The rest is 0.

    >>> row = packed_row([([7, 8, 9], 0, 3), ({"tokens": [5, 6], "mask": [0, 1]}, 0, 2)], 6)
    >>> {name: column.tolist() for name, column in row.items()}["segments"]
    [1, 1, 1, 2, 2, 0]
    >>> row["positions"].tolist(), row["mask"].tolist()
    ([0, 1, 2, 0, 1, 0], [1, 1, 1, 0, 1, 0])
    """
    from ..core._mlx import mx

    tokens, segments, positions, mask = (array("i", bytes(4 * length)) for _ in range(4))
    at = 0
    for number, (row, start, stop) in enumerate(pieces, 1):
        place = slice(at, at + stop - start)
        tokens[place] = _integers("tokens", tokens_of(row), start, stop)
        segments[place] = array("i", [number]) * (stop - start)
        positions[place] = array("i", range(stop - start))
        mask[place] = _mask(row, start, stop)
        at = place.stop
    columns = {"tokens": tokens, "segments": segments, "positions": positions, "mask": mask}
    return {name: mx.array(cast(Any, memoryview(column))) for name, column in columns.items()}


def _mask(row: Item, start: int, stop: int) -> array[int]:
    if not isinstance(row, dict) or row.get("mask") is None:
        return array("i", [1]) * (stop - start)
    if len(row["mask"]) != len(row["tokens"]):
        raise ValueError(f"a mask has one number a token; got {len(row['mask'])} for {len(row['tokens'])} tokens")
    values = _integers("mask", row["mask"], start, stop)
    if not {0, 1}.issuperset(values):
        raise ValueError(f"a mask is 1 for each token that counts as a target, else 0; it has {set(values) - {0, 1}}")
    return values


def _integers(name: str, values: Any, start: int, stop: int) -> array[int]:
    part = values[start:stop]
    try:
        return array("i", part.tolist() if hasattr(part, "tolist") else part)
    except (TypeError, OverflowError) as error:
        raise TypeError(f"the {name} of pack are integers of 32 bits: {error}") from None
