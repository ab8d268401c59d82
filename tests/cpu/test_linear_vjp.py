"""The dense product equals mlx.nn.Linear's, under every transform; its gradient has the layout of the weight."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.core.backend import using
from mlx_fp.cpu._backend import STOCK
from mlx_fp.tree._paths import flat

SHAPES = {1: (4,), 2: (5, 4), 3: (2, 3, 4), 4: (2, 1, 3, 4)}
on_cpus = using(STOCK)
BIAS = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])


def pair(bias, dtype=mx.float32):
    """Our apply and mlx's own as functions of parameters and inputs, with parameters."""
    layer, module = nn.linear(4, 3, bias=bias), mlx_nn.Linear(4, 3, bias=bias)
    params = {path: leaf.astype(dtype) for path, leaf in nn.init(2)(layer).items()}

    def theirs(params, x):
        product = x @ params["weight"].T
        return product + params["bias"] if bias else product

    module.update(params)
    assert mx.array_equal(module(mx.ones((2, 4), dtype)), layer.apply(params, mx.ones((2, 4), dtype))[0])
    return on_cpus(lambda params, x: layer.apply(params, x, train=True)[0]), theirs, params


def x_of(rank, dtype=mx.float32):
    return mx.random.normal(SHAPES[rank], key=rng.key(rank)).astype(dtype)


def cubed(f):
    return lambda params, x: (f(params, x) ** 3).sum()


@BIAS
@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_values_and_gradients(bias, rank, dtype):
    ours, theirs, params = pair(bias, dtype)
    x, tolerance = x_of(rank, dtype), 1e-5 if dtype == mx.float32 else 0.1
    assert_close(ours(params, x), theirs(params, x), rtol=tolerance, atol=tolerance)
    both = [mx.grad(cubed(f), argnums=(0, 1))(params, x) for f in (ours, theirs)]
    assert_close(list(both[0]), list(both[1]), rtol=tolerance, atol=tolerance)


@BIAS
def test_the_product_is_the_mlx_layer_s_bit_for_bit(bias):
    layer, module = nn.linear(4, 3, bias=bias), mlx_nn.Linear(4, 3, bias=bias)
    params = nn.init(2)(layer)
    module.update(params)
    for rank in SHAPES:
        assert mx.array_equal(layer.apply(params, x_of(rank))[0], module(x_of(rank)))


@BIAS
@pytest.mark.parametrize("compiled", [False, True])
def test_a_second_derivative(bias, compiled):
    def slope(f):
        grad = mx.grad(cubed(f), argnums=(0, 1))

        def squared(params, x):
            dp, dx = grad(params, x)
            return (dp["weight"] ** 2).sum() + (dx**2).sum()

        twice = mx.grad(squared, argnums=(0, 1))
        return mx.compile(twice) if compiled else twice

    ours, theirs, params = pair(bias)
    both = [slope(f)(params, x_of(2)) for f in (ours, theirs)]
    assert_close(both[0], both[1], rtol=1e-3, atol=1e-3)


@BIAS
@pytest.mark.parametrize("mapped", ["x", "params", "both"])
def test_under_vmap(bias, mapped):
    ours, theirs, params = pair(bias)
    xs = mx.stack([x_of(2), 2 * x_of(2)]) if mapped != "params" else x_of(2)
    many = {path: mx.stack([leaf, leaf + 1]) for path, leaf in params.items()} if mapped != "x" else params
    axes = (None if mapped == "x" else 0, None if mapped == "params" else 0)
    for make in (lambda f: f, lambda f: mx.grad(cubed(f)), lambda f: mx.grad(cubed(f), argnums=1)):
        both = [mx.vmap(make(f), in_axes=axes)(many, xs) for f in (ours, theirs)]
        assert_close(both[0], both[1], rtol=1e-3, atol=1e-3)
    both = [mx.grad(lambda p, x, f=f: mx.vmap(f, in_axes=axes)(p, x).sum())(many, xs) for f in (ours, theirs)]
    assert_close(both[0], both[1], rtol=1e-4, atol=1e-4)


