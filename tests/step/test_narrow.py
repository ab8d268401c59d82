"""A step in a narrow type: the loss gets wide outputs, and a part may compute wide."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import Pair, assert_same_bits, cross_entropy, mse, random_batch, small_net

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim
from mlx_fp.tree._paths import flat

NARROW = [mx.bfloat16, mx.float16]
CLASSIFIER = nn.sequential(nn.linear(16, 32), nn.relu, nn.linear(32, 10))


def labelled(rows=256):
    return mx.random.normal((rows, 16), key=mx.random.key(0)), mx.random.randint(0, 10, (rows,), key=mx.random.key(1))


def loss_of(model, loss, params, batch, dtype):
    return fp.eval_step(model, loss, dtype=dtype)(params, {}, batch)[1]["loss"].item()


def outputs(model, x, dtype, params=None, call=lambda model, x: model(x)):
    """Return what the loss gets of a model."""
    seen = []

    def record(forward, x):
        seen.append(call(forward, x))
        return mx.array(0.0)

    fp.eval_step(model, record, dtype=dtype, compile=False)(nn.init(0)(model) if params is None else params, {}, x)
    return seen[0]


def gradients(model, params, x, dtype, compile=False):
    step = fp.train_step(model, lambda m, x: m(x).sum(), optim.sgd(0.1), dtype=dtype, compile=compile)
    params, state = step.init(params)
    return step.gradients(params, state, x)[:2]


# outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usual("1", "2", "3")
def test_the_loss_of_a_classifier_is_computed_in_float32(seed):
    def of_narrow_outputs(model, x, y):
        return nn.losses.cross_entropy(model(x).astype(mx.bfloat16), y, reduction="mean")

    params, batch = nn.init(seed)(CLASSIFIER), labelled()
    exact = loss_of(CLASSIFIER, cross_entropy, params, batch, None)
    assert abs(loss_of(CLASSIFIER, cross_entropy, params, batch, mx.bfloat16) / exact - 1) < 2e-4
    assert abs(loss_of(CLASSIFIER, of_narrow_outputs, params, batch, mx.bfloat16) / exact - 1) > 1e-3


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_the_floating_outputs_of_any_tree_are_float32(dtype):
    def tree(x):
        return {"a": [x, (x > 0)], "b": Pair(x.astype(mx.float32), mx.array([1, 2])), "c": None, "d": x + 0j, "n": 3}

    got = outputs(nn.fn(tree), mx.array([1.5]), dtype)
    found = [leaf.dtype for leaf in (*got["a"], *got["b"], got["d"])]
    assert found == [mx.float32, mx.bool_, mx.float32, mx.int32, mx.complex64]
    assert isinstance(got["b"], Pair)
    assert (got["c"], got["n"]) == (None, 3)


def test_outputs_of_float64_stay_and_so_do_those_of_a_step_that_is_not_narrow():
    to = lambda dtype: nn.fn(lambda x: x.astype(dtype, stream=mx.cpu))
    assert outputs(to(mx.float64), mx.array([1.5]), mx.bfloat16).dtype == mx.float64
    for dtype in (None, mx.float32):
        assert outputs(to(mx.float16), mx.array([1.5]), dtype).dtype == mx.float16


def test_the_methods_of_a_lifted_module_give_float32():
    class Twice(mlx_nn.Linear):
        def encode(self, x):
            return self(x), x.dtype

    y, inside = outputs(nn.lift(Twice, 3, 2), mx.ones((1, 3)), mx.bfloat16, call=lambda m, x: m.encode(x))
    assert (y.dtype, inside) == (mx.float32, mx.bfloat16)


def test_metrics_and_fit_get_float32():
    seen = []
    spy = fp.Metric(
        "spy",
        init=lambda: mx.array(0.0),
        update=lambda memory, output, x, y: (seen.append((output.dtype, x.dtype)), memory)[1],
        value=lambda memory: memory,
    )
    source = data.batch(3)(data.arrays(**dict(zip("xy", random_batch(), strict=True))))
    trainer = fp.with_optimizer(optim.sgd(0.1))(fp.trainer(small_net(), fp.regression(metrics=[spy])))
    report = fp.fit(source, epochs=1, quiet=True, dtype=mx.bfloat16)(trainer)
    fp.evaluate(source, params=report.params, dtype=mx.bfloat16)(trainer)
    assert set(seen) == {(mx.float32, mx.float32)}
    assert len(seen) >= 2


def test_the_gradient_goes_on_into_the_narrow_part():
    model, x = nn.linear(3, 2, bias=False), mx.array([[1.0, 2.0, 3.0]])
    grads, _ = gradients(model, nn.init(0)(model), x, mx.bfloat16)
    assert grads["weight"].dtype == mx.float32
    assert grads["weight"].tolist() == [[1.0, 2.0, 3.0]] * 2


# wide parts -----------------------------------------------------------------------------------------------------

LARGE = mx.random.normal((64, 32), key=mx.random.key(0)) + 1000
BETWEEN = 1.001
"""A weight between two values of bfloat16."""


def normal(x):
    c = x - x.mean(-1, keepdims=True)
    return c * mx.rsqrt((c * c).mean(-1, keepdims=True) + 1e-5)


def in_type(x, dtype):
    return x.astype(dtype).astype(mx.float32)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_norm_of_inputs_far_from_zero_is_right_to_the_last_bit(dtype):
    exact = normal(in_type(LARGE, dtype))
    assert mx.array_equal(outputs(nn.wide(normal), LARGE, dtype), in_type(exact, dtype))
    assert mx.abs(outputs(nn.fn(normal), LARGE, dtype) - exact).max().item() > 0.05


def test_a_batch_norm_of_inputs_far_from_zero_keeps_its_statistics():
    def trained(model, dtype):
        step = fp.train_step(model, lambda m, x: (m(x) ** 2).mean(), optim.sgd(0.1), dtype=dtype)
        return step(*step.init(0), in_type(LARGE, mx.bfloat16))[0]

    exact, narrow = (trained(nn.batch_norm(32), dtype) for dtype in (None, mx.bfloat16))
    wide = trained(nn.wide(nn.batch_norm(32)), mx.bfloat16)
    for name in ("running_mean", "running_var"):
        assert mx.array_equal(wide[name], exact[name])
        assert not mx.array_equal(narrow[name], exact[name])


class Squared(mlx_nn.Module):
    """By the square of a weight, of which the gradient is 2 * weight * x; notes what it computes with."""

    def __init__(self, seen):
        super().__init__()
        self.by, self._seen = mx.full((2,), BETWEEN), lambda: seen

    def __call__(self, x):
        return squared(x, self.by, self._seen())


def squared(x, by, seen):
    seen.append((x.dtype, by))
    return x * by * by


PARTS = {
    "native": lambda seen: nn.define(lambda m, x: squared(x, m.by, seen), by=nn.param(2, init=BETWEEN)),
    "lifted": lambda seen: nn.lift(Squared, seen),
    "split": lambda seen: nn.split(Squared(seen))[0],
}


def lowered(layer):
    return nn.lower(layer, nn.init(0)(layer))


class Holder(mlx_nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.held = [lowered(layer)]

    def __call__(self, x):
        return self.held[0](x)


WITHIN = {
    "alone": nn.wide,
    "in a sequence": lambda p: nn.sequential(nn.wide(p)),
    "in a residual": lambda p: nn.residual(lambda x: 0 * x + 1, nn.wide(p), lambda x: x),
    "in a stack": lambda p: nn.stack(1, lambda: nn.wide(p)),
    "in a define": lambda p: nn.define(lambda m, x: m.part(x), part=nn.wide(p)),
    "deep": lambda p: nn.sequential(a=nn.repeat(1, nn.define(lambda m, x: m.q(x), q=nn.add(nn.wide(p))))),
    "shared": lambda p: nn.share(1, nn.wide(p)),
    "a whole sequence": lambda p: nn.wide(nn.sequential(p, lambda x: x)),
    "in itself": lambda p: nn.wide(nn.sequential(nn.wide(p))),
    "recomputed": lambda p: nn.sequential(nn.remat(nn.wide(p))),
    "of a recomputed part": lambda p: nn.sequential(nn.wide(nn.remat(p))),
    "beside a frozen part": lambda p: nn.freeze("other")(nn.add(nn.wide(p), other=nn.linear(2, 2))),
    "frozen and thawed": lambda p: nn.sequential(nn.unfreeze()(nn.frozen(nn.wide(p)))),
    "lowered and lifted": lambda p: nn.sequential(lowered(nn.sequential(nn.wide(p)))),
    "in a module": lambda p: nn.split(Holder(nn.sequential(nn.wide(p))))[0],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("case", WITHIN)
def test_a_wide_part_computes_in_float32_with_its_weights_as_they_are(case, part):
    seen = []
    model = WITHIN[case](PARTS[part](seen))
    params = nn.init(0)(model)
    assert outputs(model, mx.ones((1, 2)), mx.bfloat16, params).shape == (1, 2)
    assert [(kind, by.dtype, by.tolist()) for kind, by in seen] == [
        (mx.float32, mx.float32, mx.full((2,), BETWEEN).tolist())
    ]
    for compile in (False, True):
        grads, _ = gradients(model, params, mx.ones((1, 2)), mx.bfloat16, compile)
        (grad,) = flat(grads).values()
        assert grad.dtype == mx.float32
        assert mx.allclose(grad, mx.full((2,), 2 * BETWEEN), rtol=1e-6).item()


def test_the_other_parts_stay_narrow():
    seen = []
    by = lambda: nn.define(lambda m, x: squared(x, m.by, seen), by=nn.param(2, init=BETWEEN))
    outputs(nn.sequential(by(), nn.wide(by()), by()), mx.ones((1, 2)), mx.bfloat16)
    assert [(kind, by.dtype) for kind, by in seen] == [
        (dtype, dtype) for dtype in (mx.bfloat16, mx.float32, mx.bfloat16)
    ]
    assert seen[0][1].tolist() == [1.0, 1.0]


def net(wrap):
    body = nn.sequential(nn.linear(3, 4), nn.batch_norm(4), nn.dropout(0.5))
    return nn.sequential(wrap(body), nn.residual(nn.remat(wrap(nn.linear(4, 4)))), wrap(nn.lift(mlx_nn.Linear, 4, 2)))


@pytest.mark.parametrize("dtype", [None, mx.float32, mx.float64], ids=str)
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
@pytest.mark.usual("eager-None", "eager-mlx.core.float32", "eager-mlx.core.float64", "compiled-mlx.core.float32")
def test_outside_a_narrow_step_no_bit_is_another(dtype, compile):
    def trained(model):
        step = fp.train_step(model, mse, optim.adam(0.01), metrics=[metrics.mse()], compile=compile, dtype=dtype)
        state = step.init(0)
        for seed in range(3):
            *state, logs = step(*state, random_batch(seed=seed))
        return [*state, logs]

    try:
        plain = trained(net(lambda part: part))
    except ValueError:
        pytest.skip("the device has no such type")
    assert_same_bits(plain, trained(net(nn.wide)))


def test_a_step_in_a_wider_type_takes_the_weights_of_a_wide_part_into_it():
    seen = []
    model = nn.wide(PARTS["native"](seen))
    outputs(model, mx.ones((1, 2)), mx.float32, {"by": mx.ones((2,), mx.bfloat16)})
    assert [(kind, by.dtype) for kind, by in seen] == [(mx.float32, mx.float32)]


def test_a_wide_model_in_a_narrow_step_computes_what_float32_computes():
    model, x = net(lambda part: part), in_type(random_batch()[0], mx.bfloat16)
    params = nn.init(0)(model)
    exact = outputs(model, x, None, params)
    assert mx.array_equal(outputs(nn.wide(model), x, mx.bfloat16, params), in_type(exact, mx.bfloat16))
    assert not mx.array_equal(outputs(model, x, mx.bfloat16, params), in_type(exact, mx.bfloat16))


def test_under_vmap_every_row_is_computed_wide():
    each = lambda model, x: mx.vmap(model)(x)
    model = nn.sequential(nn.wide(nn.sequential(nn.linear(32, 4), normal)))
    whole = outputs(model, LARGE, mx.bfloat16)
    assert mx.allclose(outputs(model, LARGE, mx.bfloat16, call=each), whole, rtol=0.01, atol=0.01).item()


def test_a_tree_of_inputs_goes_in_wide_and_a_tree_of_outputs_comes_back_narrow():
    seen = []

    def part(x, *, more, n):
        seen.append((x.dtype, more["a"][0].dtype, n.dtype))
        return {"x": x, "n": n, "more": (more["a"][0], None)}

    half = mx.ones((2,), mx.float16)
    y, _ = nn.wide(part).apply({}, half, more={"a": [half.astype(mx.bfloat16)]}, n=mx.array([1]))
    assert seen == [(mx.float32, mx.float32, mx.int32)]
    assert [y["x"].dtype, y["n"].dtype, y["more"][0].dtype] == [mx.float16, mx.int32, mx.float16]  # the first one's
    assert y["more"][1] is None


def test_without_floating_inputs_the_output_is_as_wide_as_the_weights():
    model = nn.sequential(nn.wide(nn.embedding(5, 2)), nn.fn(lambda x: (x, x.dtype)))
    assert outputs(model, mx.array([1, 2]), mx.bfloat16)[1] == mx.float32


def test_it_keeps_paths_parts_rules_and_shows_its_name():
    inner = nn.freeze("layers.0")(nn.sequential(nn.linear(4, 4), nn.batch_norm(4)))
    layer = nn.wide(inner)
    params = nn.init(0)(layer)
    assert_same_bits(params, nn.init(0)(inner))
    assert fp.paths(layer.trainable(params))(params) == fp.paths(inner.trainable(params))(params)
    assert (layer.name, layer.parts) == ("wide(sequential)", inner.parts)
    assert nn.summary(layer).count == nn.summary(inner).count
    assert nn.summary(nn.wide(nn.linear(4, 2))).rows[0].name == "wide(Linear)"
    with pytest.raises(TypeError, match="wide's layer must be a Layer"):
        nn.wide(3)
