"""Recomputing changes nothing but memory: values, gradients, buffers and the stream are the same, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits, mean_square

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat

X = mx.random.normal((8, 4), key=rng.key(0))


def block():
    return nn.sequential(nn.linear(4, 4), nn.dropout(0.5), nn.batch_norm(4), nn.relu)


def model(wrap):
    return nn.sequential(nn.dropout(0.3), wrap(block()), nn.dropout(0.3), out=nn.linear(4, 2))


PAIRS = {
    "dropout inside and outside": (model(lambda layer: layer), model(nn.remat)),
    "in a stack": (nn.stack(2, lambda i: block()), nn.stack(2, lambda i: nn.remat(block()))),
    "in itself": (block(), nn.remat(nn.remat(block()))),
    "all of a model": (model(lambda layer: layer), nn.remat(model(nn.remat))),
    "shared": (nn.share(2, block()), nn.remat(nn.share(2, nn.remat(block())))),
    "without randomness": (nn.linear(4, 4), nn.remat(nn.linear(4, 4))),
    "the whole draws nothing": (
        nn.sequential(nn.relu, nn.dropout(0.3)),
        nn.sequential(nn.remat(nn.relu), nn.dropout(0.3)),
    ),
}


def gradients(layer, compiled):
    def objective(params, key, x):
        def run():
            y, after = layer.apply(params, x, train=True)
            return (y**2).mean(), after

        (value, after), end = rng.run(key, run)
        return value, after, end

    def step(params, key, x):
        return mx.value_and_grad(objective, argnums=(0, 2))(params, key, x)

    if not flat(nn.shapes(layer)):
        step = lambda params, key, x: (objective(params, key, x), ({}, x))
    run = mx.compile(step) if compiled else step
    return run(nn.init(0)(layer), rng.key(5), X)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("case", PAIRS)
def test_the_same_bits(case, compiled):
    (value, after, key), grads = gradients(PAIRS[case][0], compiled)
    (value_r, after_r, key_r), grads_r = gradients(PAIRS[case][1], compiled)
    assert value.item() == value_r.item()
    assert key.tolist() == key_r.tolist()
    for plain, other in ((after, after_r), (grads[0], grads_r[0]), ({"x": grads[1]}, {"x": grads_r[1]})):
        assert_same_bits(plain, other)


def test_the_mask_is_the_one_of_the_value():
    """The gradient of a masked sum is the mask."""
    drop = nn.remat(nn.dropout(0.5))
    x = mx.ones((1000,))
    y, _ = drop.apply({}, x, train=True, key=2)
    assert 300 < (y == 0).sum().item() < 700
    assert mx.array_equal(mx.grad(lambda x: drop.apply({}, x, train=True, key=2)[0].sum())(x), y)


def test_the_stream_goes_on_from_step_to_step():
    """A key that stood still would drop the same elements for ever."""
    step = fp.train_step(
        nn.sequential(nn.remat(nn.dropout(0.5)), nn.fn(lambda x: x), w=nn.linear(4, 1)),
        lambda m, x: m(x).sum(),
        optim.sgd(0.0),
    )
    params, state = step.init(0)
    losses, keys = set(), set()
    for _ in range(5):
        params, state, logs = step(params, state, X)
        losses.add(logs["loss"].item())
        keys.add(tuple(state["key"].tolist()))
    assert len(losses) == len(keys) == 5
    assert step.traces <= 1  # none where nothing compiles


def test_training_is_the_same_through_the_compiled_step():
    ends = []
    for layer in PAIRS["dropout inside and outside"]:
        step = fp.train_step(layer, mean_square, optim.adam(0.01))
        state = step.init(0)
        for _ in range(4):
            *state, logs = step(*state, X)
        ends.append((logs["loss"].item(), state[1]["key"].tolist(), state[0]))
    assert ends[0][:2] == ends[1][:2]
    assert_same_bits(ends[0][2], ends[1][2])


def test_a_draw_without_a_key_is_an_error_in_it_too():
    mx.random.seed(3)
    with pytest.raises(ValueError, match="train=True and no key"):
        nn.remat(nn.dropout(0.5)).apply({}, X, train=True)
    drawn = mx.random.uniform().item()
    mx.random.seed(3)
    assert drawn == mx.random.uniform().item()


def test_keyword_arguments_and_trees_go_through_with_their_gradients():
    layer = nn.fn(lambda x, *, by, mode, pair, skip=None: (x * by + pair[0]) if mode == "mul" and skip is None else x)
    run = lambda f: lambda x, by, a: f.apply({}, x, by=by, mode="mul", pair=(a, {"b": a}))[0].sum()
    args = (X, mx.array(2.0), mx.array(1.0))
    plain, other = (mx.grad(run(f), argnums=(0, 1, 2))(*args) for f in (layer, nn.remat(layer)))
    assert_same_bits(plain, other)
    assert other[1].item() != 0


def test_it_keeps_paths_parts_rules_and_evaluation():
    inner = nn.freeze("layers.0")(block())
    layer = nn.remat(inner)
    params = nn.init(0)(layer)
    assert_same_bits(params, nn.init(0)(inner))
    assert fp.paths(layer.trainable(params))(params) == fp.paths(inner.trainable(params))(params)
    assert mx.array_equal(layer.apply(params, X)[0], inner.apply(params, X)[0])
    assert nn.summary(layer).count == nn.summary(inner).count
    assert layer.name == "remat(sequential)"


@pytest.mark.parametrize("entry", [3, None, X, object(), int])
def test_a_wrong_entry_is_refused(entry):
    with pytest.raises(TypeError, match="remat's layer must be a Layer, an mlx.nn.Module or its class, or a callable"):
        nn.remat(entry)


@pytest.mark.parametrize("spec", ["w", ["w"], ("w",), {"w"}, fp.under("w")], ids=repr)
def test_a_spec_is_a_verb(spec):
    assert repr(nn.remat(spec)(nn.sequential(w=nn.relu, v=nn.relu))).count("remat(") == 1
    with pytest.raises(TypeError, match="remat takes a Layer"):
        nn.remat(spec)(X)


def test_an_error_inside_comes_out_and_leaves_the_stream():
    mx.random.seed(4)
    layer = nn.remat(nn.sequential(nn.dropout(0.5), nn.linear(3, 3)))
    with pytest.raises(ValueError, match="addmm"):
        layer.apply(nn.init(0)(layer), X, train=True, key=1)
    drawn = mx.random.uniform().item()
    mx.random.seed(4)
    assert drawn == mx.random.uniform().item()


def test_integer_inputs_and_quantised_layers_have_no_gradient_and_need_none():
    tokens = mx.array([[1, 2, 3]])
    embedded = nn.sequential(nn.embedding(10, 4), nn.linear(4, 10))
    quantised = nn.sequential(nn.linear(4, 64), nn.split(mlx_nn.QuantizedLinear(64, 64))[0])
    for model, x in ((embedded, tokens), (quantised, mx.ones((2, 4)))):
        step, again = (fp.train_step(m, mean_square, optim.sgd(0.1)) for m in (model, nn.remat(model)))
        params, state = step.init(0)
        (plain, _, logs), (rematted, _, relogs) = step(params, state, x), again(params, state, x)
        assert logs["loss"].item() == relogs["loss"].item()
        assert_same_bits(plain, rematted)


def test_the_gradient_of_a_frozen_weight_is_not_computed():
    """It would be as large as the weight, and the gradient of the inputs would wait for it."""
    block = lambda i: nn.remat(nn.residual(nn.linear(64, 2048), nn.relu, nn.linear(2048, 64)))
    stack, x = nn.stack(8, block), mx.random.normal((2, 64), key=rng.key(1))
    peaks = []
    for trained in ("layers.0.layers.0.bias", None):
        step = fp.train_step(stack, mean_square, optim.sgd(0.1), trainable=trained)
        params, state = step.init(0)
        mx.synchronize()
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(step.gradients(params, state, x).grads)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[0] < peaks[1] / 3


def test_the_gradient_of_a_gradient():
    def curvature(layer):
        params = nn.init(0)(layer)
        loss = lambda p, x: (layer.apply(p, x, train=True, key=3)[0] ** 4).sum()
        slope = lambda p, x: mx.square(mx.grad(loss, argnums=1)(p, x)).sum()
        return mx.grad(slope)(params, X)

    plain = nn.sequential(nn.linear(4, 4), nn.dropout(0.5), mx.tanh, nn.linear(4, 2))
    plain, again = curvature(plain), curvature(nn.remat(plain))
    for path, leaf in flat(plain).items():
        assert mx.allclose(leaf, flat(again)[path], rtol=1e-4), path


def test_vmap_of_a_gradient_is_refused():
    layer = nn.remat(nn.linear(4, 4))
    params = nn.init(0)(layer)
    with pytest.raises(ValueError, match="vmap"):
        mx.vmap(mx.grad(lambda x: layer.apply(params, x)[0].sum()))(X)


@pytest.mark.skipif(find_spec("mlx_fp.cpu") is None, reason="MLX's queue holds the memory without the backend")
@pytest.mark.slow
def test_one_layer_at_a_time_is_in_memory():
    """Without recomputation 12 layers need 12 times the memory of one, and out of order nearly as much."""
    block = nn.residual(nn.linear(32, 1024), mx.sin, mx.tanh, mx.sin, nn.linear(1024, 32))
    x = mx.random.normal((256, 32), key=rng.key(1))
    peaks = []
    for wrap in (lambda layer: layer, nn.remat):
        step = fp.train_step(nn.repeat(12, wrap(block)), mean_square, optim.sgd(0.1))
        params, state = step.init(0)
        mx.eval(step.gradients(params, state, x))
        mx.synchronize()
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(step.gradients(params, state, x))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < peaks[0] / 3
