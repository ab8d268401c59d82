"""The first layer, forward or backward, that gives a number that is not finite, and the line that computes it."""

from __future__ import annotations

import sys

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits, mean_square

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((4, 3), key=mx.random.key(0))


def found(model, loss=mean_square, optimizer=None, batch=X, change=lambda params: params, **options):
    step = fp.train_step(model, loss, optimizer or optim.sgd(0.1), **options)
    params, opt_state = step.init(0)
    return fp.find_nonfinite(step, change(params), opt_state, batch)


def logarithm(x):
    shifted = x - 1e3
    logs = mx.log(shifted)
    return logs + 1


class Block(mlx_nn.Module):
    """A module with a fault in the module inside it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = mlx_nn.Linear(3, 3), Faulty()

    def __call__(self, x):
        return mlx_nn.relu(self.second(self.first(x)))


class Faulty(mlx_nn.Module):
    """The root of negative numbers."""

    def __call__(self, x):
        return mx.sqrt(-mx.abs(x) - 1)


def test_everything_finite_is_none():
    assert found(nn.sequential(nn.linear(3, 4), nn.dropout(0.5), nn.batch_norm(4))) is None


def test_the_line_of_the_forward_pass():
    place = found(nn.sequential(nn.linear(3, 4), nn.fn(logarithm), nn.linear(4, 1)))
    assert (place.stage, place.path, place.layer) == ("forward", "layers.1", "logarithm")
    assert place.operation.startswith("logs = mx.log(shifted) (test_find_nonfinite.py:")
    assert place.inputs[0].startswith("float32 (4, 4): from ")
    assert place.outputs == ("float32 (4, 4): 16 NaN, 0 infinite",)


def test_a_module_inside_a_lifted_module():
    place = found(nn.sequential(body=nn.lift(Block()), head=nn.linear(3, 1)))
    assert (place.stage, place.path, place.layer) == ("forward", "body.second", "Faulty")
    assert place.operation.startswith("return mx.sqrt(-mx.abs(x) - 1) (test_find_nonfinite.py:")


def test_a_function_of_mlx_is_named():
    place = found(nn.sequential(nn.linear(3, 4), nn.fn(lambda x: x - 9), nn.fn(mx.sqrt)))
    assert (place.path, place.operation) == ("layers.2", "sqrt")


def test_the_gradient_of_a_root_at_zero():
    model = nn.sequential(
        nn.linear(3, 4), nn.fn(lambda x: mx.abs(x * 0), "zero"), nn.fn(mx.sqrt), nn.fn(lambda x: x + 1)
    )
    place = found(model)
    assert (place.stage, place.path, place.layer) == ("backward", "layers.2", "sqrt")
    assert place.inputs == ("float32 (4, 4): from 0 to 0, mean 0",)
    assert "infinite" in place.outputs[0] or "NaN" in place.outputs[0]


def test_the_gradient_within_a_module():
    class Norm(mlx_nn.Module):
        def __call__(self, x):
            return mx.sqrt((x * 0).sum(-1, keepdims=True)) + x

    class Outer(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = mlx_nn.Linear(3, 3), Norm()

        def __call__(self, x):
            return self.norm(self.linear(x))

    place = found(nn.sequential(outer=nn.lift(Outer()), head=nn.linear(3, 1)))
    assert (place.stage, place.path) == ("backward", "outer.norm")


def test_the_loss_function_forward_and_backward():
    model = nn.linear(3, 1)
    place = found(model, lambda m, x: mx.log(-m(x).square().mean() - 1))
    assert (place.stage, place.path, place.inputs[0][:14]) == ("loss", "loss", "float32 (4, 1)")
    place = found(model, lambda m, x: mx.sqrt((m(x) * 0).square().mean()))
    assert (place.stage, place.path) == ("backward", "the loss function")


def test_parameters_and_batch_that_are_not_finite():
    place = found(nn.linear(3, 1), change=fp.swap("bias", mx.array([mx.nan])))
    assert (place.stage, place.path) == ("parameters", "bias")
    place = found(nn.linear(3, 1), lambda m, x, y: m(x).mean(), batch={"x": X, "y": mx.array([1.0, mx.inf, 0.0, 0.0])})
    assert (place.stage, place.path, place.outputs) == ("batch", "y", ("float32 (4,): 0 NaN, 1 infinite",))


def test_an_update_that_overflows():
    place = found(nn.linear(3, 1), lambda m, x: 1e30 * m(x).mean(), optim.sgd(1e30))
    assert (place.stage, place.path) == ("update", "weight")
    assert place.operation.startswith("sgd")


def test_in_a_narrow_step_with_recomputed_parts():
    faulty = nn.sequential(nn.linear(3, 4), nn.fn(lambda x: mx.sqrt(x * 0), "root"), nn.linear(4, 3))
    for wrap in (lambda layer: layer, nn.remat):
        place = found(nn.sequential(a=wrap(faulty), b=nn.linear(3, 1)), dtype=mx.bfloat16)
        assert place.stage == "backward"
        assert place.path.startswith("a")


def test_draws_are_those_of_the_state_and_nothing_changes():
    def rare(x):
        return mx.where(x == 0, mx.nan, x)

    model = nn.sequential(nn.dropout(0.5), nn.fn(rare), nn.linear(3, 1))
    step = fp.train_step(model, mean_square, optim.sgd(0.1))
    params, opt_state = step.init(0)
    before, tracing, key = (params, opt_state), sys.gettrace(), mx.random.state[0].tolist()
    place = fp.find_nonfinite(step, params, opt_state, mx.ones((1, 3)))
    again = fp.find_nonfinite(step, params, opt_state, mx.ones((1, 3)))
    assert place == again
    assert (place is None) == mx.isfinite(step(*before, mx.ones((1, 3)))[2]["loss"]).item()
    assert (sys.gettrace(), mx.random.state[0].tolist()) == (tracing, key)


def test_other_steps_are_refused_and_the_text_has_all():
    with pytest.raises(TypeError, match="find_nonfinite takes a step of fp.train_step; got EvalStep"):
        fp.find_nonfinite(fp.eval_step(nn.linear(3, 1), mean_square), {}, {}, X)
    text = str(found(nn.sequential(nn.linear(3, 4), nn.fn(logarithm))))
    assert text.startswith("forward: layers.1 (logarithm) is the first that is not finite\n  operation: logs = mx.log")
    assert "\n  input float32 (4, 4)" in text
    assert "\n  output float32 (4, 4)" in text


def test_a_state_is_not_changed():
    step = fp.train_step(nn.linear(3, 1), mean_square, optim.adam(0.1))
    params, opt_state = step.init(0)
    copies = step.init(0)
    fp.find_nonfinite(step, params, opt_state, X)
    assert_same_bits([params, opt_state], list(copies))
