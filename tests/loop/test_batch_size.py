"""The memory of a run is predicted before it, and the largest batch below a limit is found."""

from __future__ import annotations

import gc

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import cross_entropy
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop._batch_size import largest
from mlx_fp.loop._memory import Memory

CLASSES = 10


class Block(mlx_nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.attention, self.norm = mlx_nn.MultiHeadAttention(dims, 2), mlx_nn.LayerNorm(dims)
        self.up, self.down = mlx_nn.Linear(dims, 4 * dims), mlx_nn.Linear(4 * dims, dims)

    def __call__(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, mask="causal")
        return x + self.down(mlx_nn.gelu(self.up(x)))


def images(rows):
    return mx.zeros((rows, 8, 8, 3)), mx.zeros((rows,), mx.int32)


def tokens(rows):
    return mx.zeros((rows, 16), mx.int32), mx.zeros((rows, 16), mx.int32)


def vectors(rows):
    return mx.zeros((rows, 32)), mx.zeros((rows,), mx.int32)


def transformer(wrap=lambda part: part):
    return nn.sequential(
        nn.embedding(CLASSES, 32), nn.stack(2, lambda: wrap(nn.lift(Block, 32))), nn.linear(32, CLASSES)
    )


def mlp():
    return nn.sequential(nn.linear(32, 256), nn.relu, nn.linear(256, 256), nn.relu, nn.linear(256, CLASSES))


def cnn():
    conv = lambda i, o: nn.sequential(nn.conv2d(i, o, 3, padding=1), nn.batch_norm(o), nn.relu)
    return nn.sequential(conv(3, 16), conv(16, 16), lambda x: x.mean((1, 2)), nn.linear(16, CLASSES))


MODELS = {
    "mlp": (mlp, vectors, 128),
    "cnn": (cnn, images, 32),
    "transformer": (transformer, tokens, 32),
    "recomputed": (lambda: transformer(nn.remat), tokens, 32),
}


def peak_of_run(target, batch, **options):
    """Return the peak of the process in a run, above what the process held before."""
    gc.collect()
    mx.reset_peak_memory()
    pipe(target, fp.fit([batch] * 6, quiet=True, **options))
    return mx.get_peak_memory()


@pytest.mark.parametrize("optimizer", [optim.adam(1e-3), optim.sgd(0.1)], ids=repr)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usual("cnn-sgd(learning_rate=0.1)")
def test_the_peak_is_that_of_a_run_on_four_times_the_measured_rows(name, optimizer):
    make, batches, rows = MODELS[name]
    target, batch = fp.trainer(make(), cross_entropy, optimizer=optimizer), batches(rows)
    mx.eval(batch)
    target = fp.with_options(sync="step")(target)  # the peak of steps in flight depends on the load of the machine
    expected = pipe(target, fp.memory(batch)).peak
    assert expected == pytest.approx(peak_of_run(target, batch), rel=0.25)  # mostly within 0.02


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"parts": 4}, {"dtype": mx.bfloat16}], ids=str)
@pytest.mark.usual("{'parts': 4}")
def test_options_of_the_run_count(options):
    target, batch = fp.trainer(transformer(), cross_entropy), tokens(32)
    mx.eval(batch)
    whole, changed = pipe(target, fp.memory(batch)), pipe(target, fp.with_options(**options), fp.memory(batch))
    assert changed.peak == pytest.approx(peak_of_run(target, batch, **options), rel=0.3)
    if "accumulate" not in options:
        assert changed.activations < 0.8 * whole.activations


def test_frozen_parameters_count_once():
    model = nn.freeze("base")(nn.sequential(base=nn.linear(256, 256), head=nn.linear(256, 2)))
    target = fp.trainer(model, lambda m, x: m(x).mean(), optimizer=optim.adam(1e-3))
    needed = pipe(target, fp.memory(mx.ones((8, 256))))
    head, base = 4 * (2 * 256 + 2), 4 * (256 * 256 + 256)
    assert (needed.parameters, needed.gradients, needed.frozen) == (head, head, base)
    assert 2 * head <= needed.state <= 2 * head + 100
    assert needed.peak < 1.5 * base + needed.other


def test_the_table_has_every_row_and_at_extrapolates():
    needed = Memory(rows=8, parameters=1000, frozen=0, gradients=1000, state=2000, activations=80, other=5, peak=5000)
    assert str(needed).splitlines()[0].split() == ["memory", "8", "rows"]
    assert str(needed).splitlines()[-1].split() == ["peak", "to", "expect", "5", "KB"]
    assert (needed.at(16).activations, needed.at(16).peak, needed.at(16).rows) == (160, 5080, 16)
    assert needed.to_dict()["state"] == 2000


