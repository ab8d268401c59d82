"""The outputs of a model on data: all rows in their order, or batch by batch."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
from helpers import assert_close, bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn

X = mx.random.normal((11, 4), key=mx.random.key(1))
Y = mx.arange(11) % 3
MODEL = nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.5), nn.linear(8, 3))
PARAMS = nn.init(3)(MODEL)
ROWS = pipe(data.arrays(x=X, y=Y), data.batch(4))
WHOLE = nn.predictor(PARAMS)(MODEL)(X)


class Heads(NamedTuple):
    logits: mx.array
    value: mx.array


@pytest.mark.parametrize("compile", [True, False])
def test_outputs_are_joined_in_the_order_of_the_rows_with_dropout_off_and_buffers_kept(compile):
    before = bits(PARAMS)
    outputs = fp.predict(ROWS, compile=compile)(MODEL, PARAMS)
    assert outputs.shape == (11, 3)
    assert_close(outputs, WHOLE)
    assert bits(PARAMS) == before


def test_it_reads_as_a_pipe_and_agrees_with_evaluate():
    trainer = fp.trainer(MODEL, fp.classification())
    report = pipe(trainer, fp.fit(ROWS, epochs=2, quiet=True))
    logits = pipe(trainer.model, fp.predict(ROWS, params=report.params))
    figures = pipe(trainer, fp.evaluate(ROWS, params=report.params))
    assert (mx.argmax(logits, axis=1) == Y).mean().item() == pytest.approx(figures["accuracy"])
    loss = nn.losses.cross_entropy(logits, Y, reduction="mean").item()
    assert loss == pytest.approx(figures["loss"], rel=1e-5)


def test_a_shuffled_pipeline_gives_the_order_of_its_rows_each_time():
    shuffled = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(4))
    order = mx.concatenate([batch["x"] for batch in shuffled])
    assert_close(fp.predict(shuffled)(MODEL, PARAMS), nn.predictor(PARAMS)(MODEL)(order))


def test_batches_of_unequal_sizes_are_traced_once_for_each_size():
    traces = []

    def seen(x):
        traces.append(x.shape)
        return x

    model = nn.sequential(seen, MODEL)
    sizes = [3, 5, 3, 5, 5]
    batches = [mx.random.normal((n, 4), key=mx.random.key(n + i)) for i, n in enumerate(sizes)]
    params = {"layers": [{}, PARAMS]}
    outputs = fp.predict(batches)(model, params)
    assert_close(outputs, nn.predictor(PARAMS)(MODEL)(mx.concatenate(batches)))
    assert traces[-2:] == [(3, 4), (5, 4)]
    assert len(traces) == 2


@pytest.mark.parametrize(
    "shape",
    [
        lambda x, y: {"x": x, "y": y},
        lambda x, y: {"features": x, "label": y, "id": y},
        lambda x, y: (x, y),
        lambda x, y: [x, y, y],
        lambda x, y: {"x": x},
        lambda x, y: (x,),
        lambda x, y: x,
        lambda x, y: {"x": np.asarray(x), "y": np.asarray(y)},
    ],
)
def test_columns_that_are_no_inputs_are_left_alone(shape):
    batches = [shape(X[:6], Y[:6]), shape(X[6:], Y[6:])]
    assert_close(fp.predict(batches)(MODEL, PARAMS), WHOLE)


def test_a_model_of_several_inputs_takes_them_by_name():
    class Distance(mlx.nn.Module):
        def __call__(self, a, b):
            return (a - b).square().sum(axis=1)

    rows = pipe(data.arrays(a=X, b=X[::-1], label=Y, mask=mx.ones((11,))), data.batch(4))
    outputs = fp.predict(rows)(nn.lift(Distance), {})
    assert_close(outputs, (X - X[::-1]).square().sum(axis=1))


@pytest.mark.parametrize("kind", ["dict", "tuple", "named tuple", "nested"])
def test_a_model_that_returns_a_tree_gives_a_tree_of_whole_arrays(kind):
    made = {
        "dict": lambda x: {"a": x * 2, "b": x.sum(axis=1)},
        "tuple": lambda x: (x * 2, x.sum(axis=1)),
        "named tuple": lambda x: Heads(x * 2, x.sum(axis=1)),
        "nested": lambda x: {"heads": [x * 2, (x.sum(axis=1),)]},
    }[kind]
    outputs, expected = fp.predict(ROWS)(nn.fn(made), {}), made(X)
    assert type(outputs) is type(expected)
    assert_close(outputs, expected)


def test_by_batch_it_is_a_stream_of_the_outputs_of_each_batch():
    read = []
    rows = pipe(data.arrays(x=X, y=Y), data.map(lambda row: read.append(1) or row), data.batch(4))
    stream = fp.predict(rows, by_batch=True)(MODEL, PARAMS)
    assert read == []
    first = next(stream)
    assert len(read) == 4
    assert_close(mx.concatenate([first, *stream]), WHOLE)
    scalars = fp.predict(ROWS, by_batch=True)(nn.fn(lambda x: {"mean": x.mean()}), {})
    assert [each["mean"].shape for each in scalars] == [(), (), ()]


def test_a_stream_that_is_left_early_closes_its_sources():
    closed = []

    def read():
        try:
            yield from [X, X, X]
        finally:
            closed.append(True)

    stream = fp.predict(data.stream(read), by_batch=True)(MODEL, PARAMS)
    next(stream)
    stream.close()
    assert closed == [True]


def test_of_splits_it_reads_the_test_split():
    plan = data.splits(train=ROWS, test=ROWS)
    assert_close(fp.predict(plan)(MODEL, PARAMS), WHOLE)
    with pytest.raises(ValueError, match="predict reads the test split, and these splits have none"):
        fp.predict(data.splits(train=ROWS))


def test_in_a_narrower_type_the_outputs_are_those_of_evaluation():
    outputs = fp.predict(ROWS, dtype=mx.bfloat16)(MODEL, PARAMS)
    assert outputs.dtype == mx.float32
    assert 0 < mx.abs(outputs - WHOLE).max().item() < 0.1


FAULTS = {
    "columns that nothing batches": (data.arrays(x=X, y=Y), ValueError, "gives rows: .* not rows: data.batch"),
    "shuffled columns": (pipe(data.arrays(x=X), data.shuffle(seed=0)), ValueError, "not rows: data.batch"),
    "mapped rows": (pipe(data.arrays(x=X, y=Y), data.map(lambda r: r)), ValueError, "y is one number: .*data.batch"),
    "rows of pairs": ([(X[0], 1), (X[1], 0)], ValueError, "y is one number: .*data.batch"),
    "rows without a target": ([X[0], X[1]], ValueError, r"is \(3,\) for a batch of 4 rows; .*data.batch"),
    "no batch": (pipe(ROWS, data.take(0)), ValueError, "gave no batch; it needs at least one"),
    "targets alone": ([{"y": Y}], ValueError, "the batch has no input, only y"),
    "two inputs": ([{"tokens": X, "features": X}], ValueError, r"data.collate\({'x': 'features'}\) says which"),
    "a generator": ((batch for batch in ROWS), TypeError, "stream"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_data_that_are_no_batches_are_refused_with_the_remedy(fault):
    batches, kind, message = FAULTS[fault]
    model = nn.linear(4, 3)
    with pytest.raises(kind, match=message):
        fp.predict(batches)(model, nn.init(0)(model))


def test_what_has_no_rows_cannot_be_joined():
    with pytest.raises(ValueError, match=r"the output 'mean' is \(\) for a batch of 4 rows; .*by_batch=True"):
        fp.predict(ROWS)(nn.fn(lambda x: {"mean": x.mean(), "x": x}), {})
    ragged = [mx.ones((2, 3)), mx.ones((2, 5))]
    with pytest.raises(ValueError, match=r"differ in shape, \(3,\) and \(5,\) for each row: pad .*by_batch=True"):
        fp.predict(ragged)(nn.fn(lambda x: x), {})


def test_wrong_options_and_no_parameters_are_told_at_once():
    with pytest.raises(TypeError, match=r"predict\(test\)\(model, report.params\)"):
        fp.predict(ROWS)(MODEL)
    with pytest.raises(TypeError, match="by_batch"):
        fp.predict(ROWS, by_batch="yes")
    with pytest.raises(TypeError, match="compile is True, False or a mapping"):
        fp.predict(ROWS, compile=3)(MODEL, PARAMS)


def test_an_error_says_which_batch():
    with pytest.raises(ValueError, match="reshape|size") as caught:
        fp.predict([X[:8], X[:3, :3]])(nn.fn(lambda x: x.reshape(-1, 4)), {})
    assert any("split=test, batch=1" in note for note in caught.value.__notes__)
