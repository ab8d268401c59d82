"""A lowered composition consists of modules of mlx.nn, and runs those that stand in it now."""

from __future__ import annotations

import pickle

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.optimizers as mlx_optimizers
import pytest
from helpers import assert_close, assert_same_bits, changed, mean_square
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.tuner.utils import linear_to_lora_layers

import mlx_fp as fp
from mlx_fp import nn, rng

X = mx.random.normal((6, 32), key=rng.key(0))


def model(**parts):
    """A composition with wrappers, a method, a buffer and arrays of its own."""
    return nn.sequential(
        nn.remat(nn.sequential(proj=nn.linear(32, 32), drop=nn.dropout(0.5))),
        nn.residual(nn.wide(nn.linear(32, 32)), nn.batch_norm(32)),
        nn.share(2, nn.linear(32, 32)),
        nn.frozen(nn.linear(32, 32)),
        nn.define(lambda m, x: m.inner(x) * m.scale, inner=nn.linear(32, 32), scale=nn.param(32, init=1.5)),
        **parts,
    )


LINEAR = ["layers.0.proj", "layers.1.layers.0", "layers.2", "layers.3", "layers.4.inner"]


def lowered(layer=None, seed=0):
    layer = layer or model()
    params = nn.init(seed)(layer)
    return layer, params, nn.lower(layer, params)


def linear_paths(module, kind=mlx_nn.Linear):
    return [path for path, each in module.named_modules() if isinstance(each, kind)]


def test_its_parts_are_the_modules_that_were_lifted():
    layer, params, module = lowered()
    assert sorted(linear_paths(module)) == LINEAR
    leaves = tree_flatten(module.leaf_modules(), is_leaf=mlx_nn.Module.is_module)
    assert {path for path, each in leaves if isinstance(each, mlx_nn.Linear)} == set(LINEAR)
    assert list(dict(tree_flatten(module.parameters()))) == list(fp.flat(params))
    assert_same_bits(module.eval()(X), layer.apply(params, X)[0])
    mx.random.seed(4)
    expected = layer.apply(params, X, train=True, key=4)
    assert_same_bits(module.train()(X), expected[0])
    assert_same_bits(fp.restore_like(params, dict(tree_flatten(module.parameters()))), expected[1])


def test_mlx_quantises_it_and_it_runs_the_quantised_modules():
    layer, _, module = lowered()
    mlx_nn.quantize(module.eval(), 32, 8)
    assert sorted(linear_paths(module, mlx_nn.QuantizedLinear)) == LINEAR
    ours = nn.quantized(bits=8, group_size=32)(layer)
    assert_same_bits(module(X), ours.apply(nn.init(0)(ours), X)[0])


def test_the_adapters_of_mlx_lm_are_found_run_and_trained():
    layer, params, module = lowered()
    module.freeze()
    linear_to_lora_layers(module, 5, {"rank": 2, "scale": 4.0, "dropout": 0.0, "keys": LINEAR})
    assert sorted(linear_paths(module, LoRALinear)) == LINEAR
    assert_same_bits(module.eval()(X), layer.apply(params, X)[0])
    start = tree_map(lambda leaf: leaf + 0, module.parameters())
    loss = mlx_nn.value_and_grad(module, mean_square)
    optimizer = mlx_optimizers.Adam(0.01)
    for _ in range(2):  # after the first update no lora_b is 0, and so each lora_a has a gradient
        _, grads = loss(module, X)
        optimizer.update(module, grads)
    after = module.parameters()
    assert changed(start, after) == {f"{path}.{name}" for path in LINEAR for name in ("lora_a", "lora_b")}
    adapted = nn.lora(LINEAR, rank=2, scale=4.0)(layer)
    same = fp.restore_like(nn.shapes(adapted), dict(tree_flatten(after)))
    assert_same_bits(module(X), adapted.apply(same, X)[0])


