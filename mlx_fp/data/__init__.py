"""Lazy, index-first, resumable data pipelines, built of frozen records.

>>> from toolz import pipe
>>> from mlx_fp import data
>>> train = pipe(data.source(range(10)), data.map(lambda n: n * n), data.filter(lambda n: n % 2))
>>> list(train), list(data.take(2)(train))
([1, 9, 25, 49, 81], [1, 9])
"""

from .collate import collate
from .dataset import Dataset, Operation
from .order import batch, shuffle, take
from .place import Cursor
from .rows import filter, map
from .source import arrays, as_dataset, source, stream

__all__ = [
    "Cursor",
    "Dataset",
    "Operation",
    "arrays",
    "as_dataset",
    "batch",
    "collate",
    "filter",
    "map",
    "shuffle",
    "source",
    "stream",
    "take",
]
