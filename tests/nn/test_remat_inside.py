"""Modules inside a lifted module are recomputed by path: gradients, buffers and random numbers keep their bits."""

from __future__ import annotations

import pickle
import re
from functools import partial

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits, mean_square

import mlx_fp as fp
from mlx_fp import nn, optim, rng

X = mx.random.normal((4, 5, 8), key=rng.key(0))


class Net(mlx_nn.Module):
    """Two blocks with dropout, running statistics, a part that is used twice, and attributes that its owner reads."""

    def __init__(self, checkpoint=False, drop=0.3):
        super().__init__()
        self.encoder = mlx_nn.TransformerEncoder(2, 8, 2, 16, dropout=drop, checkpoint=checkpoint)
        self.norm = mlx_nn.BatchNorm(8)
        self.shared = mlx_nn.Linear(8, 8)
        self.again = self.shared
        self.noted = Noted()

    def __call__(self, x):
        y = self.again(self.shared(self.norm(self.encoder(x, None))))
        return self.noted(y, scale=self.noted.scale) + self.noted.penalty


class Noted(mlx_nn.Module):
    """A module that leaves a value in an attribute, as a router leaves its auxiliary loss."""

    def __init__(self):
        super().__init__()
        self.scale, self.by = 2.0, mlx_nn.Linear(8, 8)
        self._penalty = None

    def __call__(self, x, *, scale):
        y = self.by(x) * scale
        self._penalty = y.square().mean()
        return y

    @property
    def penalty(self):
        return self._penalty


def lifted(**options):
    return nn.lift(partial(Net, **options))


def gradients(layer, **options):
    step = fp.train_step(layer, mean_square, optim.sgd(0.1), **options)
    return step.gradients(*step.init(0), X)


SPECS = {
    "each module of a list": "encoder.layers",
    "a module around others": "encoder",
    "running statistics": "norm",
    "a shared module": "shared",
    "a pattern": re.compile(r"layers\.\d+$"),
    "several": ["encoder.layers.0", "norm"],
    "a module and one inside it": ["encoder", "encoder.layers.1.linear1"],
}


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("case", SPECS)
def test_the_same_bits(case, compile):
    plain = gradients(lifted(), compile=compile)
    again = gradients(nn.remat(SPECS[case])(lifted()), compile=compile)
    assert_same_bits(plain.grads, again.grads)
    assert_same_bits(plain.rest, again.rest)
    assert_same_bits(plain.opt_state, again.opt_state)
    assert plain.logs["loss"].item() == again.logs["loss"].item()


@pytest.mark.slow
def test_a_value_that_the_module_leaves_in_an_attribute_has_its_gradient():
    """The gradient is the same sum in another order."""
    plain, again = gradients(lifted()), gradients(nn.remat("noted")(lifted()))
    assert plain.logs["loss"].item() == again.logs["loss"].item()
    for path, leaf in fp.flat(plain.grads).items():
        assert mx.allclose(leaf, fp.flat(again.grads)[path], rtol=1e-4, atol=1e-6), path


