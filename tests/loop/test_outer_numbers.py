"""A number that changes outside a compiled loss is warned of: the step keeps the value of its trace."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

BATCHES = [mx.ones((4, 3))] * 2
beta = 1.0


def run(loss, change, **options):
    fp.fit(BATCHES, epochs=4, quiet=True, **options)(
        pipe(fp.trainer(nn.linear(3, 1), loss), fp.on("after_epoch", change))
    )


def of_closure():
    options = {"beta": 1.0}
    return lambda model, x: options["beta"] * model(x).mean(), lambda e: options.update(beta=e.epoch + 2.0), "options"


def of_attribute():
    options = SimpleNamespace(beta=1.0)
    return lambda model, x: options.beta * model(x).mean(), lambda e: setattr(options, "beta", e.epoch + 2.0), "options"


def of_module():
    def scaled(value):
        return beta * value

    return lambda model, x: scaled(model(x).mean()), lambda e: globals().update(beta=e.epoch + 2.0), "beta"


@pytest.mark.parametrize("made", [of_closure, of_attribute, of_module])
@pytest.mark.usual("of_attribute", "of_module")
def test_it_is_warned_of_once(made):
    loss, change, name = made()
    with pytest.warns(
        RuntimeWarning, match=rf"reads {name}.* which went from 2.0 to 3.0, and the compiled step keeps"
    ) as seen:
        run(loss, change)
    assert len(seen) == 1


@pytest.mark.parametrize("made", [of_closure, of_attribute, of_module])
def test_without_compilation_it_has_its_effect(made):
    loss, change, _ = made()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss, change, compile=False)


def test_a_number_that_the_loss_itself_counts_with_is_none_of_these():
    calls = {"count": 0}

    def loss(model, x):
        calls["count"] += 1
        return model(x).mean()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(loss, lambda e: None)
    assert calls["count"] == 1


def test_a_constant_that_is_nan_is_no_change():
    missing = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(lambda model, x: mx.where(x == missing, 0.0, model(x)).mean(), lambda e: None)
