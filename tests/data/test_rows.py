"""Row operations: lazy to the pull, and bound to the context that they name."""

from __future__ import annotations

import builtins
from collections import namedtuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import File
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
        ([data.flat_map(lambda n: [n] * n), data.take(3)], 3, 3),
        ([data.flat_map(lambda n: [n] * n), data.take(0)], 0, 0),
        ([data.batch(2), data.unbatch(), data.take(3)], 3, 4),
        ([data.tap(str), data.enumerate(), data.take(2)], 2, 2),
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
    assert last(by_rest) == ("b", [("epoch", 3), ("index", 1), ("kind", "train")])
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


EVERY = [data.map, data.filter, data.flat_map, data.tap]


@pytest.mark.parametrize("make", EVERY, ids=lambda f: f.__name__)
def test_a_function_that_requires_more_is_refused_when_built(make):
    message = f"{make.__name__} function '<lambda>' requires 'rate', which is not on offer; it may name: epoch, index"
    with pytest.raises(TypeError, match=message):
        make(lambda row, rate: row)


@pytest.mark.parametrize("make", EVERY, ids=lambda f: f.__name__)
def test_what_is_no_function_is_refused_when_built(make):
    with pytest.raises(TypeError, match=f"a {make.__name__} function is something to call; got 3"):
        make(3)


@pytest.mark.parametrize("make", EVERY, ids=lambda f: f.__name__)
def test_a_function_sees_what_its_row_is_read_for(make):
    seen = []

    def watch(row, kind, epoch, index):
        seen.append((row, kind, epoch, index))
        return [row]

    list(make(watch)(data.source("ab")).open(Cursor(2, 1), kind="test"))
    assert seen[-1] == ("b", "test", 2, 1)


def test_a_first_parameter_of_an_offered_name_takes_the_row_beside_all_of_the_rest():
    assert list(pipe(data.source("a"), data.map(lambda index, **rest: (index, rest["epoch"])))) == [("a", 0)]


