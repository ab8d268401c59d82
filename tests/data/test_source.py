"""Sources, cursors, and the laws of reading a dataset."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import FrozenInstanceError
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from helpers import Counted, File, plain, run_python
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import Cursor

ROWS = [{"x": float(i), "y": i} for i in range(23)]


def test_iter_is_the_first_epoch_and_fresh_every_time():
    dataset = data.stream(lambda epoch: iter([epoch]))
    assert list(dataset) == list(dataset) == [0]
    assert iter(dataset) is not iter(dataset)


def test_records_are_frozen_and_verbs_leave_their_dataset_alone():
    dataset = data.source(ROWS)
    longer = data.take(2)(dataset)
    assert (len(dataset), len(longer)) == (23, 2)
    with pytest.raises(FrozenInstanceError):
        dataset.operations = ()
    with pytest.raises(FrozenInstanceError):
        Cursor(0, 0).index = 1


def test_repr_reads_like_the_pipe():
    images, labels = np.zeros((1437, 8, 8, 1), np.float32), np.zeros(1437, np.int32)
    dataset = pipe(data.arrays(x=images, y=labels), data.shuffle(seed=7), data.batch(64))
    assert repr(dataset) == "pipe(arrays(x=(1437, 8, 8, 1), y=(1437,)), shuffle(seed=7), batch(64))"
    assert repr(data.arrays(mx.zeros((3, 2)), mx.zeros(3))) == "arrays((3, 2), (3,))"
    assert repr(data.stream(open_rows)) == "stream(open_rows)"
    rest = (data.take(2), data.filter(bool), data.map(str), data.batch(2, drop_last=True))
    assert repr(pipe(data.source((1, 2)), *rest)) == (
        "pipe(source(tuple of 2), take(2), filter(bool), map(str), batch(2, drop_last=True))"
    )


def open_rows():
    return iter(ROWS)


@pytest.mark.parametrize(
    ("dataset", "size"),
    [
        (data.source(ROWS), 23),
        (pipe(data.source(ROWS), data.shuffle(seed=0), data.take(9), data.map(str), data.batch(4)), 3),
        (pipe(data.source(ROWS), data.map(str), data.batch(4, drop_last=True), data.take(99)), 5),
    ],
    ids=repr,
)
def test_len(dataset, size):
    assert len(dataset) == size


@pytest.mark.parametrize(
    ("dataset", "culprit"),
    [
        (data.stream(open_rows), r"stream\(open_rows\)"),
        (pipe(data.stream(open_rows), data.take(2)), r"stream\(open_rows\)"),
        (pipe(data.source(ROWS), data.filter(bool), data.map(str)), r"filter\(bool\)"),
        (pipe(data.source(ROWS), data.take(lambda epoch: epoch)), r"take\(<lambda>\)"),
    ],
    ids=repr,
)
def test_len_says_what_keeps_it_unknown(dataset, culprit):
    with pytest.raises(TypeError, match=rf"has no len\(\): {culprit} does not say"):
        len(dataset)


def test_a_cursor_past_the_end_leaves_nothing_and_a_negative_one_is_refused():
    assert list(data.source(ROWS).open(Cursor(0, 99))) == []
    with pytest.raises(ValueError, match="index of a Cursor must be an integer of at least 0; got -1"):
        Cursor(0, -1)
    with pytest.raises(ValueError, match="epoch of a Cursor must be"):
        Cursor(True)


def test_opening_seeks_through_index_operations_and_map():
    rows = Counted(1000)
    dataset = pipe(data.source(rows), data.take(900), data.map(lambda n, index: (n, index)))
    assert next(dataset.open(Cursor(0, 700))) == (700, 700)
    assert rows.read == [700]
    shuffled = pipe(data.source(rows), data.shuffle(seed=1))
    expected = list(shuffled)[500:503]
    rows.read.clear()
    reader = shuffled.open(Cursor(0, 500))
    assert [next(reader) for _ in range(3)] == expected == rows.read


def test_nothing_is_read_before_it_is_asked_for():
    rows = Counted(100)
    dataset = pipe(data.source(rows), data.shuffle(seed=0), data.map(str), data.filter(bool), data.batch(8))
    reader = dataset.open()
    assert rows.read == []
    next(reader)
    assert len(rows.read) == 8


# sources


def test_arrays_by_name_give_dicts_and_by_position_tuples():
    x, y = np.arange(6).reshape(3, 2), np.arange(3)
    assert plain(list(data.arrays(x=x, y=y)))[2] == {"x": [4, 5], "y": 2}
    assert plain(list(data.arrays(x, y)))[2] == [[4, 5], 2]
    assert all(isinstance(item, tuple) for item in data.arrays(x, y))


def test_arrays_errors_name_the_columns():
    with pytest.raises(ValueError, match="different lengths: column 'x' has 3, column 'y' has 4"):
        data.arrays(x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(ValueError, match="different lengths: column 0 has 3, column 1 has 4"):
        data.arrays(mx.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="column 'x' of arrays has no rows"):
        data.arrays(x=mx.array(1.0))
    with pytest.raises(TypeError, match="column 'x' of arrays must be a numpy or an mlx array; got list"):
        data.arrays(x=[1, 2])
    for named in ({}, {"x": np.zeros(2)}):
        with pytest.raises(TypeError, match="all by position or all by name"):
            data.arrays(*([np.zeros(2)] if named else []), **named)


@pytest.mark.parametrize("mask", [[True, False], np.ma.nomask])
def test_a_masked_column_is_refused_and_a_filled_one_taken(mask):
    x = np.ma.array([1.0, 2.0], mask=mask)
    with pytest.raises(TypeError, match=r"^column 'x' of arrays is a masked array .* fill it, as in x.filled\(0\)"):
        data.arrays(x=x)
    columns = data.arrays(x=x.filled(0), known=~np.ma.getmaskarray(x))
    assert [row["x"] * row["known"] for row in columns] == x.filled(0).tolist()


@pytest.mark.parametrize("make", [data.source, data.stream, data.as_dataset, data.arrays], ids=lambda f: f.__name__)
@pytest.mark.parametrize("once", [lambda: (row for row in ROWS), lambda: iter(ROWS), lambda: map(str, ROWS)])
def test_an_iterator_is_refused_with_the_remedy(make, once):
    with pytest.raises(TypeError, match=r"which can be read only once: write stream\(lambda: a new one\)"):
        make(once())


def test_as_dataset():
    dataset = data.source(ROWS)
    assert data.as_dataset(dataset) is dataset
    for rows in ([(1, 2)], ((1, 2),), range(3), Counted(2), np.zeros((2, 2))):
        assert plain(list(data.as_dataset(rows))) == plain(list(data.source(rows)))
    with pytest.raises(TypeError, match=r"not a dict: for a dict of columns write arrays\(\*\*columns\)"):
        data.as_dataset({"x": [1]})
    with pytest.raises(TypeError, match=r"source takes an object with __len__ and __getitem__, not a set"):
        data.as_dataset({1, 2})


def test_an_operation_on_something_else_says_how_to_begin():
    with pytest.raises(TypeError, match=r"batch\(2\) takes a Dataset, not a list: begin with source"):
        data.batch(2)([1, 2, 3])


# streams


def by_keyword(*, kind, epoch=9):
    return [(epoch, kind)]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (lambda: [1], [1]),
        (lambda epoch: [epoch], [4]),
        (lambda kind, epoch: [(epoch, kind)], [(4, "validation")]),
        (by_keyword, [(4, "validation")]),
        (lambda size=2, **rest: [size, rest], [2, {"epoch": 4, "kind": "validation"}]),
        (partial(lambda rows, epoch: [rows, epoch], "r"), ["r", 4]),
    ],
)
def test_a_factory_gets_what_it_names(factory, expected):
    assert list(data.stream(factory).open(Cursor(4), kind="validation")) == expected


def test_a_factory_is_checked_when_the_stream_is_made():
    with pytest.raises(TypeError, match="stream factory '<lambda>' requires 'shard', which is not on offer"):
        data.stream(lambda shard: [])
    with pytest.raises(TypeError, match="stream takes a function that returns an iterable; got list"):
        data.stream([1, 2])


def test_a_factory_is_called_once_per_epoch_and_only_when_read():
    calls = []
    dataset = data.stream(lambda epoch: calls.append(epoch) or range(3))
    readers = [dataset.open(Cursor(epoch)) for epoch in (0, 1)]
    assert calls == []
    assert [list(reader) for reader in readers] == [[0, 1, 2], [0, 1, 2]]
    assert calls == [0, 1]


def abandoned(reader):
    next(reader)
    reader.close()


def forgotten(reader):
    next(reader)


def finished(reader):
    list(reader)


def failed(reader):
    next(reader)
    with pytest.raises(KeyError):
        reader.throw(KeyError("elsewhere"))


@pytest.mark.parametrize("leave", [abandoned, forgotten, finished, failed])
@pytest.mark.parametrize(
    "operations",
    [[], [data.map(str)], [data.filter(lambda n: n % 2), data.batch(2), data.take(2)], [data.take(1)]],
    ids=lambda operations: "-".join(map(repr, operations)) or "bare",
)
def test_a_source_is_closed_with_its_reader(leave, operations):
    file = File(range(9))
    leave(pipe(data.stream(lambda: file), *operations).open())
    assert file.closed == 1


def test_a_source_is_closed_when_an_operation_raises():
    file = File(range(9))
    with pytest.raises(ZeroDivisionError):
        list(pipe(data.stream(lambda: file), data.map(lambda n: 1 // (n - 2))))
    assert file.closed == 1


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "operations",
    [[], [data.filter(lambda n: n >= 0)], [data.flat_map(lambda n: [n])], [data.shuffle(seed=1, window=2)]],
    ids=lambda operations: "-".join(map(repr, operations)) or "bare",
)
def test_a_source_is_closed_by_the_time_an_error_is_handled(operations, index):
    closed = []

    def rows():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    reader = pipe(data.stream(rows), *operations, data.map(lambda n: 1 // 0)).open(Cursor(0, index))
    with pytest.raises(ZeroDivisionError) as error:
        next(reader)
    assert (closed, error.type) == ([True], ZeroDivisionError)


@pytest.mark.parametrize("index", [0, 2])
def test_what_flat_map_opened_is_closed_by_the_time_an_error_is_handled(index):
    closed = []

    def halves(n):
        try:
            yield from (n, n)
        finally:
            closed.append(n)

    reader = pipe(data.source(range(3)), data.flat_map(halves), data.map(lambda n: 1 // 0)).open(Cursor(0, index))
    with pytest.raises(ZeroDivisionError) as error:
        next(reader)
    assert (closed, error.type) == ([*range(index // 2 + 1)], ZeroDivisionError)


# errors keep their class and say where


def note(error):
    return getattr(error.value, "__notes__", [])


def test_an_error_of_a_stream_notes_the_index_of_the_item_it_did_not_give():
    def rows(epoch):
        yield from (1, 2)
        raise OSError("disk")

    reader = data.stream(rows).open(Cursor(3))
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(OSError, match=r"^disk") as error:
        next(reader)
    assert note(error) == ["at operation=stream(rows), split=train, epoch=3, index=2"]


def test_an_error_of_a_factory_comes_out_as_itself():
    def factory():
        raise LookupError("no shard")

    with pytest.raises(LookupError, match="no shard") as error:
        list(data.stream(factory))
    assert note(error) == ["at operation=stream(factory), split=train, epoch=0, index=0"]


def test_an_error_of_a_sequence_notes_the_index():
    class Broken(Counted):
        def __getitem__(self, index):
            raise KeyError(index)

    with pytest.raises(KeyError) as error:
        list(data.source(Broken(3)).open(Cursor(1, 2)))
    assert note(error) == ["at operation=source(Broken of 3), split=train, epoch=1, index=2"]


def test_rows_work_without_mlx_and_without_numpy():
    code = """
