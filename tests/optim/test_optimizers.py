"""Every optimiser and schedule of mlx.optimizers, through the compiled step, against MLX's own idiom."""

from __future__ import annotations

import inspect

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from helpers import assert_close, mse

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import flat

CLASSES = {
    "adadelta": mlx_optimizers.AdaDelta,
    "adafactor": mlx_optimizers.Adafactor,
    "adagrad": mlx_optimizers.Adagrad,
    "adam": mlx_optimizers.Adam,
    "adamax": mlx_optimizers.Adamax,
    "adamw": mlx_optimizers.AdamW,
    "lion": mlx_optimizers.Lion,
    "muon": mlx_optimizers.Muon,
    "rmsprop": mlx_optimizers.RMSprop,
    "sgd": mlx_optimizers.SGD,
}
OPTIONS = {"adafactor": {"relative_step": False}, "sgd": {"momentum": 0.9}}
SCHEDULES = {
    "cosine_decay": lambda: optim.cosine_decay(0.02, 4),
    "exponential_decay": lambda: optim.exponential_decay(0.02, 0.5),
    "join_schedules": lambda: optim.join_schedules(
        [optim.linear_schedule(0.0, 0.02, 2), optim.cosine_decay(0.02, 4)], [2]
    ),
    "linear_schedule": lambda: optim.linear_schedule(0.02, 0.0, 4),
    "step_decay": lambda: optim.step_decay(0.02, 0.5, 2),
}


NEAR = {"rtol": 2e-4, "atol": 2e-6}


class Net(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = mlx_nn.Linear(3, 4)
        self.head = mlx_nn.Linear(4, 2)

    def __call__(self, x):
        return self.head(mx.tanh(self.hidden(x)))


def batches(count, dtype=mx.float32):
    draw = np.random.default_rng(0)
    return [
        tuple(mx.array(draw.normal(size=(6, n)).astype(np.float32)).astype(dtype) for n in (3, 2)) for _ in range(count)
    ]


def by_mlx(module, optimizer, data):
    """Train a module with MLX's own idiom, eagerly."""
    gradients = mlx_nn.value_and_grad(module, mse)
    for x, y in data:
        _, grads = gradients(module, x, y)
        optimizer.update(module, grads)
        mx.eval(module.parameters(), optimizer.state)
    return flat(module.parameters())


def by_step(params, optimizer, data):
    step = fp.train_step(nn.lift(Net), mse, optimizer)
    params, opt_state = step.init(params)
    for batch in data:
        params, opt_state, _ = step(params, opt_state, batch)
        mx.eval(params, opt_state)
    return flat(params), opt_state, step


def test_every_optimiser_and_schedule_of_mlx_is_here():
    kinds = {
        n for n, c in vars(mlx_optimizers).items() if inspect.isclass(c) and issubclass(c, mlx_optimizers.Optimizer)
    }
    assert {c.__name__ for c in CLASSES.values()} == kinds - {"Optimizer", "MultiOptimizer"}
    schedules = {n for n in vars(mlx_optimizers.schedulers) if n.endswith(("_decay", "_schedule", "_schedules"))}
    assert schedules == SCHEDULES.keys()
    assert {*CLASSES, *SCHEDULES} <= set(optim.__all__)


@pytest.mark.parametrize("scheduled", [False, True], ids=["plain", "scheduled"])
@pytest.mark.parametrize("name", CLASSES)
def test_compiled_steps_equal_mlx_to_rounding(name, scheduled):
    rate = SCHEDULES["step_decay"]() if scheduled else 0.02
    options = OPTIONS.get(name, {})
    module, data = Net(), batches(5)
    start = nn.split(module)[1]
    mine, opt_state, step = by_step(start, getattr(optim, name)(rate, **options), data)
    theirs = CLASSES[name](rate, **options)
    # Muon's five Newton-Schulz iterations amplify the rounding of fused kernels
    near = {"rtol": 1e-3, "atol": 2e-5} if name == "muon" else NEAR
    assert_close(mine, by_mlx(module, theirs, data), **near)
    assert step.traces == 1
    assert opt_state["optimizer"]["step"].item() == 5
    assert abs(opt_state["optimizer"]["learning_rate"].item() - theirs.learning_rate.item()) < 1e-9


def test_adafactor_without_a_rate_equals_mlx_to_rounding():
    module, data = Net(), batches(4)
    start = nn.split(module)[1]
    mine, opt_state, step = by_step(start, optim.adafactor(warmup_init=True, beta_1=0.9), data)
    assert_close(mine, by_mlx(module, mlx_optimizers.Adafactor(warmup_init=True, beta_1=0.9), data), **NEAR)
    assert step.traces == 1
    assert "learning_rate" not in opt_state["optimizer"]


@pytest.mark.parametrize("options", [{"bias_correction": True}, {"betas": [0.5, 0.6], "eps": 1e-4}], ids=str)
@pytest.mark.usual("{'betas': [0.5, 0.6], 'eps': 0.0001}")
def test_options_reach_mlx(options):
    module, data = Net(), batches(3)
    start = nn.split(module)[1]
    mine, _, _ = by_step(start, optim.adam(0.02, **options), data)
    assert_close(mine, by_mlx(module, mlx_optimizers.Adam(0.02, **options), data), **NEAR)
    other, _, _ = by_step(start, optim.adam(0.02), data)
    assert any(mx.abs(mine[p] - other[p]).max().item() > 1e-3 for p in mine)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_advance_with_the_step_and_are_those_of_mlx(name):
    params = {"w": mx.ones((2,))}
    opt = optim.sgd(SCHEDULES[name]())
    state, rates, wanted = opt.init(params), [], []
    reference = mlx_optimizers.SGD(SCHEDULES[name]())
    module = mlx_nn.Module()
    module.w = mx.ones((2,))
    for _ in range(6):
        params, state = opt.update({"w": mx.ones((2,))}, state, params)
        reference.update(module, {"w": mx.ones((2,))})
        rates.append(state["learning_rate"].item())
        wanted.append(reference.learning_rate.item())
    assert rates == wanted
    assert len(set(rates)) >= 3, "the schedule stands still"
    assert params["w"].tolist() == module.w.tolist()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.usual("adagrad", "adam", "adamax", "lion", "rmsprop", "sgd")
def test_bfloat16_parameters_keep_every_dtype_and_take_float32_rates(name):
    module = Net()
    module.set_dtype(mx.bfloat16)
    step = fp.train_step(
        nn.lift(Net), mse, getattr(optim, name)(SCHEDULES["linear_schedule"](), **OPTIONS.get(name, {}))
    )
    params, opt_state = step.init(nn.split(module)[1])
    before = {path: leaf.dtype for path, leaf in flat({"p": params, "s": opt_state}).items()}
    for batch in batches(3, mx.bfloat16):
        params, opt_state, logs = step(params, opt_state, batch)
    after = {path: leaf.dtype for path, leaf in flat({"p": params, "s": opt_state}).items()}
    assert after == before
    assert {leaf.dtype for leaf in flat(params).values()} == {mx.bfloat16}
    assert opt_state["optimizer"]["learning_rate"].dtype == logs["loss"].dtype == mx.float32
    assert step.traces == 1
    assert any(
        mx.any(a != b).item() for a, b in zip(flat(params).values(), flat(module.parameters()).values(), strict=True)
    )
