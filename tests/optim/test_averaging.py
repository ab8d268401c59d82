"""Lookahead and schedule-free averaging: each by hand in NumPy, in narrow dtypes, during the backward pass, resumed."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_same_bits, assert_same_run, bits, mean_square, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

PARAMS = {"w": mx.array([1.0, -2.0, 0.5]), "b": [mx.array([[3.0]]), {}]}
TARGETS = {"w": mx.array([0.5, 1.0, -1.0]), "b": [mx.array([[-1.0]]), {}]}


def slopes(params):
    """The gradients of half the squared distance to the targets."""
    return {"w": params["w"] - TARGETS["w"], "b": [params["b"][0] - TARGETS["b"][0], {}]}


def run(opt, count, params=PARAMS):
    state, update = opt.init(params), mx.compile(opt.update)
    for _ in range(count):
        params, state = update(slopes(params), state, params)
    return params, state


def vector(tree):
    return np.concatenate([np.array(leaf.astype(mx.float32)).reshape(-1) for leaf in fp.flat(tree).values()])


def lookahead_by_hand(k, alpha, rate, momentum, count):
    weights, target, velocity = vector(PARAMS), vector(TARGETS), 0.0
    slow = weights
    for step in range(1, count + 1):
        velocity = momentum * velocity + (weights - target)
        weights = weights - rate * velocity
        if step % k == 0:
            weights = slow = slow + alpha * (weights - slow)
    return weights, slow


@pytest.mark.parametrize(("k", "alpha", "count"), [(1, 0.5, 4), (3, 0.25, 7), (5, 1.0, 5), (4, 0.8, 3)])
@pytest.mark.usual("4-0.8-3")
def test_lookahead_by_hand(k, alpha, count):
    params, state = run(optim.lookahead(k, alpha)(optim.sgd(0.1, momentum=0.9)), count)
    weights, slow = lookahead_by_hand(k, alpha, 0.1, 0.9, count)
    np.testing.assert_allclose(vector(params), weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vector(state["slow"]), slow, rtol=1e-5, atol=1e-6)
    assert state["since_move"].item() == count % k


def schedule_free_by_hand(beta, rates):
    base, target = vector(PARAMS), vector(TARGETS)
    average, weights, total = base, base, 0.0
    for rate in rates:
        base = base - rate * (weights - target)
        total += rate**2
        share = rate**2 / total if total else 0.0
        average = (1 - share) * average + share * base
        weights = (1 - beta) * base + beta * average
    return weights, average, base


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.usual("0.5", "0.9")
def test_schedule_free_by_hand_with_a_rate_that_rises_from_0(beta):
    rise = optim.linear_schedule(0.0, 0.2, 4)
    rates = [rise(mx.array(step)).item() for step in range(9)]
    params, state = run(optim.schedule_free(beta)(optim.sgd(rise)), 9)
    weights, average, base = schedule_free_by_hand(beta, rates)
    np.testing.assert_allclose(vector(params), weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vector(optim.averaged(state)(params)), average, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vector(state["base"]), base, rtol=1e-5, atol=1e-6)


def test_schedule_free_adamw_is_adamw_without_momentum_on_the_base():
    """The inner optimiser sees the base sequence, its own weight decay on it, and the gradients at the parameters."""
    opt, inner = (verb(optim.adamw(0.1, betas=[0.0, 0.99])) for verb in (optim.schedule_free(0.9), lambda o: o))
    params, state = PARAMS, opt.init(PARAMS)
    base, memory, average = PARAMS, inner.init(PARAMS), vector(PARAMS)
    for step in range(1, 5):
        grads = slopes(params)
        params, state = opt.update(grads, state, params)
        base, memory = inner.update(grads, memory, base)
        average = average + (vector(base) - average) / step
    assert_same_bits(state["base"], base)
    np.testing.assert_allclose(vector(optim.averaged(state)(params)), average, rtol=1e-5, atol=1e-6)


def test_an_optimiser_without_a_rate_gets_equal_weights():
    halving = optim.Optimizer(lambda params: {}, lambda grads, state, params: ({"w": params["w"] / 2}, state))
    opt, params = optim.schedule_free(0.0)(halving), {"w": mx.array(8.0)}
    state = opt.init(params)
    for _ in range(3):
        params, state = opt.update(params, state, params)
    assert optim.averaged(state)(params)["w"].item() == pytest.approx((4 + 2 + 1) / 3)


@pytest.mark.parametrize(
    "verb", [optim.lookahead(2, 0.5), optim.schedule_free(0.9)], ids=["lookahead", "schedule_free"]
)
@pytest.mark.usual("schedule_free")
def test_narrow_parameters_have_wide_sequences(verb):
    params = {"w": mx.ones((3,), mx.bfloat16), "b": [mx.ones((1, 1), mx.bfloat16), {}]}
    opt = verb(optim.sgd(0.01))
    moved, state = run(opt, 8, params)
    assert {leaf.dtype for leaf in fp.flat(moved).values()} == {mx.bfloat16}
    wide = [leaf.dtype for path, leaf in fp.flat(state).items() if path.split(".")[0] in ("slow", "base", "average")]
    assert set(wide) == {mx.float32}
    assert bits(moved) != bits(params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.lookahead(0), "k of lookahead is a count, 1 or more; got 0"),
        (lambda: optim.lookahead(5, 0.0), "alpha of lookahead is a finite number above 0 and at most 1"),
        (lambda: optim.schedule_free(1.0), "beta of schedule_free is a finite number of at least 0 and below 1"),
    ],
)
def test_wrong_options_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rate_of_0_from_the_start_leaves_the_average_and_is_finite():
    params, state = run(optim.schedule_free()(optim.sgd(0.0)), 2)
    assert_same_bits(params, PARAMS)
    assert_same_bits(optim.averaged(state)(params), PARAMS)


OPTIMIZERS = {
    "lookahead": lambda: optim.lookahead(3)(optim.adamw(1e-2)),
    "schedule_free": lambda: pipe(
        optim.adamw(optim.linear_schedule(0.0, 1e-2, 3), betas=[0.0, 0.999]), optim.schedule_free(), optim.clip_norm(1)
    ),
    "scaled": lambda: optim.scaled(("enc", 0.5), (None, 1.0))(optim.adamw(1e-2)),
    "projected": lambda: optim.projected(shrunk)(optim.adamw(1e-2)),
}


def shrunk(params):
    return {**params, "head": {**params["head"], "weight": mx.clip(params["head"]["weight"], -0.1, 0.1)}}


def trained(optimizer, *verbs, **options):
    x = mx.random.normal((24, 3), key=mx.random.key(0))
    train = pipe(data.arrays(x=x, y=x[:, :2]), data.shuffle(seed=1), data.batch(4))
    target = pipe(fp.trainer(small_net(), fp.regression()), fp.with_optimizer(optimizer), *verbs)
    return fp.fit(train, quiet=True, **{"epochs": 2, **options})(target)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usual("projected")
def test_a_run_resumes_to_the_same_bits(name, tmp_path):
    whole = trained(OPTIMIZERS[name]())
    saves = fp.checkpoints(tmp_path / "step-{step}")
    trained(OPTIMIZERS[name](), saves, epochs=1)
    again = trained(OPTIMIZERS[name](), saves, resume="latest")
    assert again.start_epoch == 1
    assert_same_run(again, whole)


def test_a_run_evaluates_the_averages_of_schedule_free():
    x = mx.random.normal((8, 3), key=mx.random.key(1))
    held_out = pipe(data.arrays(x=x, y=x[:, :2]), data.batch(8))
    report = trained(OPTIMIZERS["schedule_free"](), validation=held_out, averaged=True)
    averages = optim.averaged(report.opt_state)(report.params)
    figures = fp.evaluate(pipe(held_out), params=averages)(fp.trainer(small_net(), fp.regression()))
    assert report.rows[-1].val_loss == pytest.approx(figures["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["lookahead", "schedule_free", "scaled"])
@pytest.mark.usual("schedule_free")
def test_updates_in_the_backward_pass_have_the_same_bits(name):
    optimizer = {
        "lookahead": optim.lookahead(2)(optim.adamw(1e-2)),
        "schedule_free": optim.schedule_free()(optim.adamw(1e-2, betas=[0.0, 0.999])),
        "scaled": optim.scaled(("layers.0", 0.5), (None, 1.0))(optim.adamw(1e-2)),
    }[name]
    layer, ends = nn.sequential(nn.remat(nn.linear(3, 8)), nn.tanh, nn.linear(8, 2)), []
    for update in ("at_end", "in_backward"):
        step = fp.train_step(layer, mean_square, optimizer, update=update)
        state = step.init(0)
        for _ in range(3):
            *state, _ = step(*state, mx.ones((4, 3)))
        ends.append(list(state))
    assert_same_bits(*ends)
