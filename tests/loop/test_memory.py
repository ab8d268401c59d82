"""A run holds the parameters and the optimiser's state of one moment, and none of an earlier one."""

import gc

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

WIDTH = 1024
SET = WIDTH * WIDTH * 4
"""Bytes of the parameters; the optimiser keeps two more such sets."""


def squared(model, x):
    return (model(x) ** 2).mean()


def sets(*verbs, **options):
    """How many sets of parameters are in memory between steps, and at most within one, after the first."""
    gc.collect()
    before, seen = mx.get_active_memory(), []

    def look(event):
        mx.synchronize()
        seen.append((mx.get_active_memory() - before) / SET)
        if event.step == 1:
            mx.reset_peak_memory()

    model = nn.linear(WIDTH, WIDTH, bias=False)
    target = pipe(fp.trainer(model, squared, optimizer=optim.adamw(1e-3)), fp.on("before_step", look), *verbs)
    pipe(target, fp.fit([mx.ones((2, WIDTH))] * 5, quiet=True, **options))
    return max(seen[1:]), (mx.get_peak_memory() - before) / SET


@pytest.mark.parametrize("options", [{}, {"epochs": 2}, {"sync": "step"}], ids=str)
@pytest.mark.usual("{'sync': 'step'}")
def test_a_run_holds_the_parameters_of_one_moment(options):
    between, most = sets(**options)
    assert between < 3.2
    assert most < 7.5, "a step makes three sets of three, and has the gradients meanwhile"


def again(event):
    return fp.Replace(params=event.state.params) if event.epoch == 0 else None


HOOKS = {
    "all listen": [
        fp.on(name, lambda event: None)
        for name in ("before_fit", "before_epoch", "after_step", "before_validation", "after_epoch")
    ],
    "replaced as the epoch begins": [fp.on("before_epoch", again)],
    "replaced before the first step": [fp.on("before_step", again, once=True)],
    "replaced after each": [fp.on("after_step", lambda event: fp.Replace(params=event.state.params))],
    "validated within the epoch": [fp.on("after_step", lambda event: fp.Validate(), every=2)],
}


@pytest.mark.parametrize("hooks", HOOKS.values(), ids=HOOKS)
@pytest.mark.usual("replaced as the epoch begins")
def test_a_run_with_hooks_holds_no_more(hooks):
    between, most = sets(*hooks, epochs=2, validation=[mx.ones((2, WIDTH))])
    assert between < 3.2
    assert most < 7.5


def test_an_event_that_is_kept_keeps_the_parameters_of_its_moment():
    kept = []
    names = ("before_fit", "before_epoch", "before_step", "after_step", "after_epoch")
    hooks = [fp.on(name, lambda event: kept.append((event, event.state.params["weight"] + 0))) for name in names]
    target = pipe(fp.trainer(nn.linear(3, 2, bias=False), squared, optimizer=optim.sgd(0.1)), *hooks)
    pipe(target, fp.fit([mx.ones((2, 3))] * 3, epochs=2, quiet=True))
    assert len(kept) == 1 + 2 * (1 + 3 * 2 + 1)
    for event, weight in kept:
        assert mx.array_equal(event.state.params["weight"], weight)
