"""The functions of a step, each by itself and uncompiled: backward pass, gradients, update, and a whole step."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core.backend import PLAIN, using
from mlx_fp.step import passes
from mlx_fp.step._computation import Computation, restore_buffers_unless, split_trainable
from mlx_fp.tree._select import everything, under

X = mx.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
Y = mx.array([[1.0], [0.0], [2.0]])
PARAMS = {"weight": mx.array([[0.5, -0.5]]), "bias": mx.array([0.25])}


def loss(model, x, y):
    error = mx.square(model(x) - y)
    return error.mean(), {"largest": error.max()}


def work(**options):
    return Computation(nn.linear(2, 1), loss, optim.sgd(0.1), **options)


def state(computation, params=PARAMS):
    memory = {metric.name: metric.init() for metric in computation.metrics}
    kept, _ = computation.split(params)
    return {"key": mx.random.key(0), "optimizer": computation.optimizer.init(kept), "metrics": memory}


def test_a_backward_pass_gives_the_gradient_by_hand():
    computation = work(metrics=(fp.metrics.mse(),))
    before = state(computation)
    grads, rest, after, logs, weights = computation.backward(PARAMS, before, (X, Y))
    error = np.array(X) @ np.array([[0.5], [-0.5]]) + 0.25 - np.array(Y)
    np.testing.assert_allclose(np.array(grads["weight"]), 2 * (error * np.array(X)).mean(axis=0)[None], rtol=1e-6)
    np.testing.assert_allclose(np.array(grads["bias"]), 2 * error.mean(axis=0), rtol=1e-6)
    assert logs["loss"].item() == pytest.approx((error**2).mean())
    assert logs["largest"].item() == pytest.approx((error**2).max())
    assert weights == {"loss": 3, "largest": 3}
    assert rest == {"weight": {}, "bias": {}}
    assert fp.metrics.mse().value(after["metrics"]["mse"]).item() == pytest.approx((error**2).mean())
    assert fp.flat(after["optimizer"]) == fp.flat(before["optimizer"])


def test_frozen_parameters_are_in_the_rest_and_have_no_gradient():
    computation = work(chosen=under("bias"))
    grads, rest, *_ = computation.backward(PARAMS, state(computation), (X, Y))
    assert grads["weight"] == {}
    assert rest["weight"].tolist() == PARAMS["weight"].tolist()


SIDE_BY_SIDE = replace(PLAIN, name="parts", parallel=lambda calls: [call() for call in calls])
MORE = mx.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [-1.0, 0.5], [2.0, -3.0], [0.0, 1.0], [4.0, 4.0]])


@pytest.mark.parametrize("verb", [passes.abreast, passes.in_parts])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_gradients_over_parts_are_those_of_the_batch(verb, count):
    batch = (MORE, MORE.sum(axis=1, keepdims=True))
    computation = work(through=(verb(count),))
    done = using(SIDE_BY_SIDE)(computation.gradients)(PARAMS, state(computation), batch)
    whole = work().gradients(PARAMS, state(work()), batch)
    for name in done.grads:
        np.testing.assert_allclose(np.array(done.grads[name]), np.array(whole.grads[name]), rtol=1e-5)
    assert done.logs["loss"].item() == pytest.approx(whole.logs["loss"].item(), rel=1e-6)
    assert done.weights == whole.weights


@pytest.mark.parametrize(("count", "sizes"), [(2, [3, 4]), (3, [2, 2, 3]), (9, [2, 2, 3])])
def test_no_part_has_a_single_row(count, sizes):
    seen = []

    def watched(model, x, y):
        seen.append(len(x))
        return loss(model, x, y)

    batch = (MORE, MORE.sum(axis=1, keepdims=True))
    for verb in (passes.abreast, passes.in_parts):
        seen.clear()
        computation = replace(work(through=(verb(count),)), loss=watched)
        using(SIDE_BY_SIDE)(computation.gradients)(PARAMS, state(computation), batch)
        assert seen == sizes


def test_a_batch_stays_whole_where_the_backend_computes_nothing_side_by_side():
    seen = []

    def watched(model, x, y):
        seen.append(x.shape)
        return loss(model, x, y)

    computation = replace(work(through=(passes.abreast(3),)), loss=watched)
    computation.gradients(PARAMS, state(computation), (X, Y))
    assert seen == [(3, 2)]


def test_an_update_is_the_optimiser_s_and_keeps_what_does_not_train():
    computation = work(chosen=under("bias"))
    grads, rest, after, *_ = computation.gradients(PARAMS, state(computation), (X, Y))
    params, opt_state = computation.update(PARAMS, after, grads, rest)
    assert params["weight"].tolist() == PARAMS["weight"].tolist()
    np.testing.assert_allclose(np.array(params["bias"]), 0.25 - 0.1 * np.array(grads["bias"]), rtol=1e-6)
    assert opt_state["optimizer"]["step"].item() == 1


def test_the_backend_in_use_computes_the_update_and_separates_its_results():
    seen = []

    def update(fn, *trees):
        seen.append("update")
        return fn(*trees)

    def separate(tree, parameter_bytes):
        seen.append(parameter_bytes)
        return tree

    backend = replace(PLAIN, name="watching", update=update, separate=separate)
    computation = work(parameter_bytes=12)
    using(backend)(computation.step)(PARAMS, state(computation), (X, Y))
    assert seen == ["update", 12]


def test_a_whole_step_is_its_two_halves():
    computation = work(metrics=(fp.metrics.mse(),))
    params, opt_state, (logs, weights, examples) = computation.step(PARAMS, state(computation), (X, Y))
    grads, rest, after, *_ = computation.gradients(PARAMS, state(computation), (X, Y))
    again, memory = computation.update(PARAMS, after, grads, rest)
    assert {path: leaf.tolist() for path, leaf in fp.flat([params, opt_state]).items()} == {
        path: leaf.tolist() for path, leaf in fp.flat([again, memory]).items()
    }
    assert logs["loss"].item() > 0
    assert (weights, examples) == ({"loss": 3, "largest": 3}, 3)


def test_parameters_divide_into_those_that_train_and_the_rest():
    kept, rest = split_trainable(nn.batch_norm(2), everything, nn.shapes(nn.batch_norm(2)))
    assert sorted(fp.flat(kept)) == ["bias", "weight"]
    assert sorted(fp.flat(rest)) == ["running_mean", "running_var"]


@pytest.mark.parametrize(("sound", "mean"), [(True, 2.0), (False, 1.0)])
def test_buffers_come_back_unless_a_step_is_sound(sound, mean):
    before, after = {"weight": mx.array(1.0), "mean": mx.array(1.0)}, {"weight": mx.array(1.0), "mean": mx.array(2.0)}
    kept = restore_buffers_unless(mx.array(sound), under("weight"), after, before)
    assert kept["mean"].item() == mean
