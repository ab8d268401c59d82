"""Several datasets as one, and one several times: what can stay indices does, and nothing is read that need not be."""

from __future__ import annotations

import math
from itertools import chain, islice
from random import Random
from time import perf_counter

import mlx.core as mx
import numpy as np
import pytest
from helpers import Counted, read
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor, Dataset, Source
from mlx_fp.data._view import View


def all_of(lists):
    return list(chain.from_iterable(lists))


def picking(n, picks):
    """A dataset of the integers below `n` that lists what was picked of it, a number or a group of them."""

    def pick(at):
        made = at if isinstance(at, int) else list(at)
        picks.append(made)
        return made

    view = View(range(n), pick)
    return Dataset(Source("numbers", n, view=lambda now: view))


def shuffled(n, seed=1):
    return pipe(data.source(range(n)), data.shuffle(seed=seed))


def rows(n, seed=1):
    """A dataset of rows of which the number is known."""
    return pipe(shuffled(n, seed), data.map(lambda row, epoch: (row, epoch)))


def stream(n, start=0):
    return data.stream(lambda epoch: ((start + i, epoch) for i in range(n)))


def filtered(n, seed=1):
    """A dataset of rows of which only reading tells the number."""
    return pipe(shuffled(n, seed), data.filter(lambda row: row % 3))


# parts of indices stay indices


def test_concat_of_indices_may_be_shuffled_and_batched():
    dataset = pipe(data.concat(shuffled(6), range(10, 14)), data.shuffle(seed=3), data.batch(4))
    batches = [batch.tolist() for batch in dataset]
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain(*batches)) == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]
    assert any(min(batch) < 10 <= max(batch) for batch in batches)


@pytest.mark.parametrize(
    "join",
    [data.repeat(2), lambda part: data.concat(part, data.take(3)(part)), lambda part: data.zip(part, part)],
    ids=["repeat", "concat", "zip"],
)
def test_a_batch_of_what_was_joined_and_shuffled_is_one_gather_of_each_part(join):
    picks = []
    dataset = pipe(picking(8, picks), join, data.shuffle(seed=0), data.batch(4))
    batches = read(dataset)
    parts = 2 if isinstance(batches[0], tuple) else 1
    assert len(picks) == parts * len(batches)
    assert all(isinstance(pick, list) for pick in picks)


@pytest.mark.parametrize("grouping", [data.batch(4), data.window(4)], ids=repr)
def test_an_unshuffled_batch_of_a_zip_is_a_slice(grouping):
    x = np.arange(12)
    first = next(iter(pipe(data.zip(data.arrays(x=x), data.arrays(y=x)), grouping)))
    assert [part.tolist() for part in (first[0]["x"], first[1]["y"])] == [[0, 1, 2, 3]] * 2
    assert np.shares_memory(first[0]["x"], x)


def test_repeated_columns_are_gathered_once_a_batch_and_no_row_is_read():
    class Column(np.ndarray):
        takes, reads = 0, 0

        def take(self, *args, **kwargs):
            Column.takes += 1
            return super().take(*args, **kwargs)

        def __getitem__(self, at):
            Column.reads += 1
            return super().__getitem__(at)

    x = np.arange(32.0).reshape(16, 2).view(Column)
    batches = read(pipe(data.arrays(x=x), data.repeat(2), data.shuffle(seed=0), data.batch(8)))
    assert (Column.takes, Column.reads) == (4, 0)
    assert sorted(np.concatenate([batch["x"] for batch in batches]).tolist()) == sorted(x.tolist() * 2)


def test_rows_of_a_zip_belong_together_however_they_are_shuffled():
    x = np.arange(9)
    pairs = pipe(data.zip(data.arrays(x=x), data.arrays(y=x * 10)), data.shuffle(seed=2), data.batch(4))
    for first, second in read(pairs, epoch=3):
        assert (first["x"] * 10).tolist() == second["y"].tolist()


def test_each_part_of_a_zip_has_its_own_order():
    left, right = shuffled(9, seed=1), shuffled(9, seed=2)
    assert read(data.zip(left, right), epoch=4) == list(zip(read(left, 4), read(right, 4), strict=True))


