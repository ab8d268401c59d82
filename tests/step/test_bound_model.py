"""The model within a loss: on other parameters, without gradients."""

from __future__ import annotations

import mlx.core as mx
from helpers import assert_close, assert_same_bits, small_net
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import metrics, nn, optim

X = mx.random.normal((6, 3), key=mx.random.key(1))
Y = mx.array([0, 1, 0, 1, 1, 0])


def halved(params):
    return tree_map(lambda leaf: leaf * 0.5, params)


def test_other_parameters_give_the_output_in_evaluation_mode_and_no_gradient():
    model = small_net()
    params = nn.init(0)(model)
    target = nn.predictor(halved(params))(model)(X)
    mx.eval(target)

    def with_itself(forward, x, y):
        other = forward.evaluated_at(halved(forward.params))(x)
        return (forward(x) - other).square().mean()

    def with_target(forward, x, y):
        return (forward(x) - target).square().mean()

    for compile in (True, False):
        results = []
        for loss in (with_itself, with_target):
            step = fp.train_step(model, loss, optim.sgd(0.1), metrics=[metrics.accuracy()], compile=compile)
            results.append(step(*step.init(params, seed=2), (X, Y)))
        assert_close(results[0][0], results[1][0])  # the buffers, too, which only the training call moves
        assert_same_bits(results[0][1]["metrics"], results[1][1]["metrics"])  # its output is that of the one call


def test_other_parameters_are_cast_as_the_model_is():
    model = nn.linear(3, 2)
    params = nn.init(0)(model)
    step = fp.train_step(
        model, lambda f, x: (f(x) - f.evaluated_at(f.params)(x)).square().mean(), optim.sgd(0.1), dtype=mx.bfloat16
    )
    assert step(*step.init(params), X)[2]["loss"].item() == 0.0