@pytest.mark.slow
def test_it_reads_the_first_batch_of_data_as_fit_does_and_the_parameters_are_gone_after():
    source = pipe(data.arrays(x=mx.ones((40, 512)), y=mx.zeros((40,), mx.int32)), data.batch(16))
    target = fp.trainer(nn.linear(512, 512), fp.classification())
    gc.collect()
    before = mx.get_active_memory()
    needed = pipe(target, fp.memory(source))
    gc.collect()
    assert needed.rows == 16
    assert mx.get_active_memory() - before < 512 * 512
    assert needed.other <= before + 4096


@pytest.mark.slow
def test_a_large_model_is_held_once():
    width = 1024
    one = 4 * width * width
    target = fp.trainer(nn.linear(width, width, bias=False), lambda m, x: m(x).mean(), optimizer=optim.adam(1e-3))
    gc.collect()
    needed = pipe(target, fp.memory(mx.ones((4, width)), sync="step"))
    assert needed.peak - needed.other < 7.5 * one  # a step makes three sets of three, and has the gradients meanwhile
    in_flight = pipe(target, fp.memory(mx.ones((4, width))))
    assert in_flight.peak == pytest.approx(peak_of_run(target, mx.ones((4, width))), rel=0.2)


def test_the_process_is_as_before():
    limit = mx.set_cache_limit(12345678)
    try:
        mx.random.seed(5)
        state = mx.random.state[0].tolist()
        pipe(fp.trainer(mlp(), cross_entropy), fp.memory(vectors(8)))
        assert mx.random.state[0].tolist() == state
        assert mx.set_cache_limit(limit) == 12345678
    finally:
        mx.set_cache_limit(limit)


def test_single_rows_and_steps_of_ones_own_are_measured():
    class Own:
        metrics, traces = (), 0

        def __init__(self, model, loss, optimizer, metrics):
            self.step = fp.train_step(model, loss, optimizer, metrics=metrics)

        def init(self, start, *, seed=0):
            return self.step.init(start, seed=seed)

        def __call__(self, params, opt_state, batch):
            return self.step(params, opt_state, batch)

    target = fp.with_step(Own)(fp.trainer(nn.linear(8, 8), lambda m, x: m(x).mean()))
    needed = pipe(target, fp.memory(mx.ones((1, 8))))
    assert (needed.rows, needed.parameters) == (1, 288)
    assert needed.peak > 288


# the largest batch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [3.0, 9.0, 40.0])
@pytest.mark.parametrize("curve", [lambda n: 100 + 9 * n, lambda n: max(400, 100 + 9 * n), lambda n: 100 + n * n])
def test_the_search_ends_close_below_the_limit(curve, slope):
    measured = {}

    def peak_of(rows):
        measured[rows] = curve(rows)
        return measured[rows]

    found = largest(peak_of, 1000, 512, (8, curve(8)), slope)
    assert measured[found] <= 1000
    assert curve(found) >= 700
    assert len(measured) <= 12


def test_the_search_keeps_its_bounds():
    assert largest(lambda n: 10, 1000, 64, (8, 10), 1.0) == 64
    assert largest(lambda n: 999 if n == 1 else 5000, 1000, 64, (8, 5000), 1.0) == 1
    with pytest.raises(ValueError, match="one row needs 5 KB, and the limit is 1 KB"):
        largest(lambda n: 5000, 1000, 64, (8, 5000), 1.0)


def test_the_batch_that_is_found_fits_and_a_larger_one_does_not():
    def total(model, x):  # without the number of rows, so that each number of rows has the same kernels
        return model(x).sum()

    target, batch = (
        fp.trainer(nn.sequential(nn.linear(32, 1024), nn.relu), total, optimizer=optim.sgd(0.1)),
        mx.ones((8, 32)),
    )
    gc.collect()
    limit = pipe(target, fp.memory(batch, sync="step")).at(128).peak
    rows = pipe(target, fp.fit_batch_size(batch, limit=limit, sync="step"))
    assert peak_of_run(target, mx.ones((rows, 32)), sync="step") < 1.1 * limit
    assert peak_of_run(target, mx.ones((2 * rows, 32)), sync="step") > limit


def test_wrong_options_are_refused_at_once():
    with pytest.raises(ValueError, match="limit of fit_batch_size is a number of bytes"):
        fp.fit_batch_size(mx.ones((2, 2)), limit="lots")
    with pytest.raises(ValueError, match="most of fit_batch_size is a count"):
        fp.fit_batch_size(mx.ones((2, 2)), most=0)
    with pytest.raises(TypeError, match="did you mean 'accumulate'"):
        fp.memory(mx.ones((2, 2)), acumulate=2)
    with pytest.raises(TypeError, match="memory takes a trainer; got Layer"):
        fp.memory(mx.ones((2, 2)))(nn.linear(2, 2))
    with pytest.raises(ValueError, match="there is none"):
        fp.memory(data.source([]))(fp.trainer(nn.linear(2, 2), lambda m, x: m(x).mean()))
    with pytest.raises(ValueError, match=r"one row needs .* and the limit is 1 KB"):
        fp.fit_batch_size(mx.ones((2, 64)), limit="1 KB")(fp.trainer(nn.linear(64, 64), lambda m, x: m(x).mean()))