def test_it_computes_again():
    calls = []

    class Counted(mlx_nn.Linear):
        def __call__(self, x):
            calls.append(self.training)
            return super().__call__(x)

    class Two(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Counted(8, 8), Counted(8, 8)

        def __call__(self, x):
            return self.b(self.a(x))

    model = nn.remat("a")(nn.lift(Two))
    gradients(model, compile=False)
    assert len(calls) == 3
    model.apply(nn.init(0)(model), X)
    assert calls[3:] == [False, False]


@pytest.mark.parametrize("options", [{"parts": 2}, {"dtype": mx.bfloat16}, {"streams": 2}], ids=str)
@pytest.mark.usual("{'parts': 2}")
def test_ways_of_computing_a_step(options):
    plain, again = (gradients(layer, **options) for layer in (lifted(), nn.remat("encoder.layers")(lifted())))
    assert_same_bits(plain.grads, again.grads)
    assert_same_bits(plain.rest, again.rest)


@pytest.mark.slow
def test_accumulated_updates():
    ends = []
    for layer in (lifted(), nn.remat("encoder.layers")(lifted())):
        step = fp.train_step(layer, mean_square, optim.adam(0.01))
        params, state, _ = step.accumulate(*step.init(0), [X, X + 1])
        ends.append((params, state))
    assert_same_bits(*[params for params, _ in ends])


def test_paths_names_rules_and_the_template_stay():
    plain = nn.freeze("encoder.layers.0")(lifted())
    layer = nn.remat("encoder.layers")(plain)
    params = nn.init(0)(layer)
    assert_same_bits(params, nn.init(0)(plain))
    assert fp.paths(layer.trainable(params))(params) == fp.paths(plain.trainable(params))(params)
    assert type(nn.lower(layer, params).encoder.layers[0]) is mlx_nn.TransformerEncoderLayer
    assert_same_bits(gradients(plain).grads, gradients(layer).grads)


def test_it_goes_through_pickle():
    layer = pickle.loads(pickle.dumps(nn.remat("encoder.layers")(nn.lift(mlx_nn.Transformer, 8, 2, 1, 1, 16))))
    params = nn.init(0)(layer)
    assert layer.apply(params, X, X, None, None, None, train=True, key=1)[0].shape == X.shape


def test_quantised_weights_inside():
    class Coded(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.coded = mlx_nn.Linear(8, 64), mlx_nn.QuantizedLinear(64, 64)

        def __call__(self, x):
            return self.coded(self.up(x))

    plain, again = (gradients(make(nn.lift(Coded))) for make in (lambda layer: layer, nn.remat(["up", "coded"])))
    assert_same_bits(plain.grads, again.grads)


def test_a_spec_that_matches_nothing_names_the_nearest_modules():
    with pytest.raises(KeyError, match="'encoder.layer' matches no part of Net; nearest: encoder.layers"):
        nn.remat("encoder.layer")(lifted())


@pytest.mark.slow
def test_a_language_model_whose_owner_reads_attributes_of_its_blocks():
    llama = pytest.importorskip("mlx_lm.models.llama")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 2}
    args = llama.ModelArgs(model_type="llama", rms_norm_eps=1e-5, vocab_size=32, **sizes)
    layer, _ = nn.split(llama.Model(args))
    tokens = mx.random.randint(0, 32, (2, 8), key=rng.key(1))
    loss = lambda model, x: nn.losses.cross_entropy(model(x[:, :-1]), x[:, 1:], reduction="mean")
    adapted = nn.lora("model.layers", rank=2, dropout=0.1)(layer)
    for plain in (layer, adapted):
        steps = [fp.train_step(each, loss, optim.adam(0.01)) for each in (plain, nn.remat("model.layers")(plain))]
        ends = [step(*step.init(0), tokens) for step in steps]
        assert_same_bits(*[list(end) for end in ends])


class TestPartsOfCompositions:
    def model(self):
        block = nn.residual(nn.sequential(nn.linear(8, 8), nn.dropout(0.4), nn.batch_norm(8)))
        body = nn.sequential(nn.freeze("layers.0.layers.0.bias")(block), nn.frozen(block))
        return nn.sequential(embed=nn.linear(8, 8), body=body, net=lifted(), head=nn.share(2, nn.linear(8, 8)))

    @pytest.mark.parametrize(
        "spec", ["body", "body.layers", ["body.layers.0", "net.encoder.layers", "head"], "net"], ids=str
    )
    def test_the_same_bits(self, spec):
        plain, layer = self.model(), nn.remat(spec)(self.model())
        params = nn.init(0)(plain)
        assert_same_bits(params, nn.init(0)(layer))
        assert fp.paths(layer.trainable(params))(params) == fp.paths(plain.trainable(params))(params)
        one, other = gradients(plain), gradients(layer)
        assert_same_bits(one.grads, other.grads)
        assert_same_bits(one.rest, other.rest)

    def test_the_parts_are_wrapped_once(self):
        layer = nn.remat(["body", "body.layers.1"])(self.model())
        assert repr(layer).count("remat(") == 1

    @pytest.mark.slow
    def test_adapters_after_and_before(self):
        ways = [
            nn.lora("encoder.layers")(lifted()),
            nn.remat("encoder.layers")(nn.lora("encoder.layers")(lifted())),
            nn.lora("encoder.layers")(nn.remat("encoder.layers")(lifted())),
        ]
        plain, *others = [gradients(layer, trainable=re.compile("lora_b")) for layer in ways]
        for other in others:
            assert_same_bits(plain.grads, other.grads)

    def test_a_part_that_cannot_be_reached(self):
        inner = nn.linear(8, 8)
        layer = nn.layer(
            lambda: {"inner": inner.init()}, lambda p, xs, kw, train: (xs[0], p), parts=(("inner", inner),)
        )
        with pytest.raises(TypeError, match="rebuild"):
            nn.remat("inner")(layer)


class TestForeignCheckpoints:
    """`mx.checkpoint` inside a lifted module: right without random numbers, refused with them."""

    @pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
    @pytest.mark.usual("eager")
    def test_an_option_of_the_module(self, compile):
        plain = gradients(lifted(drop=0.0), compile=compile)
        assert_same_bits(plain.grads, gradients(lifted(drop=0.0, checkpoint=True), compile=compile).grads)
        mx.random.seed(3)
        with pytest.raises(ValueError, match=r"mx.checkpoint recomputed a part with dropout.*nn.remat\(spec\)"):
            gradients(lifted(checkpoint=True), compile=compile)
        drawn = mx.random.uniform().item()
        mx.random.seed(3)
        assert mx.random.uniform().item() == drawn

    def test_a_function_that_the_module_makes(self):
        class Wrapping(Net):
            def __call__(self, x):
                return mlx_nn.utils.checkpoint(self.encoder)(x, None)

        plain = gradients(nn.lift(partial(Wrapping, drop=0.0)))
        assert mx.abs(plain.grads["encoder"]["ln"]["weight"]).max().item() > 0
        with pytest.raises(ValueError, match="mx.checkpoint recomputed"):
            gradients(nn.lift(Wrapping))

    def test_a_class_that_is_patched(self, monkeypatch):
        trainer = pytest.importorskip("mlx_lm.tuner.trainer")
        plain = gradients(lifted(drop=0.0))
        call = mlx_nn.TransformerEncoderLayer.__call__
        monkeypatch.setattr(mlx_nn.TransformerEncoderLayer, "__call__", call)  # put back at the end
        trainer.grad_checkpoint(Net().encoder.layers[0])
        assert_same_bits(plain.grads, gradients(lifted(drop=0.0)).grads)
        with pytest.raises(ValueError, match="mx.checkpoint recomputed"):
            gradients(lifted())
