"""Adapters give mlx-lm's own bits: outputs, gradients, draws of dropout, and the weights with adapters in them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear

import mlx_fp as fp
from mlx_fp import nn, rng

X = mx.random.normal((5, 64), key=rng.key(0))
IDS = mx.array([[1, 2, 0], [9, -1, 2]])
ROWS, EXPERTS = (
    mx.random.normal((6, 1, 1, 64), key=rng.key(1)),
    mx.array([[0, 2], [1, 1], [2, 0], [0, 1], [1, 2], [2, 2]]),
)


def quantized(module, bits=4):
    return module.to_quantized(group_size=32, bits=bits)


BASES = {
    "linear": lambda: mlx_nn.Linear(64, 32),
    "linear without bias": lambda: mlx_nn.Linear(64, 32, bias=False),
    "quantised linear": lambda: quantized(mlx_nn.Linear(64, 32)),
    "quantised linear, 6 bits": lambda: quantized(mlx_nn.Linear(64, 32, bias=False), 6),
    "bfloat16": lambda: cast(mlx_nn.Linear(64, 32)),
    "embedding": lambda: mlx_nn.Embedding(10, 64),
    "quantised embedding": lambda: quantized(mlx_nn.Embedding(10, 64)),
    "experts": lambda: SwitchLinear(64, 32, 3),
    "quantised experts": lambda: SwitchLinear(64, 32, 3, bias=False).to_quantized(group_size=32, bits=4),
}
LORA = {"embedding": LoRAEmbedding, "experts": LoRASwitchLinear}
DORA = {"embedding": DoRAEmbedding}
CASES = [(nn.lora, name) for name in BASES] + [
    (nn.dora, name) for name in BASES if "experts" not in name and name != "quantised embedding" and "6" not in name
]


def cast(module):
    module.set_dtype(mx.bfloat16)
    return module


def inputs(name):
    if "experts" in name:
        return (ROWS, EXPERTS)
    return (IDS,) if "embedding" in name else (X.astype(mx.bfloat16) if name == "bfloat16" else X,)


def pair(verb, name, dropout=0.0):
    """Return our layer and mlx-lm's module, with the same arrays, none of them 0."""
    mx.random.seed(3)
    base = BASES[name]()
    kind = name.removeprefix("quantised ")
    theirs = (LORA.get(kind, LoRALinear) if verb is nn.lora else DORA.get(kind, DoRALinear)).from_base(
        base, r=4, scale=2.5, dropout=dropout
    )
    theirs.lora_b = mx.random.normal(theirs.lora_b.shape, key=rng.key(5)) / 8
    if "m" in theirs:
        theirs.m = theirs.m * 1.25
    layer = verb(lambda path: True, rank=4, scale=2.5, dropout=dropout)(nn.split(base)[0])
    params = fp.restore_like(nn.shapes(layer), dict(tree_flatten(theirs.parameters())))
    return layer, params, theirs


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("verb", "name"), CASES, ids=[f"{verb.__name__} {name}" for verb, name in CASES])
def test_outputs_and_gradients_have_the_bits_of_mlx_lm(verb, name, dropout):
    layer, params, theirs = pair(verb, name, dropout)
    assert list(fp.flat(params)) == list(dict(tree_flatten(theirs.parameters())))
    xs = inputs(name)
    assert_same_bits(layer.apply(params, *xs)[0], theirs.eval()(*xs))

    trained, rest = fp.partition(layer.trainable(params))(params)
    mine = mx.value_and_grad(
        lambda trained: layer.apply(fp.merge(trained, rest), *xs, train=True, key=11)[0].square().sum()
    )(trained)
    theirs.train()
    theirs[next(iter(theirs))].freeze()
    mx.random.seed(11)
    value, grads = mlx_nn.value_and_grad(theirs, lambda *xs: theirs(*xs).square().sum())(*xs)
    assert_same_bits(mine[0], value)
    assert_same_bits(mine[1], fp.restore_like(trained, dict(tree_flatten(grads))))
    assert len(fp.flat(grads)) == (2 if verb is nn.lora else 3)


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
@pytest.mark.parametrize("name", ["embedding", "quantised embedding"])
def test_a_table_as_a_head_has_the_bits_of_mlx_lm(verb, name):
    if (verb, name) == (nn.dora, "quantised embedding"):
        layer = verb(lambda path: True, rank=4)(nn.split(BASES[name]())[0])  # mlx-lm has none
        params = nn.init(0)(layer)
        plain = nn.split(BASES["quantised embedding"]())[0].apply(params["embedding"], IDS)[0]
        assert mx.allclose(layer.apply(params, IDS)[0], plain, atol=1e-5)
        return
    layer, params, theirs = pair(verb, name)
    assert_same_bits(nn.method(layer, "as_linear").apply(params, X)[0], theirs.as_linear(X))


@pytest.mark.parametrize("dequantize", [False, True])
@pytest.mark.parametrize(("verb", "name"), CASES, ids=[f"{verb.__name__} {name}" for verb, name in CASES])
def test_merged_weights_have_the_bits_of_mlx_lm(verb, name, dequantize):
    layer, params, theirs = pair(verb, name)
    plain = nn.merged(params, dequantize=dequantize)(layer)
    weights = nn.init(0)(plain)
    theirs_fused = theirs.fuse(dequantize=dequantize)
    expected = dict(tree_flatten(theirs_fused.parameters()))
    if (verb, name) == (nn.dora, "bfloat16"):  # mlx-lm makes float32 of it
        expected["weight"] = expected["weight"].astype(mx.bfloat16)
    assert_same_bits(dict(sorted(fp.flat(weights).items())), dict(sorted(expected.items())))
    assert plain.name == type(theirs_fused).__name__
    xs = inputs(name)
    if dequantize or "quantised" not in name:
        near = 0.1 if name == "bfloat16" else 1e-4
        assert mx.allclose(plain.apply(weights, *xs)[0], layer.apply(params, *xs)[0], rtol=near, atol=near)


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
def test_the_weight_of_an_adapted_module_is_the_matrix_that_it_computes_with(verb):
    for name in ("linear without bias", "quantised linear, 6 bits"):
        layer = verb(rank=4, scale=2.5)(nn.split(BASES[name]())[0])
        params = nn.init(0)(layer)
        params["lora_b"] = mx.random.normal(params["lora_b"].shape, key=rng.key(5))
        module = nn.lower(layer, params)
        assert mx.allclose(X @ module.weight.T, module(X), rtol=1e-4, atol=1e-4)


def test_ids_out_of_range_are_nan_in_an_adapted_table_too():
    for verb in (nn.lora, nn.dora):
        layer = verb(lambda path: True)(nn.embedding(10, 8))
        params = nn.init(0)(layer)
        rows = layer.apply(params, mx.array([3, 10, 2**31 - 1]))[0]
        assert mx.isnan(rows).any(axis=-1).tolist() == [False, True, True]
