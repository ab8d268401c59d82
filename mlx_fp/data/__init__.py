"""Lazy, index-first, resumable data pipelines, built of frozen records.

>>> from toolz import pipe
>>> from mlx_fp import data
>>> train = pipe(data.source(range(10)), data.map(lambda n: n * n), data.filter(lambda n: n % 2))
>>> list(train), list(data.take(2)(train))
([1, 9, 25, 49, 81], [1, 9])
"""

from ._bucket import bucket
from ._collate import bind, collate
from ._combine import cache, concat, repeat, zip
from ._cursor import Cursor
from ._dataset import Dataset, Operation, Source
from ._order import batch, shard, shuffle, skip, take, window
from ._pad import pad
from ._prefetch import prefetch
from ._rows import enumerate, filter, flat_map, map, tap, unbatch
from ._sample import sample
from ._schema import schema
from ._source import arrays, as_dataset, source, stream
from ._splits import Splits, split, splits
from ._stack import stack, unstack
from ._turns import interleave, mix

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
    "sample",
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
