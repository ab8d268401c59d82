"""Rates go down when a run gets no better, in the step that is there."""

from __future__ import annotations

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

RATE = ("optimizer", "learning_rate")


def rates(values, *verbs, optimizer=None, at=(RATE,)):
    """The learning rates, by their places in the state, that each epoch starts with."""
    seen, traced = [], []

    def loss(model, x):
        traced.append(x.shape)
        return x.mean() + 0 * model(x).mean()

    def look(event):
        seen.append([round(_at(event.state.opt_state, path), 6) for path in at])

    train = data.stream(lambda epoch: [mx.full((2, 1), values[epoch])])
    first = fp.on("before_epoch", look)
    target = pipe(fp.trainer(nn.linear(1, 1), loss), fp.with_optimizer(optimizer or optim.sgd(0.4)), first, *verbs)
    fp.fit(train, epochs=len(values), quiet=True)(target)
    assert len(traced) == 1, "another rate made another trace"
    return seen if len(at) > 1 else [rate for (rate,) in seen]


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree.item()


def test_the_rate_halves_after_so_many_epochs_without_improvement_and_counts_anew():
    assert rates([1.0] * 6, fp.plateau(0.5, patience=2)) == [0.4, 0.4, 0.4, 0.2, 0.2, 0.1]


def test_an_improvement_starts_the_count_again():
    assert rates([3.0, 3.0, 2.0, 2.0, 2.0, 2.0], fp.plateau(0.5, patience=2)) == [0.4] * 5 + [0.2]


def test_a_run_that_gets_better_keeps_its_rate():
    assert rates([3.0, 2.0, 1.0], fp.plateau(0.5, patience=1)) == [0.4, 0.4, 0.4]


def test_the_rate_goes_no_lower_than_the_least():
    assert rates([1.0] * 5, fp.plateau(0.5, patience=1, least=0.15)) == [0.4, 0.4, 0.2, 0.15, 0.15]


def test_a_rate_below_the_least_stays():
    assert rates([1.0] * 3, fp.plateau(0.5, patience=1, least=0.5)) == [0.4, 0.4, 0.4]


def test_the_new_rate_is_what_the_next_step_goes_by():
    def loss(model, x):
        return model(x).sum()

    weights = []
    look = fp.on("after_step", lambda e: weights.append(e.state.params["weight"].item()))
    flat = fp.monitor("flat", metric=lambda row: 1.0)
    verbs = (fp.with_optimizer(optim.sgd(0.5)), look, flat, fp.plateau(0.5, patience=1))
    start = {"weight": mx.zeros((1, 1)), "bias": mx.zeros((1,))}
    fp.fit([mx.ones((1, 1))], epochs=4, params=start, quiet=True)(pipe(fp.trainer(nn.linear(1, 1), loss), *verbs))
    assert weights == [-0.5, -1.0, -1.25, -1.375]


def test_every_group_and_every_wrapper_is_reached():
    optimizer = pipe(
        optim.groups(("weight", optim.clip_value(1.0)(optim.sgd(0.4))), (fp.everything, optim.adam(0.2))),
        optim.clip_norm(1.0),
        optim.ema(0.5),
    )
    groups = ("optimizer", "inner", "inner", "groups")
    at = ((*groups, 0, "inner", "learning_rate"), (*groups, 1, "learning_rate"))
    assert rates([1.0] * 3, fp.plateau(0.5, patience=1), optimizer=optimizer, at=at)[-1] == [0.2, 0.1]


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (optim.adam(optim.cosine_decay(0.1, 10)), "learning_rate"),
        (optim.clip_norm(1.0)(optim.sgd(optim.step_decay(0.1, 0.9, 2))), "inner.learning_rate"),
        (optim.ema(0.5)(optim.sgd(optim.step_decay(0.1, 0.9, 2))), "inner.learning_rate"),
        (
            optim.groups(("bias", optim.sgd(0.1)), (None, optim.sgd(optim.exponential_decay(0.1, 0.9)))),
            "groups.1.learning_rate",
        ),
    ],
)
def test_a_schedule_is_refused_before_the_first_step(optimizer, name):
    stepped = []
    verbs = (fp.with_optimizer(optimizer), fp.plateau(0.5), fp.on("before_step", stepped.append))
    with pytest.raises(ValueError, match=f"; {name} of .* is a schedule"):
        fp.fit([mx.ones((2, 1))], quiet=True)(pipe(fp.trainer(nn.linear(1, 1), lambda m, x: m(x).mean()), *verbs))
    assert stepped == []


def test_a_plateau_goes_by_the_monitor():
    rising = fp.monitor("epoch_loss", mode="max")
    assert rates([1.0, 2.0, 3.0], fp.plateau(0.5, patience=1), rising) == [0.4, 0.4, 0.4]
    assert rates([1.0, 2.0, 3.0], fp.plateau(0.5, patience=1)) == [0.4, 0.4, 0.2]


@pytest.mark.parametrize("factor", [0, 1, -0.5, 2.0])
def test_a_wrong_factor_fails_at_once(factor):
    with pytest.raises(ValueError, match="factor"):
        fp.plateau(factor)


@pytest.mark.parametrize("patience", [-1, 1.5, True])
def test_a_wrong_patience_fails_at_once(patience):
    with pytest.raises(ValueError, match="patience"):
        fp.plateau(0.5, patience=patience)
