"""Index operations: orders are pure functions, and batches of columns are gathers."""

from __future__ import annotations

import itertools
from array import array
from threading import Thread

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import read, run_python
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import Cursor
from mlx_fp.data._random import permutation

PINNED = [3, 8, 0, 7, 1, 5, 2, 6, 4, 9]
"""`permutation(7, 0, 10)`."""
WINDOWED = [0, 4, 5, 3, 6, 1, 7, 2, 8, 9]
"""What a shuffle by 7 in a window of 4 makes of `range(10)`."""


def is_mlx(value):
    return isinstance(value, mx.array)


# shuffle


@examples(50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 300))
def test_a_shuffle_is_a_permutation(seed, epoch, n):
    order = read(pipe(data.source(range(n)), data.shuffle(seed=seed)), epoch)
    assert sorted(order) == list(range(n))


def test_a_shuffle_differs_by_epoch_and_seed_and_repeats_by_run():
    dataset = pipe(data.source(range(100)), data.shuffle(seed=7))
    orders = [read(dataset, epoch) for epoch in range(3)]
    orders.append(read(pipe(data.source(range(100)), data.shuffle(seed=8))))
    assert all(a != b for a, b in itertools.combinations([*orders, list(range(100))], 2))
    assert [read(dataset, epoch) for epoch in range(3)] == orders[:3]


def test_the_order_is_pinned():
    """An MLX that drew other bits would resume old runs wrongly: it must be noticed."""
    assert permutation(7, 0, 10).tolist() == PINNED
    assert permutation(2**32 - 1, 5, 7).tolist() == [5, 0, 4, 3, 2, 6, 1]


def test_the_order_does_not_depend_on_numpy():
    code = f"""
import sys
sys.modules["numpy"] = None
from mlx_fp.data._random import permutation
assert permutation(7, 0, 10).tolist() == {PINNED}
assert hash(tuple(permutation(3, 1, 70_000).tolist())) == {hash(tuple(permutation(3, 1, 70_000).tolist()))}
from mlx_fp import data
import mlx.core as mx
columns = data.arrays(x=mx.arange(10), y=mx.arange(10))
batches = list(data.batch(4)(data.shuffle(seed=7)(columns)))
assert sum((batch["x"].tolist() for batch in batches), []) == {PINNED}
"""
    run_python(code, timeout=60)


def test_the_order_depends_neither_on_the_global_stream_nor_on_the_thread_nor_on_the_device():
    mx.random.seed(1)
    before = mx.random.state[0].tolist()
    orders = []
    thread = Thread(target=lambda: orders.append(permutation(7, 0, 10).tolist()))
    thread.start()
    thread.join()
    with mx.stream(mx.new_stream(mx.cpu)):
        orders.append(permutation(7, 0, 10).tolist())
    assert orders == [PINNED, PINNED]
    assert mx.random.state[0].tolist() == before


def test_equal_bits_stay_in_order():
    from mlx_fp.data._random import _sort_with_mlx, _sort_with_numpy

    bits = mx.array([5, 2**32 - 1, 5, 65536, 1, 2**32 - 1, 65537, 5, 1], dtype=mx.uint32)
    assert _sort_with_numpy(bits).tolist() == _sort_with_mlx(bits).tolist() == [4, 8, 0, 2, 7, 3, 6, 1, 5]


def test_shuffles_compose():
    dataset = pipe(data.source(range(50)), data.shuffle(seed=1), data.take(20), data.shuffle(seed=2))
    first = read(pipe(data.source(range(50)), data.shuffle(seed=1)))[:20]
    assert read(dataset) == [first[i] for i in permutation(2, 0, 20)]


def test_a_shuffle_after_batch_moves_whole_batches():
    dataset = pipe(data.arrays(np.arange(10)), data.batch(2), data.shuffle(seed=7))
    firsts = [batch[0].tolist() for batch in dataset]
    assert firsts == [[2 * i, 2 * i + 1] for i in permutation(7, 0, 5)]


def test_every_place_is_as_likely():
    places = np.zeros((6, 6))
    for epoch in range(1200):
        places[np.arange(6), permutation(11, epoch, 6)] += 1
    assert np.abs(places - 200).max() < 5 * np.sqrt(200)


@pytest.mark.parametrize("seed", [-1, 2.0, "7", None, True, 2**32])
def test_a_bad_seed_is_refused_at_once(seed):
    with pytest.raises(ValueError, match="the seed of shuffle must be"):
        data.shuffle(seed=seed)