def test_groups_and_rows_of_one_source_join():
    x = data.arrays(x=np.arange(5))
    joined = data.concat(data.batch(2)(x), x)
    assert [item["x"].tolist() for item in joined] == [[0, 1], [2, 3], [4], 0, 1, 2, 3, 4]


def test_a_part_of_every_other_index_joins_as_it_is():
    half = pipe(shuffled(10), data.shard(1, 2))
    assert read(pipe(half, data.repeat(2)), 1) == read(half, 2) + read(half, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: data.concat(range(3), data.stream(lambda: iter(range(3)))),
        lambda: data.zip(range(3), data.map(str)(data.source(range(3)))),
        lambda: data.interleave(range(3), range(3)),
        lambda: data.mix(range(3), range(3), weights=(1, 1), seed=0),
        lambda: pipe(data.source(range(3)), data.repeat()),
        lambda: pipe(data.source(range(3)), data.cache()),
    ],
    ids=["concat", "zip", "interleave", "mix", "repeat", "cache"],
)
def test_a_shuffle_after_what_gives_rows_is_refused_when_built(make):
    with pytest.raises(ValueError, match=r"shuffle\(seed=1\) needs indices, but .* before it gives rows: shuffle"):
        data.shuffle(seed=1)(make())


# concat, zip, interleave


def test_concat_is_one_after_the_other_at_every_epoch():
    parts = [rows(4), stream(3), filtered(9), data.source("ab")]
    for epoch in (0, 3):
        assert read(data.concat(*parts), epoch) == all_of(read(part, epoch) for part in parts)


def test_zip_gives_tuples_or_dicts_of_those_by_name():
    assert list(data.zip("ab", [1, 2], (True, False))) == [("a", 1, True), ("b", 2, False)]
    assert list(data.zip(y="ab", x=[1, 2])) == [{"y": "a", "x": 1}, {"y": "b", "x": 2}]
    assert list(data.zip(letter="ab", row=stream(2)))[1] == {"letter": "b", "row": (1, 0)}


def test_zip_takes_datasets_all_by_position_or_all_by_name():
    for args, named in (((), {}), (("ab",), {"x": "ab"})):
        with pytest.raises(TypeError, match="zip takes datasets, all by position or all by name"):
            data.zip(*args, **named)


@pytest.mark.parametrize("other", [range(4), pipe(data.source(range(4)), data.map(str))], ids=repr)
def test_lengths_of_zip_that_are_known_and_differ_are_refused_when_built(other):
    with pytest.raises(ValueError, match=r"the datasets of zip have different lengths, 3, 4: take\(n\) of them"):
        data.zip(range(3), stream(9), other)


@pytest.mark.parametrize("short", [stream(3), pipe(data.source(range(9)), data.take(lambda epoch: 3))], ids=repr)
def test_zip_ends_with_the_shortest_where_lengths_are_not_known(short):
    dataset = data.zip(short, range(5))
    assert [pair[1] for pair in dataset] == [0, 1, 2]
    with pytest.raises(TypeError, match=r"has no len\(\)"):
        len(dataset)


def test_interleave_takes_turns_until_all_have_ended():
    assert "".join(data.interleave("abcd", "x", data.stream(lambda: iter("123")))) == "ax1b2c3d"


@pytest.mark.parametrize(
    ("dataset", "size"),
    [
        (data.concat("abc", "xy"), 5),
        (data.zip("abc", "xyz"), 3),
        (data.interleave("abc", "xy"), 5),
        (data.mix("abc", "xy", weights=(1, 3), seed=0), 5),
        (pipe(data.source("abc"), data.repeat(4)), 12),
        (pipe(data.source("abc"), data.map(str.upper), data.cache()), 3),
    ],
    ids=repr,
)
def test_len_is_known_where_that_of_each_part_is(dataset, size):
    assert len(dataset) == len(list(dataset)) == size


