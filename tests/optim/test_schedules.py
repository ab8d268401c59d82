"""Schedules with warm-up give the rates of their formulas, and MLX's own where it has them."""

from __future__ import annotations

import math
import re

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim


def rates(schedule, steps):
    return [mx.array(schedule(mx.array(step))).item() for step in range(steps)]


@pytest.mark.parametrize(("warmup", "end"), [(0, 0.0), (3, 0.0), (5, 0.02)])
def test_warmup_cosine_is_mlx_s_line_and_cosine_joined(warmup, end):
    theirs = mlx_optimizers.cosine_decay(0.1, 20 - warmup, end=end)
    if warmup:
        line = mlx_optimizers.linear_schedule(0.0, 0.1, warmup)
        theirs = mlx_optimizers.join_schedules([line, theirs], [warmup])
    ours = optim.warmup_cosine(0.1, 20, warmup=warmup, end=end)
    assert rates(ours, 25) == pytest.approx(rates(theirs, 25), abs=1e-7)


def test_wsd_stays_at_the_peak_until_a_tenth_is_left():
    found = rates(optim.wsd(0.5, 100, warmup=10), 110)
    assert found[:11] == pytest.approx([0.05 * step for step in range(11)])
    assert found[10:91] == pytest.approx([0.5] * 81)
    assert found[90:101] == pytest.approx([0.05 * step for step in range(10, -1, -1)], abs=1e-7)
    assert found[101:] == [0.0] * 9


def test_one_cycle_is_pytorch_s():
    # torch.optim.lr_scheduler.OneCycleLR(max_lr=0.1, total_steps=10) of torch 2.13.0: the rate of each step
    wanted = [0.004, 0.052, 0.1, 0.09504846, 0.08117457, 0.06112620, 0.03887420, 0.01882583, 0.00495194, 4e-7]
    assert rates(optim.one_cycle(0.1, 10), 10) == pytest.approx(wanted, abs=1e-8)
    assert rates(optim.one_cycle(0.1, 10), 13)[10:] == pytest.approx([4e-7] * 3, abs=1e-9)


@pytest.mark.parametrize("make", [optim.warmup_cosine, optim.wsd, optim.one_cycle])
@pytest.mark.usual("wsd")
def test_each_is_a_rate_of_a_compiled_step(make):
    schedule = make(0.1, 10)
    step = fp.train_step(nn.linear(2, 1), lambda model, x: model(x).mean(), optim.sgd(schedule))
    params, state = step.init(0)
    for number in range(4):
        params, state, _ = step(params, state, mx.ones((2, 2)))
        assert state["optimizer"]["learning_rate"].item() == pytest.approx(schedule(number).item())
    assert step.traces == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.warmup_cosine(-0.1, 10), "peak of warmup_cosine is a finite number above 0; got -0.1"),
        (lambda: optim.warmup_cosine(0.1, 10, warmup=10), "warmup=10 of warmup_cosine take more than the 10 steps"),
        (lambda: optim.warmup_cosine(0.1, 10, end=math.nan), "end of warmup_cosine"),
        (lambda: optim.warmup_cosine(0.1, 0), "steps of warmup_cosine is a count, 1 or more"),
        (lambda: optim.wsd(0.1, 10, warmup=6, decay=5), "warmup=6 and decay=5 of wsd take more than the 10 steps"),
        (lambda: optim.wsd(0.1, 10, decay=0), "decay of wsd is a count, 1 or more"),
        (lambda: optim.one_cycle(0.1, 10, rise=1.0), "rise of one_cycle"),
        (lambda: optim.one_cycle(0.1, 10, rise=0.1), "rise=0.1 of one_cycle takes 1 of 10 steps"),
        (lambda: optim.one_cycle("a", 10), "peak of one_cycle"),
    ],
)
def test_wrong_options_are_refused_where_they_are_given(make, words):
    with pytest.raises((ValueError, TypeError), match=re.escape(words)):
        make()