def test_a_seed_is_required_by_name():
    with pytest.raises(TypeError):
        data.shuffle()
    with pytest.raises(TypeError):
        data.shuffle(7)


def test_a_shuffle_after_rows_or_on_a_stream_is_refused_when_built():
    with pytest.raises(ValueError, match=r"shuffle\(seed=7\) needs indices, but map\(str\) before it gives rows"):
        pipe(data.source("ab"), data.take(1), data.map(str), data.take(1), data.shuffle(seed=7))
    with pytest.raises(ValueError, match=r"needs indices, but stream\(dict\) before it gives rows"):
        pipe(data.stream(dict), data.shuffle(seed=7))


def stream(items):
    return data.stream(lambda: iter(items))


def mixed_up(items, n, epoch=0, seed=7):
    return read(pipe(stream(items), data.shuffle(seed=seed, window=n)), epoch)


@given(st.lists(st.integers(), max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_a_shuffle_in_a_window_keeps_every_row(rows, n, epoch):
    assert sorted(mixed_up(rows, n, epoch)) == sorted(rows)


@pytest.mark.parametrize("n", [1, 4, 20])
def test_no_row_comes_earlier_than_its_window_lets_it(n):
    rows = mixed_up(range(60), n)
    assert all(row < place + n for place, row in enumerate(rows))
    assert (rows == list(range(60))) == (n == 1)


def test_a_shuffle_in_a_window_differs_by_epoch_and_seed_and_repeats_by_run():
    orders = [mixed_up(range(40), 9), mixed_up(range(40), 9, epoch=1), mixed_up(range(40), 9, seed=8)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    assert mixed_up(range(40), 9) == orders[0]


def test_a_shuffle_in_a_window_is_pinned():
    assert mixed_up(range(10), 4) == WINDOWED


def test_a_shuffle_in_a_window_goes_on_from_every_cursor():
    dataset = pipe(stream(range(12)), data.shuffle(seed=7, window=5))
    for index in range(13):
        assert list(dataset.open(Cursor(2, index))) == read(dataset, 2)[index:]


@pytest.mark.parametrize("window", [0, -1, 2.5, True])
def test_a_bad_window_of_shuffle_is_refused_at_once(window):
    with pytest.raises(ValueError, match="the window of shuffle must be an integer of at least 1; got"):
        data.shuffle(seed=0, window=window)


# what is pulled


@pytest.mark.parametrize(
    ("operation", "pulls"),
    [
        (data.take(2), [1, 2, 2]),
        (data.skip(3), [4, 5, 6]),
        (data.skip(lambda: 0), [1, 2, 3]),
        (data.shard(0, 3), [1, 4, 7]),
        (data.shard(2, 3), [3, 6, 9]),
        (data.shard(0, 3, drop_last=True), [3, 6, 9]),
        (data.shard(1, 3, drop_last=True), [3, 6, 9]),
        (data.shard(2, 3, drop_last=True), [3, 6, 9]),
        (data.window(3), [3, 4, 5]),
        (data.window(3, step=2), [3, 5, 7]),
        (data.window(2, step=4), [2, 6, 10]),
        (data.shuffle(seed=0, window=4), [4, 5, 6]),
        (data.batch(4, stack=list), [4, 8, 12]),
    ],
    ids=repr,
)
def test_each_item_pulls_what_it_is_made_of_and_no_more(operation, pulls):
    pulled = []

    def rows():
        for row in range(100):
            pulled.append(row)
            yield row

    reader = operation(data.stream(rows)).open()
    counts = []
    for _ in pulls:
        next(reader, None)
        counts.append(len(pulled))
    assert counts == pulls


# skip


def test_skip_leaves_out_the_first_items_of_indices_and_of_rows():
    for source in (data.source(range(6)), stream(range(6)), pipe(data.source(range(6)), data.map(int))):
        assert read(data.skip(4)(source)) == [4, 5]
        assert read(data.skip(9)(source)) == []
        assert read(data.skip(0)(source)) == list(range(6))


def test_take_and_skip_are_the_two_halves():
    shuffled = pipe(data.source(range(20)), data.shuffle(seed=1))
    assert read(data.take(7)(shuffled), 3) + read(data.skip(7)(shuffled), 3) == read(shuffled, 3)


def test_skip_of_a_function_of_the_epoch():
    dataset = pipe(data.source(range(5)), data.skip(lambda epoch, kind: epoch if kind == "train" else 4))
    assert [read(dataset, epoch) for epoch in (0, 3)] == [[0, 1, 2, 3, 4], [3, 4]]
    assert list(dataset.open(Cursor(0), kind="test")) == [4]
    with pytest.raises(TypeError, match=r"has no len\(\): skip\(<lambda>\) does not say"):
        len(dataset)


@pytest.mark.parametrize("n", [-1, 1.5, "2", None, True])
def test_a_bad_skip_is_a_value_error(n):
    if n is not None:
        with pytest.raises(ValueError, match=r"the n of skip\(n\) must be an integer of at least 0; got"):
            data.skip(n)
    with pytest.raises(ValueError, match=r"the result of the function of skip\(<lambda>\) must be") as error:
        read(pipe(stream(range(5)), data.skip(lambda: n)), 3)
    assert error.value.__notes__ == ["at operation=skip(<lambda>), split=train, epoch=3"]


def test_the_pulls_of_a_seek_through_skip_and_shard_are_those_of_the_item():
    taps = []
    dataset = pipe(data.source(range(100)), data.tap(taps.append), data.skip(10), data.shard(1, 3), data.batch(2))
    assert next(dataset.open(Cursor(0, 4))).tolist() == [35, 38]
    assert taps == [35, 36, 37, 38]


# shard


@given(st.integers(0, 40), st.integers(1, 6), st.booleans())
def test_shards_of_indices_and_of_rows_agree_and_are_together_all_rows(n, count, drop_last):
    shards = [data.shard(i, count, drop_last=drop_last) for i in range(count)]
    of_indices = [read(shard(data.source(range(n)))) for shard in shards]
    assert of_indices == [read(shard(stream(range(n)))) for shard in shards]
    assert of_indices == [read(pipe(data.source(range(n)), data.map(int), shard)) for shard in shards]
    kept = n - n % count if drop_last else n
    assert sorted(itertools.chain(*of_indices)) == list(range(kept))
    assert [len(shard(data.source(range(n)))) for shard in shards] == [len(rows) for rows in of_indices]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_drop_last_all_shards_have_one_length(count):
    for n in range(20):
        lengths = {len(read(data.shard(i, count, drop_last=True)(stream(range(n))))) for i in range(count)}
        assert lengths == {n // count}


def test_shards_of_a_shuffle_share_its_order():
    shuffled = pipe(data.source(range(10)), data.shuffle(seed=7))
    parts = [read(data.shard(i, 2)(shuffled), 4) for i in range(2)]
    assert [row for pair in zip(*parts, strict=True) for row in pair] == read(shuffled, 4)


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0), (0.0, 2), (0, 1.5), (True, 2)])
def test_a_bad_shard_is_refused_at_once(index, count):
    with pytest.raises(ValueError, match=r"of shard\(index, count\) must be"):
        data.shard(index, count)


# window


@given(st.integers(0, 20), st.integers(1, 6), st.integers(1, 8))
def test_windows_of_indices_and_of_rows_agree(n, size, step):
    window = data.window(size, step=step)
    expected = [list(range(i, i + size)) for i in range(0, n - size + 1, step)]
    for source in (data.source(range(n)), data.arrays(np.arange(n)), stream(range(n))):
        batches = [batch[0] if isinstance(batch, tuple) else batch for batch in window(source)]
        assert [batch.tolist() for batch in batches] == expected
    assert len(window(data.source(range(n)))) == len(expected)


@pytest.mark.parametrize("source", [data.source("abc"), stream("abc")], ids=repr)
def test_a_window_longer_than_the_data_gives_nothing(source):
    assert read(data.window(4)(source)) == []


def test_windows_further_apart_than_they_are_long_leave_items_out():
    for source in (data.source("abcdefgh"), stream("abcdefgh")):
        assert read(data.window(2, step=3)(source)) == [["a", "b"], ["d", "e"], ["g", "h"]]


def test_windows_of_tokens_are_slices_that_may_be_shuffled_and_batched():
    tokens = np.arange(20)
    windows = pipe(data.arrays(x=tokens), data.window(4, step=4))
    assert all(np.shares_memory(window["x"], tokens) for window in windows)
    batches = read(pipe(windows, data.shuffle(seed=7), data.batch(2)))
    assert [batch["x"].shape for batch in batches] == [(2, 4), (2, 4), (1, 4)]
    assert sorted(batch[0] for batch in np.concatenate([batch["x"] for batch in batches]).tolist()) == [0, 4, 8, 12, 16]


@pytest.mark.parametrize("source", [data.source(range(11)), stream(range(11))], ids=repr)
def test_windows_go_on_from_every_cursor(source):
    dataset = data.window(3, step=2)(source)
    whole = [window.tolist() for window in dataset]
    for index in range(len(whole) + 2):
        assert [window.tolist() for window in dataset.open(Cursor(0, index))] == whole[index:]


@pytest.mark.parametrize(("options", "what"), [({"n": 0}, "n"), ({"n": 2, "step": 0}, "step"), ({"n": 2.5}, "n")])
def test_a_bad_window_is_refused_at_once(options, what):
    with pytest.raises(ValueError, match=rf"the {what} of window\(n\) must be an integer of at least 1; got"):
        data.window(**options)


# take


def test_take_of_a_function_of_the_epoch():
    dataset = pipe(data.source(range(9)), data.take(lambda epoch, kind: epoch if kind == "train" else 1))
    assert [len(read(dataset, epoch)) for epoch in (0, 2, 20)] == [0, 2, 9]
    assert list(dataset.open(Cursor(5), kind="validation")) == [0]
    assert read(pipe(data.source(range(9)), data.take(lambda: np.int64(2)))) == [0, 1]


@pytest.mark.parametrize("n", [-1, 2.0, 2.5, "3", None, True])
def test_a_bad_take_is_a_value_error(n):
    if n is not None:
        with pytest.raises(ValueError, match=r"the n of take\(n\) must be an integer of at least 0; got"):
            data.take(n)
    for source in (data.source(range(5)), data.stream(lambda: range(5))):
        with pytest.raises(ValueError, match=r"the result of the function of take\(<lambda>\) must be") as error:
            list(pipe(source, data.take(lambda: n)).open(Cursor(3)))
        assert error.value.__notes__ == ["at operation=take(<lambda>), split=train, epoch=3"]


def test_a_take_function_that_wants_more_is_refused_when_built():
    with pytest.raises(TypeError, match="take function '<lambda>' requires 'step', which is not on offer"):
        data.take(lambda step: step)


def test_the_take_function_is_called_once_an_epoch_and_not_before():
    calls = []
    dataset = pipe(data.source(range(9)), data.take(lambda epoch: calls.append(epoch) or 3))
    reader = dataset.open(Cursor(4))
    assert calls == []
    assert len(list(reader)) == 3
    assert calls == [4]


# batch


def columns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 3, 2)).astype(np.float32), rng.integers(0, 9, 23).astype(np.int16)
    return {"x": x, "y": y, "m": mx.array(x), "k": mx.array(y)}


