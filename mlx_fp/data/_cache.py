"""Cache items: in memory for one process, or in a file for every later run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ..core._user_path import user_path
from ._cache_file import CacheFile, build_cache, building
from ._call_text import call_text
from ._cursor import EpochRead
from ._dataset import Dataset, Operation, Source
from ._evaluated import evaluate_arrays
from ._fingerprint import fingerprint, varying_stage
from ._item_copies import copy_item
from ._types import Item
from ._view import View, pick_by

__all__ = ["cache"]


def cache(path: str | os.PathLike[str] | None = None, *, key: str = "") -> Operation:
    """Cache the items of epoch 0, and hand out these items in every epoch.

    Without `path`, the items stay in memory. They are read when they are needed, and their MLX arrays are evaluated.
    The cache is kept once an epoch was read to its end. Each item is handed out as a copy, which may be changed in
    place. Objects that are neither containers nor arrays are shared.

    With `path`, the items are computed once, when the first item is requested, and written to one file. Every later
    run reads this file, row by row: the pipe has indices again, so `shuffle` and `split` may follow, and a cursor
    seeks. The file is there complete or not at all. Where several processes or threads need it at once, one builds it
    and the others wait. The log `mlx_fp.data` shows the progress at level INFO.

    - Items are numbers, arrays of numbers, and dicts, lists and tuples of these. All items have the same keys, and
      arrays of the same dtype and number of axes; the lengths may differ. They come back exactly as they were, but for
      lists with both integers and floats, which come back as floats.
    - The file has a fingerprint of the pipeline: its text and its number of items, the content of the files of `jsonl`
      (which are read for it), of a tokenizer, and of a Hugging Face dataset. It does not see the code of a function,
      nor the values in lists and arrays. `key` stands for these.

    Args:
        path: The file. `~` is the home folder of the user. None, the default, caches in memory.
        key: A text that you change where the fingerprint cannot see a change. For example, `key="v2"`.

    Raises:
        TypeError: `path` is no path, or `key` is no text. When the file is built: an item holds another value.
        ValueError: `key` is given without `path`; an operation before it depends on the epoch, as `shuffle` does; or
            the file holds the items of another pipeline. When the data are read: the file is damaged, or the rows
            differ in layout.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> letters = pipe(data.source("ab"), data.tap(print), data.cache())
    >>> list(letters), list(letters)
    a
    b
    (['a', 'b'], ['a', 'b'])
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "squares")
    >>> squares = pipe(data.source(range(4)), data.map(lambda n: n * n), data.cache(path), data.shuffle(seed=1))
    >>> list(squares), os.path.exists(path)
    ([4, 9, 1, 0], True)
    """
    if not isinstance(path, (str, os.PathLike, type(None))):
        raise TypeError(f"cache takes the path of a file, or none; got {path!r}")
    if not isinstance(key, str):
        raise TypeError(f"the key of cache is a text; got {key!r}")
    if path is None:
        if key:
            raise ValueError("cache(key=…) is for a cache on disk: give it a path")
        return Operation(
            "cache()", as_source=lambda dataset: Source("cache()", dataset.size, rows=_cached_rows(dataset))
        )
    label = call_text("cache", os.fspath(path), key=key or None)
    return Operation(label, as_source=lambda dataset: _file_source(dataset, user_path(path), key, label))


def _cached_rows(dataset: Dataset) -> Callable[[EpochRead], Iterator[Item]]:
    """Return a function that reads the items of epoch 0 once, and then hands out copies of them."""
    complete: list[list[Item]] = []

    def rows(epoch_read: EpochRead) -> Iterator[Item]:
        if complete:
            yield from map(copy_item, complete[0][epoch_read.start :])
            return
        items: list[Item] = []
        with closing(dataset.read(replace(epoch_read, epoch=0, start=0, copies=False))) as source:
            for item in source:
                items.append(evaluate_arrays(item))
                if len(items) > epoch_read.start:
                    yield copy_item(item)
        complete[:] = [items]

    return rows


def _file_source(dataset: Dataset, path: Path, key: str, label: str) -> Source:
    """Return the source of the items in a file, which is opened here where it exists."""
    stage = varying_stage(dataset)
    if stage is not None:
        raise ValueError(
            f"{label} keeps the items of one epoch for all, and {stage} before it depends on the epoch or on the kind "
            "of the read: put it after the cache"
        )
    opened = [CacheFile(path, _pipeline(dataset, key))] if path.exists() else []

    def view(epoch_read: EpochRead) -> View:
        if not opened:
            opened.append(_build_or_open(dataset, path, _pipeline(dataset, key)))
        row = opened[0].row

        return View(range(len(opened[0])), pick_by(row), row)

    return Source(label, len(opened[0]) if opened else dataset.size, view=view)


def _pipeline(dataset: Dataset, key: str) -> str:
    return f"{fingerprint(dataset)}\nkey {key!r}"


def _build_or_open(dataset: Dataset, path: Path, pipeline: str) -> CacheFile:
    with building(path):
        if not path.exists():
            build_cache(path, dataset, pipeline)
        return CacheFile(path, pipeline)
