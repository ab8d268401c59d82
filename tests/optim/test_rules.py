"""Options that no optimiser, schedule or wrapper can have are an error where they are given."""

from __future__ import annotations

import inspect
import math
import re

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest

from mlx_fp import optim
from mlx_fp.optim import _mlx_optimizers as stock
from mlx_fp.optim._rules import OPTIMIZERS, SCHEDULES

MADE = [name for name in stock.__all__ if isinstance(getattr(stock, name).__wrapped__, type)]
SCHEDULED = [name for name in stock.__all__ if name not in MADE]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf, "a", True, [0.1], mx.array(-1.0)], ids=repr)
def test_every_optimiser_refuses_a_rate_that_is_none(name, rate):
    with pytest.raises((ValueError, TypeError), match=f"learning_rate of {name} is a finite number of at least 0, or"):
        getattr(optim, name)(rate)


def test_a_text_is_a_type_error_and_a_number_a_value_error():
    with pytest.raises(TypeError, match="learning_rate of adam is .*got 'a'"):
        optim.adam("a")
    with pytest.raises(ValueError, match="learning_rate of sgd is .*got -0.1"):
        optim.sgd(-0.1)


@pytest.mark.parametrize("rate", [0, 0.0, 1e-3, np.float32(0.1), mx.array(0.1), optim.cosine_decay(0.1, 5)], ids=repr)
def test_rates_that_are_some_are_taken(rate):
    assert optim.sgd(rate).name == "sgd"


@pytest.mark.parametrize("name", MADE)
def test_every_option_of_every_optimiser_has_a_rule(name):
    assert set(inspect.signature(getattr(mlx_optimizers, getattr(stock, name).__wrapped__.__name__)).parameters) <= set(
        OPTIMIZERS
    )


@pytest.mark.parametrize("name", SCHEDULED)
def test_every_option_of_every_schedule_has_a_rule(name):
    assert set(inspect.signature(getattr(mlx_optimizers, name)).parameters) <= set(SCHEDULES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.adam(0.1, betas=[0.9, 1.0]), "betas of adam is two of these"),
        (lambda: optim.adam(0.1, betas=0.9), "betas of adam"),
        (lambda: optim.adam(0.1, eps=-1e-8), "eps of adam"),
        (lambda: optim.adamw(0.1, weight_decay=-0.01), "weight_decay of adamw"),
        (lambda: optim.adamw(0.1, bias_correction="no"), "bias_correction of adamw is True or False"),
        (lambda: optim.sgd(0.1, momentum=1.5), "momentum of sgd"),
        (lambda: optim.sgd(0.1, nesterov=1), "nesterov of sgd is True or False"),
        (lambda: optim.rmsprop(0.1, alpha=math.nan), "alpha of rmsprop"),
        (lambda: optim.adafactor(eps=(1e-30, -1.0)), "eps of adafactor"),
        (lambda: optim.adafactor(clip_threshold=0.0), "clip_threshold of adafactor"),
        (lambda: optim.muon(0.1, ns_steps=0), "ns_steps of muon is a count, 1 or more; got 0"),
        (lambda: optim.lift(mlx_optimizers.SGD, -0.1), "learning_rate of sgd"),
        (lambda: optim.lift(mlx_optimizers.SGD(-0.1)), "learning_rate of sgd, at its first"),
        (
            lambda: optim.sgd(lambda step: -1.0 + 0 * step.astype(mx.float32)),
            "learning_rate of sgd, at its first",
        ),
        (lambda: optim.cosine_decay(-0.1, 10), "init of cosine_decay"),
        (lambda: optim.cosine_decay(0.1, 10, end=math.nan), "end of cosine_decay"),
        (lambda: optim.cosine_decay(0.1, math.nan), "decay_steps of cosine_decay"),
        (lambda: optim.exponential_decay(0.1, -0.9), "decay_rate of exponential_decay"),
        (lambda: optim.linear_schedule(0.0, "a", 5), "end of linear_schedule"),
        (lambda: optim.step_decay(0.1, 0.5, 0), "step_size of step_decay"),
        (lambda: optim.join_schedules([0.1, 0.2], [5]), "schedules of join_schedules is a list of schedules"),
        (lambda: optim.join_schedules([optim.cosine_decay(0.1, 5)] * 3, [5, 5]), "boundaries of join_schedules"),
        (lambda: optim.scale_rates(0.0), "factor of scale_rates"),
        (lambda: optim.scale_rates(0.5, least=-1.0), "least of scale_rates"),
        (lambda: optim.clip_norm(-1.0), "max_norm"),
        (lambda: optim.clip_value(math.nan), "limit"),
        (lambda: optim.ema(math.nan), "decay"),
    ],
)
def test_wrong_options_are_refused_where_they_are_given(make, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make()


def test_an_optimiser_of_one_s_own_has_rules_of_its_own():
    class Uphill(mlx_optimizers.SGD):
        def __init__(self, learning_rate, momentum):
            super().__init__(learning_rate)

    assert optim.lift(Uphill, 0.1, momentum=-5).name == "uphill"
