"""Build lazy, resumable data pipelines from frozen records.

A pipe passes indices for as long as it can, and reads rows only where an operation needs them.

>>> from toolz import pipe
>>> from mlx_fp import data
>>> train = pipe(data.source(range(10)), data.map(lambda n: n * n), data.filter(lambda n: n % 2))
>>> list(train), list(data.take(2)(train))
([1, 9, 25, 49, 81], [1, 9])
"""

from ._arrays import arrays
from ._bucket import bucket
from ._cache import cache
from ._collate import bind, collate
from ._combine import concat, repeat, zip
from ._cursor import Cursor
from ._dataset import Dataset, Operation, Source
from ._explain import explain
from ._interleave import interleave, mix
from ._jsonl import jsonl
from ._order import batch, shard, skip, take, window
from ._pack import pack
from ._pad import pad
from ._prefetch import prefetch
from ._rows import enumerate, filter, flat_map, map, tap, unbatch
from ._sample import sample
from ._schema import schema
from ._shuffle import shuffle
from ._source import as_dataset, source, stream
from ._splits import Splits, split, splits
from ._stack import stack, unstack

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
    "explain",
    "filter",
    "flat_map",
    "interleave",
    "jsonl",
    "map",
    "mix",
    "pack",
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


def __dir__() -> list[str]:
    return [*__all__]