import sys
sys.modules["mlx"] = sys.modules["mlx.core"] = sys.modules["numpy"] = None
from toolz import pipe
import mlx_fp.data as data
dataset = pipe(
    data.source(["a", "b", "c", "d", "e"]), data.map(str.upper), data.filter(lambda s: s != "B"), data.take(3)
)
assert list(dataset) == ["A", "C", "D"] and list(dataset.open(data.Cursor(0, 1))) == ["C", "D"], list(dataset)
assert list(data.batch(2)(dataset)) == [["A", "C"], ["D"]]
assert list(pipe(data.stream(lambda: iter("xyz")), data.take(2))) == ["x", "y"]
try:
    list(pipe(data.source("ab"), data.shuffle(seed=0)))
except ImportError as error:
    assert "pip install" in str(error), error
else:
    raise AssertionError("shuffle needs mlx")
"""
    run_python(code, timeout=60)


def test_importing_imports_no_arrays():
    code = "import sys, mlx_fp.data; assert not {'mlx.core', 'numpy'} & set(sys.modules)"
    run_python(code, timeout=60)


Pair = namedtuple("Pair", "x y")


def test_rows_of_any_kind_pass_through_unchanged():
    rows = [Pair(1, "a"), {"k": None}, object(), b"bytes"]
    assert list(data.source(rows)) == rows
