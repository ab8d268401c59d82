"""Row operations: lazy to the pull, and bound to the context that they name."""

from __future__ import annotations

import builtins

import mlx.core as mx
import numpy as np
import pytest
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import Cursor


class Pulls:
    """A stream that counts what was pulled from it; it ends after `size` items."""

    def __init__(self, size=100):
        self.size, self.pulled = size, 0

    def dataset(self):
        def rows():
            for row in range(self.size):
                self.pulled += 1
                yield row

        return data.stream(rows)


def odd(n):
    return n % 2 == 1


# laziness, counted


@pytest.mark.parametrize(
    ("operations", "items", "pulled"),
    [
        ([data.take(0)], 0, 0),
        ([data.take(3)], 3, 3),
        ([data.map(str), data.take(3)], 3, 3),
        ([data.take(3), data.map(str)], 3, 3),
        ([data.filter(odd), data.take(3)], 3, 6),
        ([data.batch(4), data.take(2)], 2, 8),
        ([data.take(7), data.batch(4)], 2, 7),
        ([data.take(7), data.batch(4, drop_last=True)], 1, 7),
        ([data.take(lambda: 5), data.filter(odd), data.batch(2)], 1, 5),
        ([data.batch(3), data.map(len), data.take(1), data.take(9)], 1, 3),
    ],
    ids=repr,
)
def test_exactly_what_is_needed_is_pulled(operations, items, pulled):
    source = Pulls()
    assert len(list(pipe(source.dataset(), *operations))) == items
    assert source.pulled == pulled


@pytest.mark.parametrize("drop_last", [False, True])
def test_each_batch_pulls_only_its_own_rows(drop_last):
    source = Pulls()
    reader = pipe(source.dataset(), data.batch(4, drop_last=drop_last)).open()
    pulls = []
    for _ in range(3):
        next(reader)
        pulls.append(source.pulled)
    assert pulls == [4, 8, 12]


def test_a_replay_pulls_what_it_skips_and_no_more():
    source = Pulls()
    assert next(pipe(source.dataset(), data.filter(odd)).open(Cursor(0, 5))) == 11
    assert source.pulled == 12


# map and filter


def test_map_and_filter_are_the_builtin_ones():
    dataset = pipe(data.source(range(9)), data.map(lambda n: n * n), data.filter(odd))
    assert list(dataset) == list(builtins.filter(odd, (n * n for n in range(9))))


def test_context_by_position_keyword_and_rest():
    def by_keyword(row, *, epoch):
        return row, epoch

    def by_rest(row, **context):
        return row, sorted(context.items())

    def last(f):
        return list(pipe(data.source("ab"), data.map(f)).open(Cursor(3)))[-1]

    assert last(lambda row, index, epoch: (row, index, epoch)) == ("b", 1, 3)
    assert last(by_keyword) == ("b", 3)
    assert last(by_rest) == ("b", [("epoch", 3), ("index", 1)])
    assert last(lambda row, scale=2: row * scale) == "bb"
    assert last(lambda index: index) == "b"  # the first positional parameter takes the row, whatever its name


def test_index_counts_what_comes_in_at_each_operation():
    numbered = data.map(lambda row, index: (row, index))
    dataset = pipe(data.source(range(6)), data.filter(lambda row, index: index % 2), numbered)
    assert list(dataset) == [(1, 0), (3, 1), (5, 2)]
    assert list(dataset.open(Cursor(0, 1))) == [(3, 1), (5, 2)]
    batches = pipe(data.arrays(np.arange(6)), data.batch(2), data.map(lambda batch, index: index))
    assert list(batches) == [0, 1, 2]
    assert list(batches.open(Cursor(0, 2))) == [2]


@pytest.mark.parametrize("make", [data.map, data.filter], ids=lambda f: f.__name__)
def test_a_function_that_requires_more_is_refused_when_built(make):
    message = f"{make.__name__} function '<lambda>' requires 'rate', which is not on offer; it may name: epoch, index"
    with pytest.raises(TypeError, match=message):
        make(lambda row, rate: row)


@pytest.mark.parametrize("make", [data.map, data.filter], ids=lambda f: f.__name__)
def test_an_error_keeps_its_class_and_message_and_says_where(make):
    def fragile(row):
        return 1 // (row - 2)

    reader = pipe(data.source(range(5)), make(fragile), data.map(str), data.batch(2)).open(Cursor(6))
    with pytest.raises(ZeroDivisionError, match=r"^integer") as error:
        list(reader)
    assert error.value.__notes__ == [f"at operation={make.__name__}(fragile), epoch=6, index=2"]


def test_the_index_of_an_error_is_right_after_a_seek():
    dataset = pipe(data.source(range(5)), data.map(lambda row: 1 // (row - 4)))
    with pytest.raises(ZeroDivisionError) as error:
        list(dataset.open(Cursor(0, 3)))
    assert error.value.__notes__ == ["at operation=map(<lambda>), epoch=0, index=4"]


def test_a_stop_iteration_out_of_a_function_does_not_end_the_epoch_in_silence():
    with pytest.raises(RuntimeError, match="StopIteration") as error:
        list(pipe(data.source(range(3)), data.map(lambda row: next(iter(())))))
    assert error.value.__cause__.__notes__ == ["at operation=map(<lambda>), epoch=0, index=0"]


# batch on rows


def test_rows_are_collated():
    rows = data.source([{"x": np.full(2, i), "y": i, "name": str(i)} for i in range(5)])
    *_, last = pipe(rows, data.filter(lambda row: row["y"] != 1), data.batch(2))
    assert last["x"].tolist() == [[3, 3], [4, 4]]
    assert (last["y"].tolist(), last["y"].dtype, last["name"]) == ([3, 4], mx.int32, ["3", "4"])


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [3, 3, 1]), (True, [3, 3])])
def test_the_last_batch(drop_last, sizes):
    for source in (data.source(range(7)), data.stream(lambda: range(7))):
        dataset = pipe(source, data.batch(3, drop_last=drop_last))
        assert [len(batch) for batch in dataset] == sizes


def test_an_error_of_a_batch_of_rows_notes_it():
    ragged = data.stream(lambda: [mx.zeros(2), mx.zeros(2), mx.zeros(2), mx.zeros(3)])
    with pytest.raises(ValueError, match="cannot stack row: row 0 has shape") as error:
        list(data.batch(2)(ragged))
    assert error.value.__notes__ == ["at operation=batch(2), epoch=0, index=1"]