def test_a_module_put_into_it_runs():
    _, _, module = lowered(nn.sequential(first=nn.linear(32, 32), last=nn.linear(32, 4)))
    module.update_modules({"last": mlx_nn.Sequential(mlx_nn.Linear(32, 8), mlx_nn.ReLU())})
    assert_same_bits(module(X), mx.maximum(module.last.layers[0](module.first(X)), 0))


@pytest.mark.parametrize("wrap", [nn.remat, nn.wide, nn.frozen, lambda part: nn.share(2, part)])
def test_a_wrapped_lifted_model_has_the_modules_inside_it(wrap):
    layer, params, module = lowered(wrap(nn.lift(mlx_nn.Sequential, mlx_nn.Linear(32, 32), mlx_nn.Linear(32, 32))))
    assert sorted(linear_paths(module.eval())) == ["layers.0", "layers.1"]
    assert_same_bits(module(X), layer.apply(params, X)[0])
    mlx_nn.quantize(module, 32, 8)
    assert not mx.array_equal(module(X), layer.apply(params, X)[0])
    ours = nn.quantized(bits=8, group_size=32)(layer)
    assert_close(module(X), ours.apply(nn.init(0)(nn.pretrained(nn.init(0)(ours))(ours)), X)[0])


def test_a_wrapped_leaf_computes_trains_and_comes_back():
    layer, params, module = lowered(nn.remat(nn.linear(32, 4)))
    assert_same_bits(module(X), layer.apply(params, X)[0])
    _, grads = mlx_nn.value_and_grad(module, mean_square)(module, X)
    _, expected = mx.value_and_grad(lambda p: mean_square(lambda x: layer.apply(p, x)[0], X))(params)
    assert_close(grads, expected)


def test_what_was_replaced_comes_back_with_split_and_pickle():
    layer, params, module = lowered()
    mlx_nn.quantize(module, 32, 8)
    again, weights = nn.split(module)
    assert_same_bits(again.apply(weights, X)[0], module.eval()(X))
    assert set(fp.paths(again.trainable(weights))(weights)) == set(dict(tree_flatten(module.trainable_parameters())))
    copy = nn.lower(again, weights).eval()
    assert_same_bits(copy(X), module(X))
    assert sorted(linear_paths(copy, mlx_nn.QuantizedLinear)) == LINEAR
    adapted = nn.lora("layers.0", rank=2)(nn.split(nn.lower(*lowered()[:2]))[0])
    start = nn.init(1)(adapted)
    assert_same_bits(adapted.apply(start, X)[0], layer.apply(params, X)[0])


def test_a_split_lowered_composition_goes_through_pickle():
    plain = nn.sequential(nn.remat(nn.linear(32, 8)), head=nn.linear(8, 2))
    layer, params = nn.split(nn.lower(*lowered(plain)[:2]))
    again = pickle.loads(pickle.dumps(layer))
    assert_same_bits(again.apply(params, X)[0], plain.apply(params, X)[0])


def test_buffers_of_the_modules_inside_stay_buffers():
    layer, params = nn.split(lowered()[2])
    trains = fp.paths(nn.unfreeze()(layer).trainable(params))(params)
    assert not any("running" in path for path in trains)


def test_mlx_lm_finds_the_layers_inside_blocks_by_itself():
    """`linear_to_lora_layers` takes the linear layers inside the last entries of `module.layers`."""
    block = nn.residual(nn.sequential(up=nn.linear(32, 32), down=nn.linear(32, 32)))
    layer, params, module = lowered(nn.sequential(block, block, block))
    module.freeze()
    linear_to_lora_layers(module, 2, {"rank": 2, "scale": 4.0, "dropout": 0.0})
    found = {f"layers.{i}.layers.0.{name}" for i in (1, 2) for name in ("up", "down")}
    assert set(linear_paths(module, LoRALinear)) == found
    assert_same_bits(module(X), layer.apply(params, X)[0])