@BIAS
def test_forward_mode(bias):
    ours, theirs, params = pair(bias)
    weight = params["weight"]

    def pushed(f):
        return mx.jvp(lambda w: f({**params, "weight": w}, x_of(2)), [weight], [mx.ones_like(weight)])[1][0]

    assert_close(pushed(ours), pushed(theirs), atol=1e-5)


@BIAS
def test_inside_remat(bias):
    layer = nn.linear(4, 3, bias=bias)
    params = nn.init(0)(layer)

    def gradient(f):
        return on_cpus(mx.grad(lambda p: (f.apply(p, x_of(3), train=True)[0] ** 2).sum()))(params)

    assert_same_bits(gradient(layer), gradient(nn.remat(layer)))


@BIAS
@pytest.mark.parametrize("rank", SHAPES)
def test_the_weight_gradient_is_contiguous_by_row(bias, rank):
    ours, theirs, params = pair(bias)
    grads = mx.grad(cubed(ours))(params, x_of(rank))
    mx.eval(grads)
    view = np.array(memoryview(grads["weight"]), copy=False)
    assert view.flags.c_contiguous
    assert memoryview(grads["weight"]).strides == (16, 4)
    if rank == 2:  # what mlx's own derivative gives; when this fails, MLX has changed and `dense` may go
        other = mx.grad(cubed(theirs))(params, x_of(rank))["weight"]
        mx.eval(other)
        assert memoryview(other).strides == (4, 12)


@BIAS
def test_narrow_inputs_and_wide_parameters_keep_their_dtypes(bias):
    ours, _, params = pair(bias)
    grads, dx = mx.grad(cubed(ours), argnums=(0, 1))(params, x_of(2, mx.bfloat16))
    assert {leaf.dtype for leaf in flat(grads).values()} == {mx.float32}
    assert dx.dtype == mx.bfloat16


def test_linears_inside_other_modules_compute_so_too():
    attention = nn.multi_head_attention(4, 2)
    params, x = nn.init(0)(attention), x_of(3)
    grads = on_cpus(mx.grad(lambda p: (attention.apply(p, x, x, x, train=True)[0] ** 2).sum()))(params)
    mx.eval(grads)
    for path, leaf in flat(grads).items():
        assert memoryview(leaf).strides == (16, 4), path


def test_a_subclass_of_linear_computes_as_itself():
    class Doubled(mlx_nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    layer, plain = nn.lift(Doubled, 4, 3), nn.linear(4, 3)
    params = nn.init(0)(plain)
    assert mx.allclose(layer.apply(params, x_of(2))[0], 2 * plain.apply(params, x_of(2))[0])


def test_training_is_mlx_s_through_the_compiled_step():
    model = nn.sequential(nn.linear(4, 8), nn.tanh, nn.linear(8, 1))
    step = fp.train_step(model, lambda m, x: ((m(x) - x[:, :1]) ** 2).mean(), optim.sgd(0.1))
    params, state = step.init(0)
    module = nn.lower(model, params)
    mirror = mlx_nn.Sequential(mlx_nn.Linear(4, 8), mlx_nn.Tanh(), mlx_nn.Linear(8, 1))
    mirror.update(module.parameters())
    loss = mlx_nn.value_and_grad(mirror, lambda m, x: ((m(x) - x[:, :1]) ** 2).mean())
    for _ in range(5):
        value, grads = loss(mirror, x_of(2))
        mirror.update({"layers": [{k: p[k] - 0.1 * g[k] for k in p} for p, g in zip(
            mirror.parameters()["layers"], grads["layers"], strict=True)]})  # fmt: skip
        params, state, logs = step(params, state, x_of(2))
        assert logs["loss"].item() == pytest.approx(value.item(), rel=1e-4)
