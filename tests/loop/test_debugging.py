"""A run with debug=True names the layer behind a loss that is not finite."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_same_run, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((24, 3), key=mx.random.key(0))
TRAIN = pipe(data.arrays(x=X, y=X[:, :2]), data.batch(4))


def fading():
    """A model whose middle is a root of parameters that fall below zero after some steps."""
    return nn.sequential(
        scale=nn.define(lambda m, x: x * mx.sqrt(m.level), level=nn.param(1, init=0.25)), head=nn.linear(3, 2)
    )


def falling(model, x, y):
    return model(x).square().mean() + model.params["scale"]["level"].sum()


def trained(model, loss, *verbs, optimizer=None, **options):
    target = pipe(fp.trainer(model, loss), fp.with_optimizer(optimizer or optim.sgd(0.1)), *verbs)
    return fp.fit(TRAIN, **{"epochs": 2, "quiet": True, **options})(target)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.usual("False-False", "True-True", "True-False")
def test_the_layer_of_a_loss_that_becomes_nan(compile, halves):
    hooks = [fp.on("after_backward", lambda event: None)] if halves else []
    with pytest.raises(FloatingPointError, match="the loss is nan\nforward: scale") as caught:
        trained(fading(), falling, *hooks, debug=True, compile=compile)
    assert "x * mx.sqrt(m.level)" in str(caught.value)
    assert caught.value.__notes__ == ["at split=train, epoch=0, batch=2, stage=step"]


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.usual("True")
def test_a_finite_loss_with_gradients_that_are_not_names_the_layer_at_once(halves):
    hooks = [fp.on("after_backward", lambda event: None)] if halves else []
    model = nn.sequential(nn.linear(3, 2), nn.fn(lambda x: mx.sqrt(mx.abs(x * 0)), "root"))
    with pytest.raises(FloatingPointError, match=r"and the update is not finite\nbackward: layers.1 \(root\)"):
        trained(model, fp.regression(), *hooks, debug=True)


def test_a_finite_run_has_the_same_bits():
    plain, debugged = (trained(small_net(), fp.regression(), debug=debug) for debug in (False, True))
    assert_same_run(plain, debugged)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 2}, "accumulate=2 makes other steps"),
        ({"steps_per_call": 2}, "steps_per_call=2 makes other steps"),
        ({"nonfinite": "skip"}, "nonfinite='skip' does not"),
    ],
)
def test_options_that_do_not_go_with_it(options, message):
    with pytest.raises(ValueError, match=message):
        trained(small_net(), fp.regression(), debug=True, **options)