@examples(60)
@given(st.integers(1, 30), st.booleans(), st.integers(0, 25), st.booleans())
def test_index_first_batches_equal_the_naive_ones(n, drop_last, limit, shuffled):
    order = [data.shuffle(seed=5), data.take(limit)] if shuffled else [data.take(limit)]
    given = columns()
    whole = read(pipe(data.arrays(**given), *order, data.batch(n, drop_last=drop_last)))
    naive = read(pipe(data.arrays(**given), *order, data.map(dict), data.batch(n, drop_last=drop_last)))
    assert len(whole) == len(naive)
    for batch, other in zip(whole, naive, strict=True):
        for key in given:
            assert type(batch[key]) is type(other[key]) is type(given[key])
            assert batch[key].dtype == other[key].dtype == given[key].dtype
            assert np.array_equal(np.asarray(batch[key]), np.asarray(other[key]))


def test_a_batch_is_one_gather_per_column_and_no_row_is_read():
    class Column(np.ndarray):
        gathers, rows = 0, 0

        def take(self, *args, **kwargs):
            Column.gathers += 1
            return super().take(*args, **kwargs)

        def __getitem__(self, at):
            Column.rows += 1
            return super().__getitem__(at)

    x = np.arange(64.0).reshape(32, 2).view(Column)
    assert len(read(pipe(data.arrays(x=x), data.shuffle(seed=0), data.batch(8)))) == 4
    assert (Column.gathers, Column.rows) == (4, 0)