@pytest.mark.parametrize("make", EVERY, ids=lambda f: f.__name__)
def test_an_error_keeps_its_class_and_message_and_says_where(make):
    def fragile(row):
        return [1 // (row - 2)]

    reader = pipe(data.source(range(5)), make(fragile), data.map(str), data.batch(2)).open(Cursor(6))
    with pytest.raises(ZeroDivisionError, match=r"^integer") as error:
        list(reader)
    assert error.value.__notes__ == [f"at operation={make.__name__}(fragile), split=train, epoch=6, index=2"]


def test_the_index_of_an_error_is_right_after_a_seek():
    dataset = pipe(data.source(range(5)), data.map(lambda row: 1 // (row - 4)))
    with pytest.raises(ZeroDivisionError) as error:
        list(dataset.open(Cursor(0, 3)))
    assert error.value.__notes__ == ["at operation=map(<lambda>), split=train, epoch=0, index=4"]


def test_a_stop_iteration_out_of_a_function_does_not_end_the_epoch_in_silence():
    with pytest.raises(RuntimeError, match="StopIteration") as error:
        list(pipe(data.source(range(3)), data.map(lambda row: next(iter(())))))
    assert error.value.__cause__.__notes__ == ["at operation=map(<lambda>), split=train, epoch=0, index=0"]


# flat_map and unbatch


def test_flat_map_gives_none_or_many_items_in_order():
    assert list(pipe(data.source([2, 0, 3]), data.flat_map(lambda n: "abc"[:n]))) == ["a", "b", "a", "b", "c"]


def test_flat_map_hands_out_items_as_they_are_made():
    made = []

    def count(n):
        for i in range(n):
            made.append(i)
            yield i

    reader = pipe(data.source([9]), data.flat_map(count)).open()
    assert [next(reader), next(reader), made] == [0, 1, [0, 1]]


def test_what_flat_map_was_given_is_closed_with_its_reader():
    closed = []

    def rows(n):
        try:
            yield from range(n)
        finally:
            closed.append(n)

    reader = pipe(data.source([1, 5]), data.flat_map(rows)).open()
    next(reader), next(reader)
    assert closed == [1]
    reader.close()
    assert closed == [1, 5]


@pytest.mark.parametrize("items", [1, 3])
def test_what_is_no_generator_is_closed_too_when_it_ends_or_its_user_fails(items):
    file = File("abc")
    reader = pipe(data.source([file]), data.flat_map(iter)).open()
    assert "".join(next(reader) for _ in range(items)) == "abc"[:items]
    with pytest.raises(KeyError):
        reader.throw(KeyError("elsewhere"))
    assert file.closed == 1
    file = File("abc")
    assert list(data.flat_map(lambda row: file)(data.source([0]))) == ["a", "b", "c"]
    assert file.closed == 1


def test_an_error_half_way_through_an_item_of_flat_map_names_that_item():
    def rows(n):
        yield n
        yield 1 // (n - 1)

    with pytest.raises(ZeroDivisionError) as error:
        list(pipe(data.source(range(3)), data.flat_map(rows)))
    assert error.value.__notes__ == ["at operation=flat_map(rows), split=train, epoch=0, index=1"]


def test_flat_map_of_what_is_no_iterable_says_where():
    with pytest.raises(TypeError, match="not iterable") as error:
        list(pipe(data.source([1]), data.flat_map(lambda n: n)))
    assert error.value.__notes__ == ["at operation=flat_map(<lambda>), split=train, epoch=0, index=0"]


Pair = namedtuple("Pair", "x y")
BATCHED = {
    "dicts": [{"x": np.full(2, i), "y": i, "name": str(i)} for i in range(7)],
    "nested": [{"in": (mx.full((2,), i), {"id": i}), "name": str(i)} for i in range(7)],
    "tuples": [(np.full(2, i), i) for i in range(7)],
    "named tuples": [Pair(mx.full((2,), i), i) for i in range(7)],
    "arrays": [mx.full((3,), i) for i in range(7)],
    "numbers": list(range(7)),
    "strings": list("abcdefg"),
}


def plain(item):
    """Return a row as nested Python values and the types of what holds them, to be compared."""
    if isinstance(item, dict):
        return {key: plain(value) for key, value in item.items()}
    if isinstance(item, tuple):
        return type(item), [plain(value) for value in item]
    return item.tolist() if hasattr(item, "tolist") else item


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_unbatch_is_the_inverse_of_batch(name, size):
    rows = BATCHED[name]
    apart = list(pipe(data.source(rows), data.batch(size), data.unbatch()))
    assert list(map(plain, apart)) == list(map(plain, rows))


def test_columns_are_taken_apart_into_their_rows():
    x = np.arange(10).reshape(5, 2)
    rows = pipe(data.arrays(x=x, y=mx.arange(5)), data.shuffle(seed=7), data.batch(2), data.unbatch())
    assert sorted((row["x"].tolist(), row["y"].item()) for row in rows) == [([2 * i, 2 * i + 1], i) for i in range(5)]


def test_rows_are_batched_anew_in_another_size():
    batches = pipe(data.arrays(x=np.arange(10)), data.batch(4), data.unbatch(), data.batch(5))
    assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (3, "cannot split int into rows: it has none"),
        ({"x": mx.zeros(2), "y": mx.array(1.0)}, r"cannot split float32 \(\) into rows: it has none"),
        (
            {"x": mx.zeros(2), "y": [1]},
            r"cannot split \{x: float32 \(2,\), y: list of 1\} into rows: its columns have different",
        ),
    ],
    ids=repr,
)
def test_what_is_no_batch_cannot_be_taken_apart(batch, message):
    with pytest.raises(ValueError, match=message) as error:
        list(pipe(data.source([batch]), data.unbatch()))
    assert error.value.__notes__ == ["at operation=unbatch(), split=train, epoch=0, index=0"]


# tap and enumerate


def test_tap_sees_every_item_and_changes_none():
    seen = []
    rows = [{"x": 1}, {"x": 2}]
    passed = list(pipe(data.source(rows), data.tap(seen.append)))
    assert all(a is b for a, b in zip(passed, seen, strict=True))
    assert passed == rows
    assert seen == rows


def test_tap_sees_only_what_is_read():
    seen = []
    dataset = pipe(data.source("abcdef"), data.tap(seen.append))
    assert next(dataset.open(Cursor(0, 3))) == "d"
    assert seen == ["d"]


def test_enumerate_counts_the_items_of_an_epoch_from_where_it_is_told():
    odd_ones = pipe(data.source(range(6)), data.filter(odd))
    assert list(data.enumerate()(odd_ones)) == [(0, 1), (1, 3), (2, 5)]
    assert list(data.enumerate(10)(odd_ones).open(Cursor(3, 1))) == [(11, 3), (12, 5)]
    assert len(pipe(data.source("ab"), data.enumerate())) == 2


# random keys of rows


def keys(dataset, epoch=0, index=0):
    return [key.tolist() for key in dataset.open(Cursor(epoch, index))]


KEYED = pipe(data.source(range(6)), data.map(lambda row, key: key, key=7))


def test_every_row_has_a_key_of_its_own_that_repeats_by_run():
    assert len(set(map(tuple, keys(KEYED)))) == 6
    assert keys(KEYED) == keys(KEYED)
    assert all(key.dtype == mx.uint32 and key.shape == (2,) for key in KEYED)


def test_the_key_of_a_row_differs_by_epoch_and_by_seed():
    other = pipe(data.source(range(6)), data.map(lambda row, key: key, key=8))
    found = keys(KEYED) + keys(KEYED, 1) + keys(other)
    assert len(set(map(tuple, found))) == 18


def test_the_key_of_a_row_is_the_same_after_resuming():
    for index in range(7):
        assert keys(KEYED, 2, index) == keys(KEYED, 2)[index:]


def test_the_key_depends_on_the_place_and_not_on_the_row():
    shuffled = pipe(data.source(range(6)), data.shuffle(seed=1), data.map(lambda row, key: key, key=7))
    assert keys(shuffled, 3) == keys(KEYED, 3)


def test_keys_are_pinned():
    """Another hash would resume old runs wrongly: it must be noticed."""
    assert keys(KEYED)[1] == [2118706960, 3066980643]


def test_a_key_may_come_with_context_and_with_all_of_the_rest():
    both = data.map(lambda row, index, key: (row, index, key.tolist()), key=7)
    assert list(both(data.source("ab")))[1] == ("b", 1, keys(KEYED)[1])
    rest = data.map(lambda row, **rest: sorted(rest), key=7)
    assert list(rest(data.source("a"))) == [["epoch", "index", "key", "kind"]]


def test_a_key_draws_the_same_numbers_every_time_and_leaves_the_random_stream_alone():
    noise = data.map(lambda row, key: row + mx.random.normal((3,), key=key), key=1)
    dataset = noise(data.source([mx.zeros(3)] * 4))
    mx.random.seed(5)
    before = mx.random.state[0].tolist()
    first = [row.tolist() for row in dataset]
    assert [row.tolist() for row in dataset] == first
    assert mx.random.state[0].tolist() == before
    assert len(set(map(tuple, first))) == 4


def test_a_seed_for_keys_that_are_not_named_is_refused_when_built_and_so_is_a_key_without_a_seed():
    with pytest.raises(
        TypeError, match=r"map\(<lambda>, key=7\) makes random keys, but '<lambda>' does not name 'key'"
    ):
        data.map(lambda row: row, key=7)
    with pytest.raises(TypeError, match="map function '<lambda>' requires 'key', which is not on offer"):
        data.map(lambda row, key: row)
    with pytest.raises(ValueError, match="the seed of map must be"):
        data.map(lambda row, key: row, key=-1)


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
    assert error.value.__notes__ == ["at operation=batch(2), split=train, epoch=0, index=1"]


@pytest.mark.parametrize("start", ["a", 1.5, None])
def test_a_start_of_enumerate_that_is_no_integer_is_refused_when_built(start):
    with pytest.raises(TypeError, match="the start of enumerate is an integer; got"):
        data.enumerate(start)
