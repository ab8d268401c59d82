"""The lists of rows that `bucket` makes, and the length to which `pad` pads them."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor

from ._types import Item

__all__ = ["BucketList", "bucket_length"]


class BucketList(list[Item]):
    """A list of rows, with the length of the longest row and the boundary of its bucket, None in the last bucket."""

    def __init__(self, rows: Iterable[Item], longest: float, boundary: float | None) -> None:
        super().__init__(rows)
        self.longest, self.boundary = longest, boundary


def bucket_length(rows: list[Item], longest: int) -> int:
    """Return the boundary for arrays of which the longest has the length of the longest row, else that length itself.

    >>> bucket_length(BucketList([[1, 2, 3], [4]], 3, 8), 3), bucket_length([[1, 2, 3], [4]], 3)
    (8, 3)
    """
    if isinstance(rows, BucketList) and rows.boundary is not None and longest == rows.longest:
        return floor(rows.boundary)
    return longest
