"""Other methods of a lifted module, and modules in it, run on its parameters: in a loss, and in a predictor."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn
import pytest
from helpers import assert_same_bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((16, 6), key=mx.random.key(0))


class Autoencoder(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.norm, self.decoder = mlx.nn.Linear(6, 4), mlx.nn.BatchNorm(2), mlx.nn.Linear(2, 6)

    def encode(self, x, noise=1.0):
        mean, spread = mx.split(self.encoder(x), 2, axis=-1)
        if self.training:
            mean = mean + noise * mx.exp(spread) * mx.random.normal(mean.shape)
        return self.norm(mean)

    def __call__(self, x):
        return self.decoder(self.encode(x))


def apart(model, x):
    """A loss of methods and of a module in the model."""
    return (model.decoder(model.encode(x, noise=0.5)) - x).square().mean()


def at_once(model, x):
    return (model(x) - x).square().mean()


def trained(loss, steps=3, **options):
    step = fp.train_step(nn.lift(Autoencoder), loss, optim.sgd(0.1), **options)
    params, opt_state = step.init(0)
    for _ in range(steps):
        params, opt_state, logs = step(params, opt_state, X)
    return params, logs["loss"].item()


def test_a_loss_may_call_methods_and_modules():
    whole = trained(lambda model, x: (model.decoder(model.encode(x)) - x).square().mean())
    once = trained(at_once)
    assert whole[1] == once[1]
    assert_same_bits(whole[0], once[0])


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("False")
def test_they_draw_move_buffers_and_follow_the_mode(compile):
    params, _ = trained(apart, compile=compile)
    assert params["norm"]["running_mean"].tolist() != [0.0, 0.0]
    step = fp.eval_step(nn.lift(Autoencoder), apart, compile=compile)
    losses = [step(params, {}, X)[1]["loss"].item() for _ in range(2)]
    assert losses[0] == losses[1]


def test_a_method_is_a_layer_for_predictors():
    model = nn.lift(Autoencoder)
    params = nn.init(0)(model)
    encode, decode = (nn.predictor(params)(nn.method(model, name)) for name in ("encode", "decoder"))
    module = nn.lower(model, params).eval()
    assert mx.array_equal(encode(X), module.encode(X))
    assert mx.array_equal(decode(encode(X)), nn.predictor(params)(model)(X))
    assert repr(nn.method(model, "encode")) == "Autoencoder.encode"


def test_it_keeps_what_is_frozen():
    model = pipe(nn.lift(Autoencoder), nn.freeze("encoder"))
    part = nn.method(model, "encode")
    params = nn.init(0)(part)
    assert fp.paths(part.trainable(params))(params) == fp.paths(model.trainable(params))(params)


@pytest.mark.parametrize("name", ["encod", "training"])
def test_a_name_that_is_no_method_says_what_there_is(name):
    with pytest.raises(AttributeError, match=f"unknown method '{name}'.*known: .*encode"):
        nn.method(nn.lift(Autoencoder), name)
    with pytest.raises(AttributeError, match="did you mean 'encode'"):
        trained(lambda model, x: model.encod(x).mean())


def test_a_composition_has_no_methods():
    step = fp.train_step(nn.sequential(nn.linear(6, 2)), lambda model, x: model.encode(x).mean(), optim.sgd(0.1))
    with pytest.raises(AttributeError, match="sequential has no 'encode': methods are those of a lifted module"):
        step(*step.init(0), X)
