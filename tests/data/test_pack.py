"""Packed rows: every sequence once, as it was, in rows of one length; the same rows from any cursor on."""

from __future__ import annotations

import logging
from itertools import chain

import mlx.core as mx
import numpy as np
import pytest
from helpers import Counted, plain, read
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import Cursor

LENGTH = 8
WAYS = pytest.mark.parametrize("how", ["best_fit", "first_fit", "concat"])
SIZES = st.lists(st.integers(0, LENGTH), min_size=1, max_size=40)


def sequences_of(sizes):
    """Sequences of tokens that differ, so that each token tells its place."""
    return [[100 * number + at + 1 for at in range(size)] for number, size in enumerate(sizes)]


def unpacked(rows):
    """The segments of packed rows, as lists of tokens; the columns are right for them."""
    found = []
    for row in map(plain, rows):
        used = sum(number > 0 for number in row["segments"])
        assert row["segments"][used:] == row["tokens"][used:] == row["mask"][used:] == [0] * (LENGTH - used)
        for number in range(1, max(row["segments"], default=0) + 1):
            places = [at for at, segment in enumerate(row["segments"]) if segment == number]
            assert places == list(range(places[0], places[-1] + 1))
            assert [row["positions"][at] for at in places] == list(range(len(places)))
            found.append([row["tokens"][at] for at in places])
    return found


@WAYS
@given(sizes=SIZES, epoch=st.integers(0, 3))
def test_every_sequence_comes_once_as_it_was(how, sizes, epoch):
    sequences = sequences_of(sizes)
    rows = read(pipe(data.source(sequences), data.shuffle(seed=5), data.pack(LENGTH, how=how)), epoch)
    found = unpacked(rows)
    if how == "concat":
        assert sorted(chain.from_iterable(found)) == sorted(chain.from_iterable(sequences))
    else:
        assert sorted(found) == sorted(tokens for tokens in sequences if tokens)
    assert all(column.shape == (LENGTH,) and column.dtype == mx.int32 for row in rows for column in row.values())


@WAYS
@given(sizes=SIZES, epoch=st.integers(0, 2), index=st.integers(0, 20))
def test_rows_are_the_same_from_any_cursor_on(how, sizes, epoch, index):
    dataset = pipe(data.source(sequences_of(sizes)), data.shuffle(seed=5), data.pack(LENGTH, how=how), data.batch(2))
    whole = plain(read(dataset, epoch))
    assert plain(read(dataset, epoch, index)) == whole[index:] == plain(read(dataset, epoch))[index:]


@WAYS
@given(sizes=SIZES, index=st.integers(0, 20))
def test_a_stream_gives_the_rows_of_the_indices(how, sizes, index):
    sequences = sequences_of(sizes)
    stream = pipe(data.stream(lambda: sequences), data.pack(LENGTH, how=how))
    assert plain(read(stream, 0, index)) == plain(read(data.pack(LENGTH, how=how)(data.source(sequences))))[index:]


@WAYS
@given(sizes=SIZES)
def test_the_number_of_rows_is_known_where_lengths_are_and_the_order_is_fixed(how, sizes):
    pack = data.pack(LENGTH, how=how, lengths=sizes)
    dataset = pipe(data.source(sequences_of(sizes)), data.take(30), pack, data.shuffle(seed=1))
    assert len(dataset) == len(read(dataset, 3))
    shuffled = pipe(data.source(sequences_of(sizes)), data.shuffle(seed=1), pack)
    with pytest.raises(TypeError, match=r"pack\(8.* does not say how many items it gives"):
        len(shuffled)


def test_a_shuffle_before_gives_other_rows_in_each_epoch_and_one_after_gives_the_same_rows():
    source = data.source(sequences_of([1, 2, 3, 4, 5, 6, 7] * 5))
    before, after = pipe(source, data.shuffle(seed=1), data.pack(8)), pipe(source, data.pack(8), data.shuffle(seed=1))
    first, second = (sorted(map(str, plain(read(before, epoch)))) for epoch in (0, 1))
    assert first != second
    first, second = (plain(read(after, epoch)) for epoch in (0, 1))
    assert first != second
    assert sorted(map(str, first)) == sorted(map(str, second))


def test_the_mask_of_a_sequence_is_kept_and_other_columns_are_left_out():
    rows = [{"tokens": np.array([5, 6, 7]), "mask": [0, 1, 1], "name": "a"}, {"tokens": mx.array([8, 9])}]
    (row,) = read(data.pack(6)(data.source(rows)))
    assert plain(row) == {
        "tokens": [5, 6, 7, 8, 9, 0],
        "segments": [1, 1, 1, 2, 2, 0],
        "positions": [0, 1, 2, 0, 1, 0],
        "mask": [0, 1, 1, 1, 1, 0],
    }


