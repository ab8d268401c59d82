"""Lazy, index-first, resumable data pipelines, built of frozen records.

>>> from toolz import pipe
>>> from mlx_fp import data
>>> train = pipe(data.source(range(10)), data.map(lambda n: n * n), data.filter(lambda n: n % 2))
>>> list(train), list(data.take(2)(train))
([1, 9, 25, 49, 81], [1, 9])
"""

from .collate import bind, collate
from .dataset import Dataset, Operation, Source
from .feed import prefetch
from .join import cache, concat, interleave, mix, repeat, zip
from .order import batch, shard, shuffle, skip, take, window
from .place import Cursor
from .ragged import bucket, pad
from .rows import enumerate, filter, flat_map, map, tap, unbatch
from .schema import schema
from .source import arrays, as_dataset, source, stream
from .splits import Splits, split, splits
from .stack import stack, unstack

__all__ = [
    "Cursor",
    "Dataset",
    "Operation",
    "Source",
    "Splits",
    "arrays",
    "as_dataset",
    "batch",
    "bind",
    "bucket",
    "cache",
    "collate",
    "concat",
    "enumerate",
    "filter",
    "flat_map",
    "interleave",
    "map",
    "mix",
    "pad",
    "prefetch",
    "repeat",
    "schema",
    "shard",
    "shuffle",
    "skip",
    "source",
    "split",
    "splits",
    "stack",
    "stream",
    "take",
    "tap",
    "unbatch",
    "unstack",
    "window",
    "zip",
]
