"""Errors that a new user meets say what, where, and what to do."""

from __future__ import annotations

import inspect
import re

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.ones((4, 3))
MODEL = nn.linear(3, 2)


def mean(model, x):
    return model(x).mean()


def taken(optimizer=None, loss=mean, metrics=(), **options):
    step = fp.train_step(MODEL, loss, optimizer or optim.sgd(0.1), metrics=metrics, **options)
    return step(*step.init(0), X)


def line_of(fn, after):
    return fn.__code__.co_firstlineno + after


# values under compile


def falling(step):
    return 0.1 if step < 10 else 0.01


def doubled(model, x):
    value = model(x).mean()
    return value * 2 if value > 0 else value


def printed(model, x):
    value = model(x).mean()
    print(value)
    return value


def least(model, x):
    value = model(x).mean()
    return min(value, mx.array(1.0))


def floated(model, x):
    value = model(x).mean()
    return value * float(value)


def through_numpy(model, x):
    value = model(x).mean()
    return value * np.array(value)


def counted(memory, output, x):
    return memory + 1 if output.sum() > 0 else memory


COUNTED = fp.Metric("counted", lambda: mx.array(0), counted, lambda memory: memory)
READERS = {
    "if in a schedule": (falling, 1, lambda **o: taken(optim.sgd(falling), **o)),
    "if in a loss": (doubled, 2, lambda **o: taken(loss=doubled, **o)),
    "print in a loss": (printed, 2, lambda **o: taken(loss=printed, **o)),
    "min in a loss": (least, 2, lambda **o: taken(loss=least, **o)),
    "float in a loss": (floated, 2, lambda **o: taken(loss=floated, **o)),
    "numpy in a loss": (through_numpy, 2, lambda **o: taken(loss=through_numpy, **o)),
    "if in a metric": (counted, 1, lambda **o: taken(metrics=[COUNTED], **o)),
}


@pytest.mark.parametrize("case", READERS)
def test_a_value_that_is_read_while_a_step_is_traced_is_named_with_its_line(case):
    fn, after, take = READERS[case]
    words = f"'{fn.__name__}', line {line_of(fn, after)} of {inspect.getsourcefile(fn)}, reads the value of an array"
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        take()
    assert "mx.where" in str(caught.value)
    assert "compile=False" in str(caught.value)


@pytest.mark.parametrize("case", [name for name in READERS if name != "numpy in a loss"])
def test_uncompiled_it_runs(case):
    READERS[case][2](compile=False)


# parts and their weights


def test_a_part_of_a_define_has_its_arrays_and_methods():
    def tied(m, ids):
        assert m.embed.weight.shape == (5, 3)
        assert m.body.layers[0]["bias"].shape == (3,)
        return m.embed.as_linear(m.body(m.embed(ids)))

    model = nn.define(tied, embed=nn.embedding(5, 3), body=nn.sequential(nn.linear(3, 3)))
    params, ids = nn.init(0)(model), mx.array([1, 4])
    wanted = model.apply(params, ids)[0]
    rows = params["embed"]["weight"][ids]
    hidden = rows @ params["body"]["layers"][0]["weight"].T + params["body"]["layers"][0]["bias"]
    assert mx.allclose(wanted, hidden @ params["embed"]["weight"].T, atol=1e-6)
    with pytest.raises(AttributeError, match="unknown array of Linear, 'wieght': did you mean 'weight'"):
        nn.define(lambda m, x: m.a.wieght, a=nn.linear(2, 2)).apply({"a": nn.init(0)(nn.linear(2, 2))}, X)


def test_an_array_of_a_part_trains_through_what_is_done_with_it():
    model = nn.define(lambda m, x: x @ m.a.weight.T, a=nn.linear(3, 2, bias=False))
    plain = nn.sequential(a=nn.linear(3, 2, bias=False))
    ends = []
    for each in (model, plain):
        step = fp.train_step(each, mean, optim.sgd(0.1))
        params, state = step.init({"a": {"weight": mx.ones((2, 3))}})
        ends.append(step(params, state, X)[0]["a"]["weight"])
    assert mx.allclose(*ends)