def test_joined_sequences_go_on_in_the_next_row_as_a_segment_of_its_own():
    rows = plain(read(data.pack(4, how="concat")(data.source([[1, 2, 3], [4, 5, 6]]))))
    assert [row["tokens"] for row in rows] == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert [row["segments"] for row in rows] == [[1, 1, 1, 2], [1, 1, 0, 0]]
    assert [row["positions"] for row in rows] == [[0, 1, 2, 0], [0, 1, 0, 0]]


class Sequences(Counted):
    """Sequences of 3 tokens."""

    def __getitem__(self, index):
        return [super().__getitem__(index)] * 3


def test_lengths_are_read_once_and_then_only_the_rows_that_are_asked_for():
    source = Sequences(20)
    dataset = pipe(data.source(source), data.shuffle(seed=3), data.pack(6), data.batch(2))
    next(dataset.open(Cursor(0)))
    assert len(source.read) == 20 + 4
    next(dataset.open(Cursor(1, 3)))
    assert len(source.read) == 20 + 4 + 4


def test_with_known_lengths_no_row_is_read_before_it_is_needed():
    source = Sequences(20)
    dataset = pipe(data.source(source), data.pack(6, lengths=np.full(20, 3)), data.batch(2))
    assert len(dataset) == 5
    assert source.read == []
    next(dataset.open(Cursor(0, 4)))
    assert source.read == [16, 17, 18, 19]


def test_lengths_are_read_again_where_an_index_is_another_item_in_each_epoch():
    parts = [pipe(data.source(sequences_of(sizes)), data.shuffle(seed=2)) for sizes in ([1, 5, 3, 2], [7, 1, 4])]
    dataset = data.pack(LENGTH)(data.concat(*parts))
    for epoch in (0, 1, 2):
        assert sorted(map(len, unpacked(read(dataset, epoch)))) == [1, 1, 2, 3, 4, 5, 7]


def test_a_sequence_that_is_too_long_is_an_error_or_is_cut_and_counted(caplog):
    source = data.source([[1, 2, 3], [1, 2, 3, 4, 5, 6], [1]])
    with pytest.raises(ValueError, match="sequence 1 has 6 tokens, and a row of pack\\(4\\) has 4: cut=True") as error:
        read(data.pack(4)(source), 2)
    assert error.value.__notes__ == ["at operation=pack(4), split=train, epoch=2"]
    with caplog.at_level(logging.WARNING, "mlx_fp.data"):
        rows = read(data.pack(4, cut=True)(source), 2)
    assert caplog.messages == ["pack(4, cut=True) cut 1 sequences and left out 2 tokens in epoch 2"]
    assert sum(row["mask"].sum().item() for row in rows) == 3 + 4 + 1


@pytest.mark.parametrize("rows", [["a b"], [{"ids": [1]}], [[1.5]], [np.ones((2, 2), np.int32)], [[2**40]], [3]])
def test_rows_without_token_ids_are_refused(rows):
    for dataset in (data.source(rows), data.stream(lambda: rows)):
        with pytest.raises((TypeError, ValueError), match="pack"):
            read(data.pack(4)(dataset))


@pytest.mark.parametrize(("mask", "message"), [([1], "one number a token; got 1 for 2"), ([1, 2], r"it has \{2\}")])
def test_a_mask_has_a_0_or_a_1_for_each_token(mask, message):
    with pytest.raises(ValueError, match=message):
        read(data.pack(4)(data.source([{"tokens": [1, 2], "mask": mask}])))


@pytest.mark.parametrize("lengths", [[2, 1], lambda row: 1])
def test_wrong_lengths_are_an_error(lengths):
    with pytest.raises(ValueError, match=r"has [12] tokens, and pack\(4, lengths=.* takes it for [12]"):
        read(data.pack(4, lengths=lengths)(data.source([[1], [2, 3]])))


def test_lengths_that_end_too_early_are_an_error():
    with pytest.raises(ValueError, match="the source has an item 2, and lengths end before it"):
        read(pipe(data.source([[1], [2], [3]]), data.shuffle(seed=1), data.pack(4, lengths=[1, 1])))


def test_options_are_checked_when_the_pipe_is_built():
    with pytest.raises(ValueError, match="the length of pack must be an integer of at least 1; got 0"):
        data.pack(0)
    with pytest.raises(ValueError, match="unknown how of pack, 'bestfit': did you mean 'best_fit'"):
        data.pack(4, how="bestfit")
    with pytest.raises(ValueError, match="concat.* cuts at the end of each row"):
        data.pack(4, how="concat", cut=True)
    with pytest.raises(TypeError, match="lengths of pack is a number for each index"):
        data.pack(4, lengths=3)
    with pytest.raises(ValueError, match="gives rows, not indices"):
        data.pack(4, lengths=[1])(data.stream(lambda: [[1]]))
    assert repr(data.pack(4, how="first_fit", lengths=[1, 2])) == "pack(4, how='first_fit', lengths=2 numbers)"


def test_batches_are_no_sequences():
    with pytest.raises(ValueError, match="pack before batch"):
        read(pipe(data.source([[1], [2]]), data.batch(2), data.pack(4)))
