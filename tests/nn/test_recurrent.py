"""Recurrent layers in training: the derivative of a whole sequence has the numbers of MLX's own derivative."""

from __future__ import annotations

from itertools import product

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close, mean_square, mse
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.nn._recurrent import RECURRENT

LENGTH, WIDTH, HIDDEN = 4, 3, 5
KINDS = {"rnn": mlx_nn.RNN, "lstm": mlx_nn.LSTM, "gru": mlx_nn.GRU}


def drawn(seed, *shape):
    return mx.random.normal(shape, key=rng.key(seed))


def pair(kind, **options):
    """Return a module of MLX, and the module that takes its place in training, with the same arrays."""
    theirs, ours = KINDS[kind](WIDTH, HIDDEN, **options), KINDS[kind](WIDTH, HIDDEN, **options)
    theirs.update(tree_map(lambda leaf: drawn(leaf.size, *leaf.shape) * 0.5, theirs.parameters()))
    ours.update(theirs.parameters())
    ours.__class__ = RECURRENT[KINDS[kind]]
    return theirs, ours


def states(kind, *lead):
    return [drawn(7 + i, *lead, HIDDEN) for i in range(2 if kind == "lstm" else 1)]


def weighted_sum(module):
    """Return a scalar function of parameters, input and states; each output has another weight in it."""

    def value(params, x, given):
        before = module.parameters()
        module.update(params)
        y = module(x, *given)
        module.update(before)
        outputs = y if isinstance(y, tuple) else (y,)
        return sum((each * drawn(i, *each.shape)).sum() for i, each in enumerate(outputs))

    return value


def gradients(module, x, given, params=None):
    params = module.parameters() if params is None else params
    return mx.value_and_grad(weighted_sum(module), argnums=(0, 1, 2))(params, x, given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)], ids=str)
