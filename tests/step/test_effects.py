"""Building, tracing and calling a step leaves the process as it was, but for the results."""

from __future__ import annotations

import os

import mlx.core as mx
import pytest
from helpers import mean_square

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((8, 64), key=mx.random.key(0))
MODELS = {
    "small": nn.sequential(nn.linear(64, 8), nn.dropout(0.5), nn.linear(8, 1)),
    "9 MB": nn.sequential(nn.linear(64, 1500), nn.linear(1500, 1500), nn.linear(1500, 1)),
    "36 MB": nn.sequential(nn.linear(64, 3000), nn.linear(3000, 3000), nn.linear(3000, 1)),
}


def limit(setter):
    """A limit of MLX, which only setting it tells."""
    now = setter(32 << 20)
    setter(now)
    return now


def process():
    """All of the process that a step could change."""
    mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    stream = mx.random.state[0].tolist()
    device = str(mx.default_device()), str(mx.default_stream(mx.default_device()))
    return limit(mx.set_cache_limit), limit(mx.set_memory_limit), dict(os.environ), mask, stream, device


def evaluated(step, params):
    return step(params, step.init(), X)


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.usual("small-3")
def test_a_step_has_no_effect_but_its_results(model, streams):
    before = process()
    optimizer = optim.clip_norm(1.0)(optim.adamw(1e-3))
    step = fp.train_step(MODELS[model], mean_square, optimizer, metrics=[], streams=streams)
    assert process() == before
    params, opt_state = step.init(0)
    assert process() == before
    for _ in range(2):
        params, opt_state, logs = step(params, opt_state, X)
        mx.eval(params, opt_state, logs)
        assert process() == before
    state, _ = step.advance(step.carry(params, opt_state), [X, X])
    mx.eval(state.arrays)
    assert process() == before
    mx.eval(evaluated(fp.eval_step(MODELS[model], mean_square, streams=streams), state.params))
    assert process() == before


def test_an_error_in_a_step_has_no_effect_either():
    def fails(model, x):
        model(x)
        raise ZeroDivisionError

    before = process()
    step = fp.train_step(MODELS["small"], fails, optim.sgd(0.1), streams=2)
    with pytest.raises(ZeroDivisionError):
        step(*step.init(0), X)
    assert process() == before


@pytest.mark.parametrize("error", [None, KeyError])
@pytest.mark.usual("KeyError")
def test_a_run_puts_back_all_that_it_changes(error):
    """The random stream of the caller is left alone, too."""
    before = process()

    def look(event):
        if error is not None:
            raise error("lost")

    trainer = fp.on("after_step", look)(fp.trainer(MODELS["36 MB"], mean_square))
    try:
        fp.fit([X, X], streams=2, quiet=True)(trainer)
    except KeyError:
        assert error is KeyError
    assert process() == before
