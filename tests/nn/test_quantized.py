"""Quantised layers by path: MLX's own bits, frozen, in compositions and inside lifted modules."""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits, changed, mean_square
from mlx.utils import tree_flatten

import mlx_fp as fp
from mlx_fp import nn, optim, rng

X = mx.random.normal((5, 64), key=rng.key(0))


def net():
    return mlx_nn.Sequential(mlx_nn.Linear(64, 64), mlx_nn.ReLU(), mlx_nn.Linear(64, 32, bias=False))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bits": 8, "group_size": 32},
        {"bits": 3},
        {"mode": "mxfp4"},
        {"mode": "nvfp4"},
        {"mode": "mxfp8"},
    ],
    ids=str,
)
@pytest.mark.parametrize("native", [False, True])
def test_the_arrays_are_those_of_mlx(options, native):
    module = net()
    layer = nn.sequential(*module.layers) if native else nn.split(module)[0]
    layer = nn.quantized(**options)(layer)
    params = nn.init(3)(layer)
    mlx_nn.quantize(module, **options)
    assert_same_bits(dict(sorted(fp.flat(params).items())), dict(sorted(tree_flatten(module.parameters()))))
    assert_same_bits(layer.apply(params, X)[0], module(X))


def test_quantised_weights_never_train_even_unfrozen():
    layer = nn.unfreeze()(nn.quantized("layers.0", group_size=32)(nn.split(net())[0]))
    params = nn.shapes(layer)
    assert fp.paths(layer.trainable(params))(params) == ("layers.0.bias", "layers.2.weight")
    step = fp.train_step(layer, mean_square, optim.sgd(0.1))
    start, state = step.init(nn.init(0)(layer))
    after, _, _ = step(start, state, X)
    assert changed(start, after) == {"layers.0.bias", "layers.2.weight"}
    frozen = nn.quantized("layers.0")(nn.freeze("layers.0")(nn.split(net())[0]))
    assert fp.paths(frozen.trainable(nn.shapes(frozen)))(params) == ("layers.2.weight",)


def test_quantised_layers_in_wrappers():
    model = nn.sequential(nn.remat(nn.linear(64, 64)), nn.wide(nn.linear(64, 64)), nn.frozen(nn.linear(64, 64)))
    layer = nn.quantized()(model)
    assert "quantised" not in repr(layer)
    assert repr(layer).count("QuantizedLinear") == 3
    step = fp.train_step(layer, mean_square, optim.sgd(0.1))
    start, state = step.init(0)
    after, _, _ = step(start, state, X)
    assert changed(start, after) == {"layers.0.bias", "layers.1.bias"}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: nn.quantized("layers.1")(nn.split(net())[0]),
            KeyError,
            "'layers.1' matches no part that can be quant",
        ),
        (lambda: nn.quantized()(nn.relu6()), ValueError, "nothing to quantise"),
        (lambda: nn.quantized()(nn.linear(48, 4)), ValueError, "48 inputs, which is no multiple of the group size 64"),
        (lambda: nn.quantized(mode="afine"), ValueError, "unknown mode of quantized, 'afine': did you mean 'affine'"),
        (lambda: nn.quantized(bits=0), ValueError, "bits of quantized is a count, 1 or more, or None; got 0"),
        (lambda: nn.quantized(bits=7)(nn.linear(64, 4)), ValueError, "bits"),
        (lambda: nn.quantized()(net()), TypeError, "quantized takes a Layer"),
    ],
)
def test_wrong_use_is_told(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_an_error_names_the_path():
    with pytest.raises(ValueError, match="multiple of the group size 128") as caught:
        nn.quantized(re.compile("2$"), group_size=128)(nn.split(net())[0])
    assert "at path=layers.2" in caught.value.__notes__
