"""Parts of a dataset that never share a row, and the plan of a run's data."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from itertools import combinations

import mlx.core as mx
import numpy as np
import pytest
from helpers import read
from hypothesis import given
from hypothesis import strategies as st
from toolz import compose_left, pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor, Splits

THIRDS = (0.5, 0.3, 0.2)


def stream(n=200):
    return data.stream(lambda: iter(range(n)))


SOURCES = {
    "indices": data.source(range(40)),
    "shuffled": pipe(data.source(range(40)), data.shuffle(seed=5)),
    "rows": pipe(data.source(range(40)), data.map(int)),
    "stream": stream(),
    "shuffled rows": pipe(data.source(range(40)), data.shuffle(seed=5), data.map(int)),
}

# split


@pytest.mark.parametrize("name", SOURCES)
def test_no_row_is_in_two_parts_whatever_the_epochs(name):
    parts = data.split(THIRDS, seed=1)(SOURCES[name])
    seen = [set().union(*(read(part, epoch) for epoch in range(4))) for part in parts]
    assert all(seen)
    assert all(a.isdisjoint(b) for a, b in combinations(seen, 2))


@pytest.mark.parametrize("name", SOURCES)
def test_parts_that_add_up_to_1_hold_every_row_at_every_epoch(name):
    parts = data.split(THIRDS, seed=1)(SOURCES[name])
    for epoch in (0, 3):
        assert sorted(row for part in parts for row in read(part, epoch)) == sorted(read(SOURCES[name], epoch))


@given(st.integers(40, 90), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 9))
def test_parts_of_indices_have_their_sizes_to_the_row(n, shares, seed):
    fractions = [share / sum(shares) for share in shares]
    parts = data.split(fractions, seed=seed)(data.source(range(n)))
    assert sum(map(len, parts)) == n
    for part, fraction in zip(parts, fractions, strict=True):
        assert len(part) == len(list(part))
        assert abs(len(part) - fraction * n) <= 1


def test_parts_of_a_stream_come_near_their_fractions():
    for part, fraction in zip(data.split((0.7, 0.2), seed=3)(stream(4000)), (0.7, 0.2), strict=True):
        assert abs(len(list(part)) - fraction * 4000) < 5 * (4000 * fraction * (1 - fraction)) ** 0.5


def test_what_is_left_of_1_is_in_no_part():
    one, other = data.split((0.25, 0.5), seed=0)(data.source(range(40)))
    assert (len(one), len(other), len({*one, *other})) == (10, 20, 30)


@pytest.mark.parametrize("name", ["indices", "stream"])
def test_a_split_repeats_by_seed_and_differs_by_seed(name):
    def first(seed):
        return list(data.split((0.5, 0.5), seed=seed)(SOURCES[name])[0])

    assert first(1) == first(1)
    assert sorted(first(1)) != sorted(first(2))


def test_parts_of_indices_are_drawn_at_random_and_not_cut():
    first, _ = data.split((0.5, 0.5), seed=0)(data.source(range(40)))
    assert set(first) not in ({*range(20)}, {*range(20, 40)})


def test_a_shuffle_after_a_split_differs_by_epoch_within_its_part():
    train, _ = data.split((0.8, 0.2), seed=7)(data.source(range(40)))
    shuffled = data.shuffle(seed=1)(train)
    assert read(shuffled, 0) != read(shuffled, 1)
    assert sorted(read(shuffled, 0)) == sorted(read(shuffled, 1)) == sorted(train)


def test_batches_of_a_part_are_gathers():
    class Column(np.ndarray):
        takes = 0

        def take(self, *args, **kwargs):
            Column.takes += 1
            return super().take(*args, **kwargs)

    x = np.arange(40).view(Column)
    train, held_out = data.split((0.8, 0.2), seed=7)(data.arrays(x=x))
    batches = read(pipe(train, data.shuffle(seed=0), data.batch(8)))
    assert Column.takes == len(batches) == 4
    assert set(np.concatenate([batch["x"] for batch in batches]).tolist()).isdisjoint(row["x"] for row in held_out)


def test_a_split_of_batches_deals_whole_batches():
    one, other = data.split((0.5, 0.5), seed=0)(pipe(data.arrays(np.arange(16)), data.batch(4)))
    groups = [batch[0].tolist() for part in (one, other) for batch in part]
    assert sorted(groups) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("name", SOURCES)
def test_a_part_goes_on_from_every_cursor(name):
    _, part, _ = data.split(THIRDS, seed=1)(SOURCES[name])
    whole = read(part, 1)
    for index in range(len(whole) + 2):
        assert list(part.open(Cursor(1, index))) == whole[index:]


@pytest.mark.parametrize("fractions", [(), (0.5, 0), (1.5,), (0.6, 0.6), (-0.5, 0.5)], ids=repr)
def test_fractions_that_make_no_split_are_refused_at_once(fractions):
    with pytest.raises(ValueError, match="the fractions of split must be positive and add up to 1 at most; got"):
        data.split(fractions, seed=0)


@pytest.mark.parametrize("fractions", [0.8, None, "ab", (0.8, "rest")], ids=repr)
def test_what_holds_no_fractions_is_refused_at_once_with_an_example(fractions):
    with pytest.raises(TypeError) as error:
        data.split(fractions, seed=1)
    told = f"split takes a fraction for each part, as in split((0.8, 0.2), seed=7); got {fractions!r}"
    assert str(error.value) == told


def test_a_fraction_that_is_no_number_is_refused_at_once():
    with pytest.raises(ValueError, match=r"must be positive and add up to 1 at most; got \(nan, 0.2\)"):
        data.split((math.nan, 0.2), seed=0)


def test_fractions_that_add_up_to_1_but_for_rounding_are_taken():
    assert sum(map(len, data.split([0.1] * 10, seed=0)(data.source(range(30))))) == 30


def test_a_bad_seed_is_refused_at_once():
    with pytest.raises(ValueError, match="the seed of split must be"):
        data.split((0.5, 0.5), seed=2.0)


def test_a_part_without_rows_is_refused_when_built():
    with pytest.raises(ValueError, match=r"split\(0.9 to 1, seed=0\) of 3 items is empty"):
        data.split((0.9, 0.1), seed=0)(data.source(range(3)))


def test_a_part_without_rows_is_an_error_when_read_where_only_reading_can_tell():
    short = pipe(data.source(range(9)), data.take(lambda: 2))
    _, part = data.split((0.9, 0.1), seed=0)(short)
    with pytest.raises(ValueError, match=r"split\(0.9 to 1, seed=0\) of 2 items is empty"):
        list(part)


def test_a_part_reads_like_its_pipe():
    train, _ = data.split((0.75, 0.25), seed=7)(pipe(data.source("abcd"), data.take(4)))
    assert repr(data.batch(2)(train)) == "pipe(source(str of 4), take(4), split(0 to 0.75, seed=7), batch(2))"


# splits


def test_shared_operations_come_first_and_own_ones_after():
    plan = data.splits(
        train=(data.source(range(6)), data.map(lambda n: n + 1), data.take(2)),
        validation=range(3),
        test=[5],
        shared=(data.map(lambda n: n * 10), data.map(lambda n: -n)),
    )
    assert [list(part) for part in (plan.train, plan.validation, plan.test)] == [[1, -9], [0, -10, -20], [-50]]


@pytest.mark.parametrize(
    "shared",
    [
        data.map(lambda n: n * n),
        [data.map(lambda n: n * n)],
        compose_left(data.map(lambda n: n), data.map(lambda n: n * n)),
        lambda dataset: data.map(lambda n: n * n)(dataset),
    ],
    ids=["operation", "list", "composed", "function"],
)
def test_what_is_shared_is_an_operation_or_several(shared):
    assert list(data.splits(train=[1, 2, 3], shared=shared).train) == [1, 4, 9]


def test_a_part_that_is_not_given_is_none():
    plan = data.splits(train=[1])
    assert (plan.validation, plan.test) == (None, None)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 2), (3, 4)], [(1, 2), (3, 4)]),
        (((1, 2), (3, 4)), [(1, 2), (3, 4)]),
        ((data.source([1, 2]), data.take(1)), [1]),
        (([(1, 2), (3, 4)], data.take(1)), [(1, 2)]),
        (range(2), [0, 1]),
        ("ab", ["a", "b"]),
    ],
    ids=repr,
)
def test_a_part_is_a_dataset_or_a_sequence_or_a_tuple_of_it_and_operations(rows, expected):
    assert list(data.splits(train=rows).train) == expected


def test_an_iterator_as_a_part_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"which can be read only once: write stream\(lambda: a new one\)"):
        data.splits(train=[1], validation=iter([1]))


def test_a_plan_is_frozen():
    plan = data.splits(train=[1])
    with pytest.raises(FrozenInstanceError):
        plan.train = None
    assert isinstance(plan, Splits)


def test_parts_are_read_for_what_they_are_opened_for():
    plan = data.splits(train=[1], test=[1], shared=data.map(lambda row, kind: kind))
    assert list(plan.test.open(kind="test")) == ["test"]


def test_a_plan_is_trained_validated_and_tested():
    x = mx.random.normal((200, 4), key=mx.random.key(0))
    rows = data.arrays(x=x, y=(x[:, 0] + x[:, 1] > 0).astype(mx.int32))
    train, validation, test = data.split((0.6, 0.2, 0.2), seed=1)(rows)
    plan = data.splits(
        train=(train, data.shuffle(seed=2), data.batch(20)),
        validation=(validation, data.batch(40)),
        test=(test, data.batch(40)),
    )
    trainer = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), fp.with_optimizer(optim.adam(0.1)))
    report = pipe(trainer, fp.fit(plan.train, validation=plan.validation, epochs=6, quiet=True))
    figures = pipe(trainer, fp.evaluate(plan.test, params=report.params))
    assert [row.examples for row in report.rows] == [120] * 6
    assert figures["accuracy"] > 0.9