def test_values_and_gradients_are_those_of_mlx(kind, lead):
    for bias, has_states in product((True, False), (True, False)):
        theirs, ours = pair(kind, bias=bias)
        x, given = drawn(1, *lead, LENGTH, WIDTH), states(kind, *lead) if has_states else []
        assert_close(gradients(ours, x, given), gradients(theirs, x, given), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_and_one_state_of_two(kind):
    theirs, ours = pair(kind)
    x = drawn(1, 2, 1, WIDTH)
    for given in ([], states(kind, 2)[:1], [None] * (kind == "lstm") + states(kind, 2)[:1]):
        assert_close(ours(x, *given), theirs(x, *given))


def test_an_rnn_with_relu_and_an_rnn_with_another_activation():
    for activation in (mlx_nn.relu, mx.tanh, mlx_nn.gelu, mlx_nn.Tanh(), lambda x: x * 0.5):
        theirs, ours = pair("rnn", nonlinearity=activation)
        x = drawn(1, 2, LENGTH, WIDTH)
        assert_close(gradients(ours, x, states("rnn", 2)), gradients(theirs, x, states("rnn", 2)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_dtypes_and_wrong_shapes_are_as_in_mlx(kind):
    theirs, ours = pair(kind)
    narrow = drawn(1, 2, LENGTH, WIDTH).astype(mx.bfloat16)
    assert_close(ours(narrow), theirs(narrow))
    for module in (ours, theirs):
        with pytest.raises(ValueError, match="matmul|addmm"):
            module(drawn(1, 2, LENGTH, WIDTH + 1))


def test_a_state_that_mlx_broadcasts():
    theirs, ours = pair("gru")
    x, given = drawn(1, 2, LENGTH, WIDTH), states("gru")
    assert_close(gradients(ours, x, given), gradients(theirs, x, given), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_as_near_to_float32_as_mlx(kind):
    theirs, ours = pair(kind)
    x, given = drawn(1, 2, LENGTH, WIDTH), states(kind, 2)
    exact = fp.flat(gradients(theirs, x, given)[1][0])
    narrow = tree_map(lambda leaf: leaf.astype(mx.bfloat16), (theirs.parameters(), x, given))
    found = [fp.flat(gradients(module, *narrow[1:], narrow[0])[1][0]) for module in (theirs, ours)]
    for path, leaf in exact.items():
        assert found[1][path].dtype == mx.bfloat16
        of_theirs, of_ours = (mx.abs(each[path] - leaf).max().item() for each in found)
        assert of_ours <= of_theirs + 0.03 * mx.abs(leaf).max().item(), path


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivative(kind):
    found = []
    for module in pair(kind):

        def penalty(params, x, module=module):
            return mx.grad(weighted_sum(module), argnums=1)(params, x, states(kind, 2)).square().sum()

        found.append(mx.grad(penalty, argnums=(0, 1))(module.parameters(), drawn(1, 2, LENGTH, WIDTH)))
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_of_the_gradient_and_gradient_of_vmap(kind):
    theirs, ours = pair(kind)
    x, given, params = drawn(1, 3, 2, LENGTH, WIDTH), states(kind, 2), theirs.parameters()
    many = tree_map(lambda leaf: mx.stack([leaf, leaf * 0.5, -leaf]), params)

    def mapped(*axes):
        return mx.vmap(mx.grad(weighted_sum(ours), argnums=(0, 1, 2)), in_axes=(*axes, None))

    def one_by_one(params, xs):
        found = [mx.grad(weighted_sum(theirs), argnums=(0, 1, 2))(params(i), xs(i), given) for i in range(3)]
        return tree_map(lambda *leaves: mx.stack(leaves), *found)

    def member(i):
        return tree_map(lambda leaf: leaf[i], many)

    assert_close(mapped(None, 0)(params, x, given), one_by_one(lambda i: params, lambda i: x[i]), atol=1e-5)
    assert_close(mapped(0, 0)(many, x, given), one_by_one(member, lambda i: x[i]), atol=1e-5)
    assert_close(mapped(0, None)(many, x[0], given), one_by_one(member, lambda i: x[0]), atol=1e-5)
    value = weighted_sum(ours)
    through = mx.grad(lambda x: mx.vmap(lambda x: value(params, x, given))(x).sum())(x)
    assert_close(through, one_by_one(lambda i: params, lambda i: x[i])[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_jvp(kind):
    theirs, ours = pair(kind)
    x = drawn(1, 2, LENGTH, WIDTH)
    found = [mx.jvp(lambda x, m=m: weighted_sum(m)(m.parameters(), x, []), [x], [x + 1]) for m in (ours, theirs)]
    assert_close(found[0], found[1], atol=1e-5)


class Net(mlx_nn.Module):
    """Recurrent layers inside a module, one of them in a list."""

    def __init__(self):
        super().__init__()
        self.first = mlx_nn.RNN(WIDTH, HIDDEN)
        self.layers = [mlx_nn.GRU(HIDDEN, HIDDEN, bias=False)]
        self.last = mlx_nn.LSTM(HIDDEN, HIDDEN)

    def __call__(self, x):
        hidden = self.layers[0](self.first(x))
        return self.last(hidden, hidden[:, -1])[0]


def plain_gradients(module, params, x):
    def value(params):
        module.update(params)
        return (module(x) ** 2).mean()

    return mx.value_and_grad(value)(params)


@pytest.fixture
def calls(monkeypatch):
    """Return the list of the recurrent layers that compute with the derivative of this library."""
    seen = []
    for kind in RECURRENT.values():
        plain = kind.__call__

        def noted(self, *xs, plain=plain):
            seen.append(type(self))
            return plain(self, *xs)

        monkeypatch.setattr(kind, "__call__", noted)
    return seen


def test_lifted_modules_in_the_compiled_step(calls):
    layer, x = nn.lift(Net), drawn(1, 2, LENGTH, WIDTH)
    step = fp.train_step(layer, mean_square, optim.sgd(1.0))
    params, opt_state = step.init(0)
    loss, grads = plain_gradients(Net(), params, x)
    after, _, logs = step(params, opt_state, x)
    assert set(calls) == set(RECURRENT.values())
    assert_close(logs["loss"], loss)
    assert_close(after, tree_map(lambda a, b: a - b, params, grads), atol=1e-5)


def test_remat_gives_the_same_gradients():
    x = drawn(1, 2, LENGTH, WIDTH)
    plain = nn.lift(Net)
    params = plain.init(0)

    def grads(layer):
        return mx.grad(lambda p, x: (layer.apply(p, x, train=True)[0] ** 2).mean(), argnums=(0, 1))(params, x)

    for again in (nn.remat(plain), nn.remat(["first", "layers.0", "last"])(plain)):
        assert_close(grads(again), grads(plain))


def test_evaluation_is_mlx_itself(calls):
    layer, x = nn.gru(WIDTH, HIDDEN), drawn(1, 2, LENGTH, WIDTH)
    layer.apply(layer.init(0), x)
    assert calls == []


def test_a_subclass_computes_as_it_says(calls):
    class Doubled(mlx_nn.RNN):
        def __call__(self, x):
            return 2 * super().__call__(x)

    layer, x = nn.lift(Doubled, WIDTH, HIDDEN), drawn(1, LENGTH, WIDTH)
    params = layer.init(0)
    assert_close(layer.apply(params, x, train=True)[0], layer.apply(params, x)[0])
    assert calls == []


def test_the_paths_of_each_layer_and_its_training():
    for kind in KINDS:
        layer = getattr(nn, kind)(WIDTH, HIDDEN)
        model = nn.define(lambda m, x: (y := m.cell(x), y[0] if isinstance(y, tuple) else y)[1], cell=layer)
        step = fp.train_step(model, mse, optim.adam(1e-2), compile=False)
        params, opt_state = step.init(0)
        assert sorted(params["cell"]) == sorted(KINDS[kind](WIDTH, HIDDEN).parameters())
        losses = []
        for _ in range(5):
            batch = (drawn(1, 2, LENGTH, WIDTH), mx.zeros((2, LENGTH, HIDDEN)))
            params, opt_state, logs = step(params, opt_state, batch)
            losses.append(logs["loss"].item())
        assert losses[-1] < losses[0]
