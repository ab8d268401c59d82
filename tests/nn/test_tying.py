"""One table as embedding and as head: one array, one path, with the gradient of both uses."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close, assert_same_bits, changed, cross_entropy

import mlx_fp as fp
from mlx_fp import nn, optim, rng

IDS, LABELS = mx.array([1, 2, 5, 1]), mx.array([2, 3, 0, 4])

HEADS = {
    "as_linear": lambda m, x: m.embed.as_linear(x),
    "weight": lambda m, x: x @ m.embed.weight.T,
}


def model(head, embed=None):
    return nn.define(
        lambda m, ids: head(m, mx.tanh(m.body(m.embed(ids)))),
        embed=nn.embedding(6, 32) if embed is None else embed,
        body=nn.linear(32, 32),
    )


def reference(table, body, ids, labels):
    x = mx.tanh(table[ids] @ body["weight"].T + body["bias"])
    return nn.losses.cross_entropy(x @ table.T, labels, reduction="mean")


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


@pytest.mark.usual("weight")
def test_the_table_is_one_array_with_the_gradient_of_both_uses(head):
    layer = model(head)
    step = fp.train_step(layer, cross_entropy, optim.sgd(1.0))
    params, state = step.init(0)
    assert fp.paths()(params) == ("embed.weight", "body.weight", "body.bias")
    table, body = params["embed"]["weight"], params["body"]
    value, (of_table, of_body) = mx.value_and_grad(reference, argnums=(0, 1))(table, body, IDS, LABELS)
    after, _, logs = step(params, state, (IDS, LABELS))
    assert logs["loss"].item() == pytest.approx(value.item(), rel=1e-5)
    expected = {"embed": {"weight": table - of_table}, "body": {k: body[k] - of_body[k] for k in body}}
    assert_close(after, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.usual("as_linear-8-dora", "weight-None-lora", "weight-None-dora", "weight-8-lora", "weight-8-dora")
def test_a_tied_table_with_an_adapter_trains_the_adapter_through_both_uses(head, verb, bits):
    layer = model(head) if bits is None else nn.quantized("embed", bits=bits, group_size=32)(model(head))
    layer = verb("embed", rank=2, scale=2.0)(layer)
    step = fp.train_step(layer, cross_entropy, optim.sgd(0.5))
    start, state = step.init(0)
    start["embed"]["lora_b"] = mx.random.normal((2, 32), key=rng.key(2))
    params = start
    for _ in range(2):
        params, state, _ = step(params, state, (IDS, LABELS))
    trains = {"embed.lora_a", "embed.lora_b"} | ({"embed.m"} if verb is nn.dora else set())
    assert changed(start, params) == trains

    plain = nn.merged(params, dequantize=True)(layer)
    weights = nn.init(0)(plain)
    assert_close(plain.apply(weights, IDS)[0], layer.apply(params, IDS)[0], rtol=1e-3, atol=1e-4)
    if verb is nn.lora:

        def loss(a, b):
            scales = start["embed"]["embedding"]
            base = scales["weight"]
            if bits:
                base = mx.dequantize(base, scales["scales"], scales["biases"], group_size=32, bits=bits)
            return reference(base + 2.0 * a @ b, start["body"], IDS, LABELS)

        first, _, _ = step(start, step.init(start)[1], (IDS, LABELS))
        a, b = start["embed"]["lora_a"], start["embed"]["lora_b"]
        of_a, of_b = mx.grad(loss, argnums=(0, 1))(a, b)
        assert_close(
            [first["embed"]["lora_a"], first["embed"]["lora_b"]], [a - 0.5 * of_a, b - 0.5 * of_b], rtol=1e-3, atol=1e-5
        )


def test_both_heads_are_equal_after_quantising_and_adapting():
    for change in (
        lambda layer: layer,
        nn.quantized("embed", group_size=32),
        nn.lora("embed", rank=2),
        nn.dora("embed", rank=2),
        lambda layer: nn.lora("embed", rank=2)(nn.quantized("embed", group_size=32)(layer)),
    ):
        one, other = (change(model(head)) for head in HEADS.values())
        params = nn.init(0)(one)
        params["embed"] |= {"lora_b": params["embed"]["lora_b"] + 0.1} if "lora_b" in params["embed"] else {}
        assert_close(one.apply(params, IDS)[0], other.apply(params, IDS)[0], rtol=1e-4, atol=1e-4)


def test_the_head_of_a_quantised_table_passes_the_gradient_on():
    layer = nn.quantized("embed", group_size=32)(model(HEADS["weight"]))
    step = fp.train_step(layer, cross_entropy, optim.sgd(0.5))
    start, state = step.init(0)
    after, _, _ = step(start, state, (IDS, LABELS))
    assert changed(start, after) == {"body.weight", "body.bias"}


def test_a_lowered_tied_model_runs_the_module_that_is_there(head):
    layer = model(head)
    params = nn.init(0)(layer)
    module = nn.lower(layer, params)
    assert_same_bits(module(IDS), layer.apply(params, IDS)[0])
    mlx_nn.quantize(module, 32, 8)
    assert isinstance(module.embed, mlx_nn.QuantizedEmbedding)
    assert not mx.array_equal(module(IDS), layer.apply(params, IDS)[0])
    assert mx.allclose(module(IDS), layer.apply(params, IDS)[0], atol=0.3)
