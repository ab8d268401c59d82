"""Build lazy, resumable data pipelines from frozen records.

A pipe passes indices for as long as it can, and reads rows only where an operation needs them.

>>> from toolz import pipe
>>> from mlx_fp import data
>>> train = pipe(data.source(range(10)), data.map(lambda n: n * n), data.filter(lambda n: n % 2))
>>> list(train), list(data.take(2)(train))
([1, 9, 25, 49, 81], [1, 9])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core._late import late as _late

if TYPE_CHECKING:
    from ._arrays import arrays as arrays
    from ._bucket import bucket as bucket
    from ._cache import cache as cache
    from ._collate import bind as bind
    from ._collate import collate as collate
    from ._combine import concat as concat
    from ._combine import repeat as repeat
    from ._combine import zip as zip
    from ._cursor import Cursor as Cursor
    from ._dataset import Dataset as Dataset
    from ._dataset import Operation as Operation
    from ._dataset import Source as Source
    from ._explain import explain as explain
    from ._interleave import interleave as interleave
    from ._interleave import mix as mix
    from ._jsonl import jsonl as jsonl
    from ._order import batch as batch
    from ._order import shard as shard
    from ._order import skip as skip
    from ._order import take as take
    from ._order import window as window
    from ._pack import pack as pack
    from ._pad import pad as pad
    from ._prefetch import prefetch as prefetch
    from ._rows import enumerate as enumerate
    from ._rows import filter as filter
    from ._rows import flat_map as flat_map
    from ._rows import map as map
    from ._rows import tap as tap
    from ._rows import unbatch as unbatch
    from ._sample import sample as sample
    from ._schema import schema as schema
    from ._shuffle import shuffle as shuffle
    from ._source import as_dataset as as_dataset
    from ._source import source as source
    from ._source import stream as stream
    from ._splits import Splits as Splits
    from ._splits import split as split
    from ._splits import splits as splits
    from ._stack import stack as stack
    from ._stack import unstack as unstack

_NAMES = {  # loaded at their first use: module -> names
    "._arrays": ("arrays",),
    "._bucket": ("bucket",),
    "._cache": ("cache",),
    "._collate": ("bind", "collate"),
    "._combine": ("concat", "repeat", "zip"),
    "._cursor": ("Cursor",),
    "._dataset": ("Dataset", "Operation", "Source"),
    "._explain": ("explain",),
    "._interleave": ("interleave", "mix"),
    "._jsonl": ("jsonl",),
    "._order": ("batch", "shard", "skip", "take", "window"),
    "._pack": ("pack",),
    "._pad": ("pad",),
    "._prefetch": ("prefetch",),
    "._rows": ("enumerate", "filter", "flat_map", "map", "tap", "unbatch"),
    "._sample": ("sample",),
    "._schema": ("schema",),
    "._shuffle": ("shuffle",),
    "._source": ("as_dataset", "source", "stream"),
    "._splits": ("Splits", "split", "splits"),
    "._stack": ("stack", "unstack"),
}

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

if not TYPE_CHECKING:  # with a `__getattr__` a type checker would accept any name
    __getattr__ = _late(__name__, _NAMES)


def __dir__() -> list[str]:
    return [*__all__]
