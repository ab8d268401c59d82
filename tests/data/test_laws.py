"""The laws of reading: any pipe of any operations reads the same twice, and goes on anywhere with what was left."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import plain
from hypothesis import given
from hypothesis import strategies as st
from toolz import compose_left, pipe

from mlx_fp import data
from mlx_fp.data import Cursor

ROWS = [{"x": float(i), "y": i} for i in range(23)]
SOURCES = {
    "list": lambda: data.source(ROWS),
    "numpy": lambda: data.arrays(x=np.arange(23.0), y=np.arange(23)),
    "mlx": lambda: data.arrays(x=mx.arange(23.0), y=mx.arange(23)),
    "stream": lambda: data.stream(lambda epoch: iter(ROWS[epoch % 3 :])),
}
COUNTS = st.one_of(st.integers(0, 30), st.just(lambda epoch: 3 + epoch), st.just(lambda: 9))
SEEDS = st.integers(0, 5)


def even(item, index):
    return index % 3 != 1


def twice(item, epoch):
    return [item] * (1 + epoch % 2)


def noted(item, index, epoch, key):
    return {"item": item, "at": [epoch, index], "key": key}


def one(item):
    return 1


def ragged(item, index):
    return {"t": [1] * (1 + index % 5), "y": index}


def length(row):
    return len(row["t"])


def sampled(dataset, seed, n):
    """Items drawn by weight where their number is known."""
    if not dataset.size:
        return dataset
    return data.sample([1 + i % 3 for i in range(dataset.size)], seed=seed, n=n)(dataset)


def loss(model, tokens, target): ...


RAGGED = (  # one after another, as many as are drawn
    data.map(ragged),
    data.bucket(length, boundaries=(2, 4), batch_size=3),
    data.pad(to=(2, 4, 8), lengths="n"),
    data.schema(t=("int32", 2), y=("int32", 1), n=1),
    data.collate({"x": "t", "target": "y", "n": lambda batch: batch["n"]}),
    data.bind(loss),
    data.unbatch(),
)
INDEXED = st.one_of(
    st.builds(lambda seed, n: lambda dataset: sampled(dataset, seed, n), SEEDS, st.sampled_from([None, 7, 40])),
    st.builds(lambda seed: data.shuffle(seed=seed), SEEDS),
    st.builds(data.take, COUNTS),
    st.builds(data.skip, st.integers(0, 8)),
    st.builds(lambda i, drop: data.shard(i, 3, drop_last=drop), st.integers(0, 2), st.booleans()),
    st.builds(data.repeat, st.integers(1, 3)),
    st.builds(lambda seed: lambda dataset: data.split((0.5, 0.5), seed=seed)(dataset)[1], SEEDS),
)
ANYWHERE = st.one_of(
    st.builds(data.take, COUNTS),
    st.builds(data.skip, st.integers(0, 8)),
    st.builds(lambda i, drop: data.shard(i, 2, drop_last=drop), st.integers(0, 1), st.booleans()),
    st.builds(lambda seed, n: data.shuffle(seed=seed, window=n), SEEDS, st.integers(1, 9)),
    st.just(data.map(noted, key=3)),
    st.just(data.filter(even)),
    st.just(data.flat_map(twice)),
    st.just(data.tap(lambda item: None)),
    st.builds(data.enumerate, st.integers(0, 2)),
    st.builds(data.prefetch, st.integers(1, 3)),
    st.builds(data.repeat, st.integers(1, 3)),
    st.just(data.cache()),
    st.just(lambda dataset: data.concat(dataset, ROWS[:4])),
    st.just(lambda dataset: data.interleave(dataset, ROWS[:4])),
    st.just(lambda dataset: data.mix(dataset, ROWS[:9], weights=(2, 1), seed=1)),
    st.just(lambda dataset: data.zip(dataset, data.stream(lambda epoch: iter(ROWS)))),
)


@st.composite
def datasets(draw):
    """Any pipe: index operations, perhaps a batch or window, row operations, perhaps a batch of what can be stacked."""
    name = draw(st.sampled_from(sorted(SOURCES)))
    dataset = SOURCES[name]()
    if name != "stream":
        for operation in draw(st.lists(INDEXED, max_size=3)):
            try:
                dataset = operation(dataset)
            except ValueError as error:
                _only_empty(error)
    grouping = draw(st.sampled_from([None, data.batch(3), data.batch(4, drop_last=True), data.window(3, step=2)]))
    if grouping is not None:
        dataset = grouping(dataset)
        if name != "stream" and draw(st.booleans()):
            dataset = data.shuffle(seed=3)(dataset)
    dataset = pipe(dataset, *draw(st.lists(ANYWHERE, max_size=3)))
    if draw(st.booleans()):  # a tail of one batch may not stack with whole ones: keep to what can
        dataset = pipe(dataset, data.map(one), draw(st.sampled_from([data.batch(2), data.window(2), data.batch(5)])))
    return pipe(dataset, *RAGGED[: draw(st.integers(0, len(RAGGED)))])


def _only_empty(error):
    """Let pass what `split` says of a part without rows."""
    if "is empty" not in str(error):
        raise error


def read(dataset, cursor):
    """Read all that is left, or say that `split` found an epoch empty, which it says at any cursor."""
    try:
        return plain(list(dataset.open(cursor)))
    except ValueError as error:
        return _only_empty(error)


@examples(500)
@given(datasets(), st.integers(0, 3), st.integers(0, 40))
def test_any_pipe_reads_the_same_twice_and_goes_on_anywhere(dataset, epoch, index):
    whole = read(dataset, Cursor(epoch))
    assert read(dataset, Cursor(epoch)) == whole
    assert read(dataset, Cursor(epoch, index)) == (whole if whole is None else whole[index:])


@examples(200)
@given(datasets(), st.integers(0, 2), st.integers(1, 12))
def test_a_reader_stopped_anywhere_goes_on_from_its_cursor(dataset, epoch, index):
    """The cursor is that of the last item handed out, whatever was read ahead."""
    whole = read(dataset, Cursor(epoch))
    if whole is None:
        return
    reader = dataset.open(Cursor(epoch))
    first = [plain(item) for item, _ in zip(reader, range(index), strict=False)]
    reader.close()
    assert first + plain(list(dataset.open(Cursor(epoch, len(first))))) == whole


@examples(200)
@given(datasets())
def test_len_is_the_number_of_items_where_it_is_known(dataset):
    try:
        known = len(dataset)
    except TypeError:
        return
    whole = read(dataset, Cursor())
    assert whole is None or known == len(whole)


@given(st.lists(ANYWHERE, max_size=3))
def test_pipe_and_compose_left_build_the_same(operations):
    source = SOURCES["list"]()
    if operations:
        assert plain(list(compose_left(*operations)(source))) == plain(list(pipe(source, *operations)))


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_operation_has_a_label_that_reads_like_its_call(name):
    dataset = pipe(SOURCES[name](), data.skip(1), data.batch(2), data.map(one, key=None), data.repeat(2), data.cache())
    assert repr(dataset).endswith("skip(1), batch(2), map(one), repeat(2), cache())")
    assert repr(dataset).startswith("pipe(")