def test_joined_datasets_read_like_their_pipe():
    left = pipe(data.source("abc"), data.take(2))
    assert repr(data.concat(left, "xy")) == "concat(pipe(source(str of 3), take(2)), source(str of 2))"
    assert repr(data.zip(a=left, b="xy")) == "zip(a=pipe(source(str of 3), take(2)), b=source(str of 2))"
    assert repr(pipe(left, data.repeat(2), data.cache())) == "pipe(source(str of 3), take(2), repeat(2), cache())"


@pytest.mark.parametrize("join", [data.concat, data.interleave], ids=lambda f: f.__name__)
def test_nothing_to_join_and_iterators_are_refused_when_built(join):
    with pytest.raises(ValueError, match=f"{join.__name__} needs at least one dataset"):
        join()
    with pytest.raises(TypeError, match=r"which can be read only once: write stream\(lambda: a new one\)"):
        join("ab", iter("ab"))


@pytest.mark.parametrize(
    "join",
    [data.concat, data.zip, data.interleave, lambda part: data.mix(part, weights=(1,), seed=0), data.repeat(1)],
    ids=["concat", "zip", "interleave", "mix", "repeat"],
)
def test_parts_are_read_for_what_the_whole_is_read_for(join):
    part = pipe(data.stream(lambda kind: iter([kind])), data.map(lambda row, kind: row + kind))
    found = list(join(part).open(kind="test"))
    assert found in (["testtest"], [("testtest",)])


