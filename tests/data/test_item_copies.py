"""Functions that change in place what they are given: sources and caches stay as they were, over epochs and cuts."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import plain, read
from toolz import identity, pipe

from mlx_fp import data
from mlx_fp.data import Cursor
from mlx_fp.data._bucket_list import BucketList
from mlx_fp.data._item_copies import copy_item

Pair = namedtuple("Pair", "x y")
VALUES = [8.0, 16.0, 24.0, 32.0]


def rows(make):
    return [{"x": make(value), "in": {"x": (make(value),)}} for value in VALUES]


def one(library):
    return lambda value: library.array([value, value], dtype=library.float32)


def columns(library):
    return data.arrays(x=library.array([[value] * 2 for value in VALUES], dtype=library.float32))


def streamed(kept):
    return data.stream(lambda: kept)


SOURCES = {
    "numbers": lambda: data.source(rows(float)),
    "numpy in rows": lambda: data.source(rows(one(np))),
    "mlx in rows": lambda: data.source(rows(one(mx))),
    "stream of a list": lambda: streamed(rows(one(np))),
    "numpy columns": lambda: columns(np),
    "mlx columns": lambda: columns(mx),
    "numpy rows": lambda: data.source(np.array([[value] * 2 for value in VALUES])),
}


def halve(item):
    """Change all of an item in place: keys of dicts, arrays, and what is in lists."""
    if isinstance(item, dict):
        for key in item:
            item[key] = halve(item[key])
    elif isinstance(item, list):
        item[:] = [halve(one) for one in item]
    elif isinstance(item, tuple):
        return type(item)(*map(halve, item)) if hasattr(item, "_fields") else tuple(map(halve, item))
    elif isinstance(item, (float, np.ndarray, mx.array)):
        item /= 2
    return item


def halved(item):
    """The same of a copy of what tests compare, plain lists and numbers."""
    if isinstance(item, dict):
        return {key: halved(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return type(item)(map(halved, item))
    return item / 2


FUNCTIONS = {
    "map": data.map(halve),
    "map of a map": lambda dataset: pipe(dataset, data.map(identity), data.map(halve)),
    "tap": data.tap(halve),
    "filter": data.filter(lambda item: halve(item) is not None),
    "flat_map": data.flat_map(lambda item: [halve(item)]),
    "collate": data.collate(halve),
    "collate by key": lambda dataset: pipe(dataset, data.collate({"all": halve}), data.map(lambda item: item["all"])),
    "after take and enumerate": lambda dataset: pipe(
        dataset, data.map(identity), data.take(9), data.enumerate(), data.map(lambda item: halve(item[1]))
    ),
    "before prefetch": lambda dataset: pipe(dataset, data.map(halve), data.prefetch(2)),
    "an operation of one's own": data.Operation("halve", on_rows=lambda items, now: map(halve, items), size=int),
}
BETWEEN = {
    "rows": identity,
    "batches": data.batch(2),
    "batches of batches": lambda dataset: pipe(dataset, data.batch(2), data.batch(2)),
    "shuffled": lambda dataset: pipe(dataset, data.shuffle(seed=1), data.batch(2)),
    "windows": data.window(2),
    "lists of rows": data.batch(2, stack=list),
    "cache": data.cache(),
    "cache of batches": lambda dataset: pipe(dataset, data.batch(2), data.cache()),
    "repeat": data.repeat(2),
    "cache, repeated": lambda dataset: pipe(dataset, data.cache(), data.repeat(2)),
    "concat": lambda dataset: data.concat(dataset, dataset),
    "concat with a stream": lambda dataset: data.concat(dataset, data.stream(lambda: iter(()))),
    "zip": lambda dataset: data.zip(dataset, dataset),
    "zip of a cache": lambda dataset: data.zip(a=data.cache()(dataset), b=dataset),
    "interleave": lambda dataset: data.interleave(dataset, dataset),
    "mix": lambda dataset: data.mix(dataset, dataset, weights=(1, 2), seed=0),
    "split": lambda dataset: data.split((0.5, 0.5), seed=0)(dataset)[0],
    "unbatch": lambda dataset: pipe(dataset, data.batch(2), data.unbatch()),
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("source", SOURCES)
def test_sources_and_caches_stay_as_they_were_whatever_stands_between(source, between):
    if source.startswith("stream") and between == "shuffled":
        pytest.skip("a stream has no indices to shuffle")
    made = BETWEEN[between](SOURCES[source]())
    before = [plain(read(made, epoch)) for epoch in range(3)]
    dataset = data.map(halve)(made)
    for epoch in range(3):
        whole = plain(read(dataset, epoch))
        assert whole == halved(before[epoch])
        assert plain(list(dataset.open(Cursor(epoch, 1)))) == whole[1:]
    assert [plain(read(made, epoch)) for epoch in range(3)] == before


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_sources_stay_as_they_were_whatever_calls_the_function(source, function):
    for before in (identity, data.batch(2), data.cache()):
        if source.startswith("stream") and before is not identity:
            continue
        made = before(SOURCES[source]())
        expected = plain(list(made))
        dataset = FUNCTIONS[function](made)
        for epoch in range(3):
            assert plain(read(dataset, epoch)) == halved(expected)
            assert plain(list(dataset.open(Cursor(epoch, 1)))) == halved(expected)[1:]


def test_a_length_and_a_stack_that_change_rows_leave_the_source_alone():
    kept = rows(one(np))
    dataset = pipe(data.source(kept), data.bucket(lambda row: len(halve(row)), boundaries=[4], batch_size=2))
    stacked = data.batch(2, stack=lambda items: data.stack([halve(item) for item in items]))(data.source(kept))
    for epoch in range(2):
        assert read(dataset, epoch)[0][0]["x"].tolist() == [4, 4]
        assert read(stacked, epoch)[0]["x"].tolist() == [[4, 4], [8, 8]]
    assert [row["x"].tolist() for row in kept] == [[value] * 2 for value in VALUES]


def test_what_a_plain_loop_changes_of_a_cache_stays_in_the_loop():
    for source in (data.source(rows(float)), data.batch(2)(columns(np)), columns(mx)):
        kept = data.cache()(source)
        expected = plain(list(source))
        for epoch in range(3):
            assert [plain(halve(item)) for item in kept.open(Cursor(epoch))] == halved(expected)


def test_a_view_of_a_column_of_numpys_is_read_only():
    x = np.ones((4, 2), np.float32)
    for item in (next(iter(data.batch(2)(data.arrays(x=x)))), next(iter(data.arrays(x=x)))):
        assert np.shares_memory(item["x"], x)
        with pytest.raises(ValueError, match="read-only"):
            item["x"] /= 2
        assert mx.array(item["x"]).sum().item() > 0
    x /= 2  # the column itself is its owner's
    assert x.flags.writeable


def test_things_in_a_batch_that_make_no_array_are_not_shared():
    kept = [{"x": 1, "meta": None}, {"x": 2, "meta": {"seen": []}}]

    def visit(batch):
        batch["meta"][1]["seen"].append(batch["x"].tolist())
        return batch["meta"][1]["seen"]

    dataset = pipe(data.source(kept), data.batch(2), data.map(visit))
    assert [read(dataset, epoch) for epoch in range(2)] == [[[[1, 2]]]] * 2
    assert kept[1]["meta"] == {"seen": []}


class Opaque:
    """An object of another class."""


def test_what_is_copied_keeps_its_class_and_other_objects_are_shared():
    thing = Opaque()
    row = {
        "pair": Pair([1], np.zeros(2)),
        "ordered": OrderedDict(b=[1], a=2),
        "default": defaultdict(list, a=[1]),
        "set": {1, 2},
        "bytes": bytearray(b"ab"),
        "words": ["a", "b"],
        "mixed": [1.0, np.zeros(2), mx.zeros(2), None],
        "thing": thing,
        "void": np.zeros(2, dtype=[("a", "f4")])[0],
    }
    own = copy_item(row)
    assert own["thing"] is thing
    for key in row:
        assert type(own[key]) is type(row[key])
        assert key == "thing" or own[key] is not row[key]
    assert isinstance(own["pair"], Pair)
    assert own["default"]["new"] == []
    assert list(own["ordered"]) == ["b", "a"]
    own["pair"].x.append(2)
    own["pair"].y[0] = own["mixed"][1][0] = own["mixed"][2][0] = own["void"]["a"] = 7
    own["default"]["a"].append(2)
    own["ordered"]["b"].append(2)
    assert (row["pair"].x, row["default"], row["ordered"]["b"]) == ([1], {"a": [1]}, [1])
    assert [row["pair"].y[0], row["mixed"][1][0], row["mixed"][2][0].item(), row["void"]["a"]] == [0, 0, 0, 0]


def test_nothing_is_copied_where_no_function_gets_it():
    kept = [{"x": 1}, {"x": 2}]
    whole = pipe(data.source(kept), data.batch(2, stack=list), data.take(1), data.enumerate(), data.prefetch(1))
    ((_, items),) = whole
    assert all(a is b for a, b in zip(items, kept, strict=True))
    x = np.ones((4, 2))
    (batch, _) = pipe(data.arrays(x=x), data.batch(2), data.schema(x=2), data.collate({"y": "x"}))
    assert np.shares_memory(batch["y"], x)


def test_a_list_with_attributes_is_copied_with_its_items():
    rows = BucketList([{"x": [1]}, {"x": [2]}], 1, 4)
    copied = copy_item(rows)
    copied[0]["x"].append(3)
    assert rows[0] == {"x": [1]}
    assert (type(copied), copied.longest, copied.boundary) == (BucketList, 1, 4)