def test_a_named_part_of_a_model_is_bound_to_the_step():
    model = nn.sequential(G=nn.linear(3, 4), D=nn.sequential(nn.batch_norm(4), nn.linear(4, 1)))

    def loss(model, x):
        return model.D(model.G(x)).mean() + 0 * model(x).mean()

    step = fp.train_step(model, loss, optim.sgd(0.1))
    plain = fp.train_step(model, mean, optim.sgd(0.1))
    params, state = step.init(0)
    found, wanted = step(params, state, X)[0], plain(params, state, X)[0]
    assert mx.allclose(found["G"]["weight"], wanted["G"]["weight"], atol=1e-6)
    assert not mx.array_equal(found["D"]["layers"][0]["running_mean"], params["D"]["layers"][0]["running_mean"])


# arguments of the wrong kind


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.clip_norm(1.0)(mlx.optimizers.SGD(0.1)), "clip_norm takes an Optimizer; got SGD: optim.lift it"),
        (lambda: optim.clip_norm(1.0)(optim.sgd), "clip_norm takes an Optimizer; got function: call it, with a rate"),
        (lambda: optim.clip_value(1.0)(optim.sgd), "clip_value takes an Optimizer"),
        (lambda: optim.ema(0.9)(optim.adam), "ema takes an Optimizer"),
        (lambda: optim.skip_nonfinite()(3), "skip_nonfinite takes an Optimizer; got int"),
        (
            lambda: nn.summary(nn.init(0)(MODEL)),
            "got dict: for parameters, give their model, too: nn.summary(model, params)",
        ),
        (lambda: nn.frozen(mlx.nn.Linear(2, 2)), "frozen takes a Layer; got Linear: lift or split it"),
        (lambda: nn.frozen(fp.trainer(MODEL, mean)), "frozen takes a Layer; got Trainer: its .model"),
        (lambda: pipe(MODEL, fp.fit([X])), "fit takes a trainer; got Layer: fp.trainer(model, task) makes one"),
        (lambda: next(pipe(MODEL, fp.events([X]))), "events takes a trainer; got Layer"),
        (lambda: pipe(MODEL, fp.evaluate([X], params={})), "evaluate takes a trainer; got Layer"),
        (lambda: fp.sweep([0.1, 0.2]), "sweep takes a dict of values by path"),
        (lambda: nn.linear("4", 2), "input_dims of Linear is an int; got '4'"),
        (lambda: nn.linear(4, 2.5), "output_dims of Linear is an int; got 2.5"),
        (lambda: nn.dropout("a"), "p of Dropout is a number; got 'a'"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_told_what_is_taken(make, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        make()


def test_a_reducer_that_returns_none_names_itself():
    def forgotten(losses):
        sum(losses)

    with pytest.raises(TypeError, match="reducer 'forgotten' returns a number for a list of losses; it returned None"):
        fp.fit([X], reduce=forgotten, quiet=True)(fp.trainer(MODEL, mean))


# values that a hook changes


def test_a_python_number_stays_at_its_first_value_and_a_buffer_that_a_hook_replaces_does_not():
    strength = {"now": 1.0}
    model = nn.define(lambda m, x: x.mean() * m.scale, scale=nn.param((), init=1.0), strength=nn.buffer((), init=1.0))

    def loss(model, x):
        return model(x), {"python": mx.array(strength["now"]), "buffer": model.params["strength"]}

    def halve(event):
        strength["now"] /= 2
        before = event.state.params["strength"].item()
        return fp.Replace(params=fp.swap("strength", before / 2)(event.state.params))

    target = pipe(fp.trainer(model, loss), fp.on("after_epoch", halve))
    report = pipe(target, fp.fit([X], epochs=3, quiet=True))
    assert [row.python for row in report.rows] == [1.0, 1.0, 1.0]
    assert [row.buffer for row in report.rows] == [1.0, 0.5, 0.25]
