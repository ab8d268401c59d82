"""A run holds the parameters and the optimiser's state of one moment, and none of an earlier one."""

import gc

import mlx.core as mx
import pytest
from helpers import batch_mean
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

WIDTH = 1024
SET = WIDTH * WIDTH * 4
"""Bytes of the parameters; the optimiser keeps two more such sets."""


def sets(*verbs, **options):
    """How many sets of parameters are in memory when each step but the first has been taken."""
    gc.collect()
    before, seen = mx.get_active_memory(), []

    def look(event):
        mx.synchronize()
        if event.step:
            seen.append((mx.get_active_memory() - before) / SET)

    model = nn.linear(WIDTH, WIDTH, bias=False)
    target = pipe(fp.trainer(model, batch_mean, optimizer=optim.adamw(1e-3)), fp.on("before_step", look), *verbs)
    pipe(target, fp.fit([mx.ones((2, WIDTH))] * 4, quiet=True, **options))
    return seen


@pytest.mark.parametrize("options", [{"epochs": 2}, {"sync": "step"}, {"sync": "none"}], ids=str)
def test_nothing_of_the_start_is_held(options):
    assert max(sets(**options)) < 3.5


def test_nothing_of_the_start_is_held_where_hooks_listen_to_everything():
    hooks = [fp.on(name, lambda event: None) for name in ("before_fit", "before_epoch", "after_step", "after_epoch")]
    assert max(sets(*hooks, epochs=2)) < 3.5