def test_batches_in_order_are_slices():
    x = np.arange(10)
    batches = read(pipe(data.arrays(x), data.batch(4)))
    assert [batch[0].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert all(np.shares_memory(batch[0], x) for batch in batches)


def test_memory_mapped_columns(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20).reshape(10, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    dataset = pipe(data.arrays(mapped), data.shuffle(seed=7), data.batch(5))
    assert np.concatenate([batch[0] for batch in dataset])[:, 0].tolist() == [2 * i for i in PINNED]


def test_a_batch_of_a_sequence_is_collated():
    rows = [{"x": i, "name": str(i)} for i in range(5)]
    first = next(iter(pipe(data.source(rows), data.shuffle(seed=7), data.batch(3))))
    assert is_mlx(first["x"])
    assert [str(i) for i in first["x"].tolist()] == first["name"]


def test_a_batch_of_batches_stacks_them():
    nested = read(pipe(data.arrays(np.arange(12)), data.batch(2), data.batch(3)))
    assert [batch[0].shape for batch in nested] == [(3, 2), (3, 2)]


def test_an_error_of_collating_notes_the_batch():
    rows = [{"x": np.zeros(2)}, {"x": np.zeros(2)}, {"x": np.zeros(2)}, {"x": np.zeros(3)}]
    with pytest.raises(ValueError, match=r"cannot stack row\['x'\]: row 0 has shape \(2,\), row 1 .* \(3,\)") as error:
        read(pipe(data.source(rows), data.batch(2)), epoch=4)
    assert error.value.__notes__ == ["at operation=source(list of 4), split=train, epoch=4, index=1"]


def test_a_batch_may_be_a_list_of_its_rows_as_they_are():
    rows = [[1], [2, 3], [], [4]]
    for source in (data.source(rows), stream(rows)):
        batches = read(pipe(source, data.batch(3, stack=list)))
        assert batches == [[[1], [2, 3], []], [[4]]]
        assert batches[0][1] is rows[1]


def test_rows_may_be_stacked_by_a_function_and_its_errors_name_the_batch():
    longest = pipe(data.source(["a", "bcd", "ef"]), data.batch(2, stack=lambda rows: max(map(len, rows))))
    assert read(longest) == [3, 2]
    with pytest.raises(ZeroDivisionError) as error:
        read(pipe(data.source(range(4)), data.batch(2, stack=lambda rows: 1 // (rows[0] - 2))), 3)
    assert error.value.__notes__ == ["at operation=batch(2, stack=<lambda>), split=train, epoch=3, index=1"]


def test_lists_of_rows_keep_len_drop_last_and_their_place():
    dataset = pipe(data.source(range(8)), data.shuffle(seed=1), data.batch(3, drop_last=True, stack=list))
    assert len(dataset) == len(read(dataset)) == 2
    assert list(dataset.open(Cursor(2, 1))) == read(dataset, 2)[1:]


@pytest.mark.parametrize("n", [0, -3, 2.0, None, True])
def test_a_bad_batch_is_refused_at_once(n):
    with pytest.raises(ValueError, match=r"the n of batch\(n\) must be an integer of at least 1; got"):
        data.batch(n)


@pytest.mark.parametrize("stack", [3, None, "list"])
def test_a_stack_that_is_no_function_is_refused_when_built(stack):
    with pytest.raises(TypeError, match="the stack of batch is a function of a list of rows, as in stack=list; got"):
        data.batch(2, stack=stack)


# orders of operations of a user's own


@pytest.mark.parametrize("dtype", [mx.int32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("batches", [[], [data.batch(2)]], ids=["rows", "batches"])
@pytest.mark.parametrize("places", [[0, 7], [0, 10_000_000], [-1, 0]], ids=str)
def test_an_index_that_the_data_do_not_have_is_an_error(dtype, batches, places):
    odd = data.Operation("odd", on_order=lambda order, now: memoryview(array("q", places)), size=lambda size: 2)
    with pytest.raises(IndexError, match="the order given has indices from 0 to 4, and the one returned") as error:
        list(pipe(data.arrays(x=mx.arange(5).astype(dtype)), odd, *batches))
    assert error.value.__notes__ == ["at operation=odd, split=train, epoch=0"]


@pytest.mark.parametrize(
    "order", [range(4, -1, -1), memoryview(array("q", [4, 4])), [1, range(2), memoryview(array("q", [3]))], range(0)]
)
def test_an_order_of_a_user_s_own_that_is_within_the_data_is_read(order):
    own = data.Operation("own", on_order=lambda given, now: order, size=lambda size: None)
    assert len(list(pipe(data.source(range(5)), own))) == len(order)
    beyond = data.Operation("beyond", on_order=lambda given, now: [range(2), [5]])
    with pytest.raises(IndexError, match="from 0 to 5"):
        list(pipe(data.source(range(5)), beyond))