def test_an_error_in_a_part_says_where_in_that_part():
    fragile = pipe(data.source(range(3)), data.map(lambda n: 1 // (n - 1)))
    with pytest.raises(ZeroDivisionError) as error:
        read(data.concat("ab", fragile), epoch=2)
    assert error.value.__notes__ == ["at operation=map(<lambda>), split=train, epoch=2, index=1"]


# mix


def drawn(epoch=0, seed=7, weights=(3, 1), n=4000):
    """Whose turn it was, of two that do not end before."""
    parts = [data.stream(lambda mark=mark: iter([mark] * n)) for mark in (0, 1)]
    return list(islice(data.mix(*parts, weights=weights, seed=seed).open(Cursor(epoch)), n))


@pytest.mark.parametrize("weights", [(3, 1), (0.75, 0.25), (0.3, 0.1)])
def test_a_mix_is_in_proportion_to_its_weights(weights):
    assert abs(sum(drawn(weights=weights)) - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)


def test_a_mix_repeats_by_seed_and_epoch_and_differs_by_each():
    assert drawn() == drawn()
    assert drawn() != drawn(epoch=1)
    assert drawn() != drawn(seed=8)


def test_every_item_of_a_mix_comes_once_in_the_order_of_its_part():
    parts = [data.source([("a", i) for i in range(30)]), data.stream(lambda: iter([("b", i) for i in range(9)]))]
    mixed = read(data.mix(*parts, weights=(1, 5), seed=3), epoch=2)
    for part in parts:
        items = list(part)
        assert [item for item in mixed if item in items] == items
    assert len(mixed) == 39


@pytest.mark.parametrize("weights", [(), (1,), (1, 2, 3), (1, 0), (1, -1), (1, math.nan)])
def test_bad_weights_are_refused_when_built(weights):
    with pytest.raises(ValueError, match="mix takes a positive weight for each of 2 datasets; got"):
        data.mix("ab", "xy", weights=weights, seed=0)


@pytest.mark.parametrize("weights", [1, None, ("a", "b"), {"ab": 1, "xy": 2}, (1, None)], ids=repr)
def test_weights_that_are_no_numbers_are_refused_when_built(weights):
    with pytest.raises(TypeError, match="mix takes a positive weight for each of 2 datasets; got"):
        data.mix("ab", "xy", weights=weights, seed=0)


def test_weights_that_have_no_finite_sum_are_refused_when_built():
    for weights in ((1, math.inf), (1e308, 1e308)):
        with pytest.raises(ValueError, match="mix takes a positive weight"):
            data.mix("ab", "xy", weights=weights, seed=0)


def in_turn(sizes, weights, seed, epoch):
    """Whose turn it is, as the definition says: the weights of those that are left, one after the other."""
    draw, left, given, found = Random((seed << 64) | epoch).random, list(range(len(sizes))), [0] * len(sizes), []
    while left:
        rest = draw() * sum(weights[i] for i in left)
        i = next((i for i in left if (rest := rest - weights[i]) < 0), left[-1])
        if given[i] == sizes[i]:
            left.remove(i)
        else:
            given[i] += 1
            found.append(i)
    return found


@pytest.mark.parametrize("many", [1, 2, 3, 7, 64, 100])
def test_the_order_of_a_mix_is_that_of_its_definition(many):
    sizes = [1 + 7 * i % 11 for i in range(many)]
    for weights in ([1 + i % 5 for i in range(many)], [0.1 + 0.7 * i % 1.3 for i in range(many)]):
        mixed = data.mix(*[[i] * size for i, size in enumerate(sizes)], weights=weights, seed=3)
        for epoch in (0, 2):
            expected = in_turn(sizes, weights, 3, epoch)
            assert read(mixed, epoch) == expected
            assert list(mixed.open(Cursor(epoch, 5))) == expected[5:]


@pytest.mark.parametrize("join", [data.interleave, lambda *parts: data.mix(*parts, weights=[1.0] * len(parts), seed=1)])
@pytest.mark.usual("<lambda>")
def test_a_turn_among_many_datasets_costs_about_as_much_as_among_few(join):
    def cost(many):
        dataset = join(*[range(10**6)] * many)
        spent = []
        for _ in range(3):
            begun = perf_counter()
            assert len(list(islice(dataset, 20_000))) == 20_000
            spent.append(perf_counter() - begun)
        return min(spent)

    assert cost(1000) < 12 * cost(10)  # three or four; forty where it grows with their number


def test_a_bad_seed_of_mix_is_refused_when_built():
    with pytest.raises(ValueError, match="the seed of mix must be"):
        data.mix("ab", "xy", weights=(1, 1), seed=-1)


# repeat


PARTS = {"indices": shuffled(7), "rows": rows(7), "stream": stream(7), "filtered": filtered(9)}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("name", PARTS)
def test_an_epoch_of_repeat_is_the_epochs_it_joins(name, n):
    part = PARTS[name]
    for epoch in (0, 2):
        joined = all_of(read(part, e) for e in range(epoch * n, epoch * n + n))
        assert read(pipe(part, data.repeat(n)), epoch) == joined


def test_a_shuffle_before_a_repeat_differs_each_time():
    twice = read(pipe(shuffled(20), data.repeat(2)))
    assert sorted(twice[:20]) == sorted(twice[20:]) == list(range(20))
    assert twice[:20] != twice[20:]


def test_repeats_nest():
    part = shuffled(5)
    assert read(pipe(part, data.repeat(2), data.repeat(3)), 1) == read(pipe(part, data.repeat(6)), 1)


@pytest.mark.parametrize("name", PARTS)
def test_an_endless_repeat_goes_on_with_the_epochs_from_its_own(name):
    part = PARTS[name]
    expected = all_of(read(part, epoch) for epoch in (2, 3, 4, 5))[:20]
    assert read(pipe(part, data.repeat(), data.take(20)), 2) == expected
    assert read(pipe(part, data.repeat(), data.take(20)), 2, 11) == expected[11:]


@pytest.mark.parametrize(
    "nothing",
    [data.source([]), data.stream(lambda: iter(())), pipe(data.source(range(3)), data.filter(lambda row: False))],
    ids=repr,
)
def test_an_endless_repeat_of_nothing_ends(nothing):
    assert read(pipe(nothing, data.repeat())) == []
    assert read(pipe(nothing, data.repeat()), 1, 5) == []
    assert read(pipe(nothing, data.repeat(3))) == []


@pytest.mark.parametrize("n", [0, -1, 2.0, "2", True])
def test_a_bad_repeat_is_refused_at_once(n):
    with pytest.raises(ValueError, match=r"the n of repeat\(n\) must be an integer of at least 1; got"):
        data.repeat(n)


def test_an_endless_repeat_has_no_len():
    with pytest.raises(TypeError, match=r"has no len\(\): repeat\(\) does not say"):
        len(pipe(data.source("ab"), data.repeat()))


# cache


def test_a_cache_reads_epoch_0_once():
    calls = []
    kept = pipe(data.stream(lambda epoch: calls.append(epoch) or iter([epoch, "a"])), data.cache())
    assert [read(kept, epoch) for epoch in (3, 0, 1)] == [[0, "a"]] * 3
    assert calls == [0]


def test_a_cache_hands_out_items_as_they_are_read():
    taps = []
    reader = pipe(data.source("abc"), data.tap(taps.append), data.cache()).open()
    assert [next(reader), next(reader), taps] == ["a", "b", ["a", "b"]]


def test_an_abandoned_reading_is_not_kept():
    taps = []
    kept = pipe(data.source(range(5)), data.tap(taps.append), data.cache())
    reader = kept.open()
    next(reader)
    reader.close()
    assert [read(kept), read(kept)] == [[0, 1, 2, 3, 4]] * 2
    assert taps == [0, 0, 1, 2, 3, 4]


def test_a_reading_that_failed_is_not_kept():
    fails = [OSError("disk"), None]

    def rows():
        yield 1
        if error := fails.pop(0):
            raise error
        yield 2

    kept = pipe(data.stream(rows), data.cache())
    with pytest.raises(OSError, match="disk"):
        read(kept)
    assert read(kept) == read(kept) == [1, 2]


def test_two_readers_at_once_both_get_all_of_a_cache():
    kept = pipe(stream(4), data.cache())
    assert list(zip(kept, kept, strict=True)) == [((i, 0), (i, 0)) for i in range(4)]


def test_a_cache_opened_in_the_middle_keeps_what_comes_before_too():
    kept = pipe(stream(4), data.cache())
    assert read(kept, 0, 3) == [(3, 0)]
    assert read(kept) == [(i, 0) for i in range(4)]


def test_a_cache_of_nothing_is_read_once():
    calls = []
    kept = pipe(data.stream(lambda: calls.append(1) or iter(())), data.cache())
    assert read(kept) == read(kept) == []
    assert len(calls) == 1


def test_what_comes_after_a_cache_still_changes_by_epoch():
    kept = pipe(data.source("ab"), data.cache(), data.map(lambda row, epoch: (row, epoch)))
    assert read(kept, 2) == [("a", 2), ("b", 2)]


# places


def joins(make):
    """Every way of joining datasets, of parts that `make(n)` makes."""
    return {
        "concat": data.concat(make(4), make(7), make(2)),
        "zip": data.zip(make(6), make(6)),
        "interleave": data.interleave(make(3), make(7)),
        "mix": data.mix(make(3), make(7), weights=(1, 2), seed=5),
        "repeat": pipe(make(4), data.repeat(3)),
        "endless": pipe(make(4), data.repeat(), data.take(11)),
        "cache": pipe(make(6), data.cache()),
        "nested": data.concat(data.zip(make(3), make(3)), data.interleave(make(2), make(3))),
    }


@pytest.mark.parametrize("make", [shuffled, rows, stream, filtered], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", joins(shuffled))
def test_from_every_cursor_on_comes_what_was_left(name, make):
    dataset = joins(make)[name]
    for epoch in (0, 2):
        whole = read(dataset, epoch)
        assert [read(dataset, epoch, index) for index in range(len(whole) + 2)] == [
            whole[index:] for index in range(len(whole) + 2)
        ]


@pytest.mark.parametrize("end", [stream(3), pipe(data.source("abc"), data.map(str))], ids=repr)
def test_a_cursor_behind_an_empty_part_is_in_the_part_after_it(end):
    dataset = data.concat([1, 2, 3], [], end)
    assert read(dataset, 0, 4) == read(end)[1:]


@pytest.mark.parametrize(
    ("join", "reads"),
    [
        (data.concat, [[], [30]]),
        (lambda *parts: data.zip(*[data.take(60)(part) for part in parts]), [[50], [50]]),
        (data.interleave, [[25], []]),
        (lambda *parts: pipe(parts[1], data.repeat(3)), [[], [50]]),
    ],
    ids=["concat", "zip", "interleave", "repeat"],
)
def test_a_cursor_is_sought_without_reading(join, reads):
    counted = [Counted(20 if join is data.concat else 60), Counted(60)]
    parts = [pipe(data.source(numbers), data.map(lambda row: row)) for numbers in counted]
    next(join(*parts).open(Cursor(0, 50)))
    assert [numbers.read for numbers in counted] == reads


def test_a_cursor_of_a_mix_is_sought_without_reading():
    counted = [Counted(40), Counted(40)]
    parts = [pipe(data.source(numbers), data.map(lambda row: row)) for numbers in counted]
    next(data.mix(*parts, weights=(1, 3), seed=0).open(Cursor(0, 50)))
    assert len(counted[0].read + counted[1].read) == 1


# closing


def watched(log, n=5):
    """A stream that notes in `log` how many of its readers are open."""

    def rows():
        log.append(1)
        try:
            yield from range(n)
        finally:
            log.append(-1)

    return data.stream(rows)


@pytest.mark.parametrize("items", [1, 3, 7])
@pytest.mark.parametrize("name", joins(stream))
def test_an_abandoned_reader_closes_the_sources_of_all_its_parts(name, items):
    log = []
    reader = joins(lambda n: watched(log, n))[name].open()
    for _ in range(items):
        next(reader, None)
    reader.close()
    assert log.count(1) >= 1
    assert sum(log) == 0


@pytest.mark.parametrize("name", joins(stream))
def test_an_error_that_is_kept_keeps_no_source_open(name):
    log = []
    reader = joins(lambda n: watched(log, n))[name].open()
    next(reader), next(reader)
    with pytest.raises(KeyError) as error:
        reader.throw(KeyError("elsewhere"))
    assert (sum(log), error.type) == (0, KeyError)


def test_a_part_that_has_ended_is_closed_before_the_next_is_opened():
    log = []
    read(data.concat(watched(log), watched(log)))
    assert log == [1, -1, 1, -1]


@pytest.mark.parametrize("join", [data.zip, data.interleave], ids=lambda f: f.__name__)
def test_an_error_in_one_part_closes_the_others(join):
    log = []
    broken = pipe(data.stream(lambda: iter(range(5))), data.map(lambda row: 1 // (2 - row)))
    with pytest.raises(ZeroDivisionError) as error:
        read(join(watched(log), broken))
    assert (log, error.type) == ([1, -1], ZeroDivisionError)


def test_nothing_is_opened_before_the_first_item_is_asked_for():
    log = []
    readers = [dataset.open() for dataset in joins(lambda n: watched(log, n)).values()]
    assert log == []
    for reader in readers:
        reader.close()
    assert log == []


# through the compiled step


def test_a_model_trains_on_a_zip_of_columns():
    x = mx.random.normal((64, 3), key=mx.random.key(1))
    train = pipe(
        data.zip(data.arrays(x), data.arrays(x @ mx.array([1.0, -2.0, 0.5]))),
        data.repeat(2),
        data.shuffle(seed=0),
        data.batch(16),
        data.collate({"x": (0, 0), "y": (1, 0)}),
    )
    step = fp.train_step(nn.linear(3, 1), lambda model, x, y: ((model(x)[:, 0] - y) ** 2).mean(), optim.sgd(0.1))
    params, opt_state = step.init(0)
    for epoch in range(8):
        for batch in train.open(Cursor(epoch)):
            params, opt_state, logs = step(params, opt_state, batch)
    assert logs["loss"].item() < 1e-3
    assert step.traces == 1


def test_batches_of_batches_of_what_was_zipped():
    both = pipe(data.zip(a=data.source(range(8)), b=data.source(range(8))), data.batch(2), data.batch(2))
    rows = pipe(data.zip(a=range(8), b=range(8)), data.map(lambda row: row), data.batch(2), data.batch(2))
    assert (
        [batch["a"].tolist() for batch in both]
        == [batch["a"].tolist() for batch in rows]
        == [
            [[0, 1], [2, 3]],
            [[4, 5], [6, 7]],
        ]
    )
