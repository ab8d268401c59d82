"""Runs that get no better, or are lost, end."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest
from helpers import batch_mean
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn


def run(values, *verbs):
    train = data.stream(lambda epoch: [mx.full((2, 1), values[epoch])])
    target = pipe(fp.trainer(nn.linear(1, 1), batch_mean), *verbs)
    return fp.fit(train, epochs=len(values), nonfinite="keep", quiet=True)(target)


def steps(values, *verbs):
    """One epoch with a step for each value."""
    batches = [mx.full((2, 1), value) for value in values]
    return fp.fit(batches, quiet=True)(pipe(fp.trainer(nn.linear(1, 1), batch_mean), *verbs))


@pytest.mark.parametrize(("patience", "ran"), [(0, 3), (1, 3), (2, 4), (3, 7)])
def test_a_run_stops_once_as_many_epochs_in_a_row_as_its_patience_bring_nothing(patience, ran):
    report = run([3.0, 2.0, 2.5, 2.5, 1.0, 1.0, 1.0], fp.early_stop(patience))  # stale: 0 0 1 2 0 1 2
    assert report.epochs_ran == ran
    assert report.stopped_early == (ran < 7)


def test_patience_0_stops_at_the_first_epoch_without_improvement():
    report = run([3.0, 2.0, 2.0, 1.0], fp.early_stop())
    assert (report.epochs_ran, report.best_epoch) == (3, 1)
    assert report.stop_reason == "no improvement in 1 evaluations"


def test_patience_counts_from_the_best_epoch():
    report = run([1.0, 2.0, 0.5, 2.0, 2.0, 2.0, 0.1], fp.early_stop(2))
    assert (report.epochs_ran, report.best_epoch) == (5, 2)


def test_a_run_that_gets_better_ends_as_planned():
    report = run([3.0, 2.0, 1.0], fp.early_stop(0))
    assert (report.epochs_completed, report.stopped_early, report.stop_reason) == (3, False, None)


def test_nan_from_the_start_runs_out_of_patience():
    assert run([math.nan] * 5, fp.early_stop(2)).epochs_ran == 2


def test_what_improves_is_the_monitors_to_say():
    falling = [1.0, 0.75, 0.5, 0.25]
    assert run(falling, fp.early_stop(0), fp.monitor("epoch_loss", min_delta=0.5)).epochs_ran == 2
    assert run(falling, fp.early_stop(0), fp.monitor("epoch_loss", mode="max")).epochs_ran == 2
    assert run(falling, fp.early_stop(0)).epochs_ran == 4


def test_a_stop_is_sticky_and_the_first_reason_stays():
    late = fp.on("after_epoch", lambda e: fp.Stop("too late"), priority=5)
    mind = fp.on("after_epoch", lambda e: None, priority=6)
    report = run([1.0, 2.0, 0.5], fp.early_stop(0), late, mind)
    assert (report.epochs_ran, report.stop_reason) == (1, "too late")
    both = run([1.0, 2.0, 0.5], fp.early_stop(0), fp.on("after_epoch", lambda e: fp.Stop("late") if e.epoch else None))
    assert (both.epochs_ran, both.stop_reason) == (2, "no improvement in 1 evaluations")


@pytest.mark.parametrize("patience", [-1, 1.5, True, None])
def test_a_wrong_patience_fails_at_once(patience):
    with pytest.raises(ValueError, match="patience"):
        fp.early_stop(patience)


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(lost):
    report = steps([1.0, lost, 1.0], fp.stop_on_divergence(every=1))
    assert report.rows[0].steps == 2
    assert report.stop_reason == f"the loss is {lost:g} at step 1"


def test_a_loss_beyond_the_limit_stops_the_run_and_one_at_it_does_not():
    report = steps([1.0, 4.0, 4.5, 1.0], fp.stop_on_divergence(every=1, above=4.0))
    assert report.rows[0].steps == 3
    assert report.stop_reason == "the loss is 4.5 at step 2"


def test_divergence_is_looked_for_at_every_so_many_steps():
    report = steps([1.0, math.nan, 1.0, math.nan, 1.0], fp.stop_on_divergence(every=3))
    assert report.rows[0].steps == 4


def test_a_wrong_every_fails_at_once():
    with pytest.raises(ValueError, match="every"):
        fp.stop_on_divergence(every=0)
