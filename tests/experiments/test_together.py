"""Trials that train together have the reports, monitors, stops and files of trials that train alone."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial

import mlx.core as mx
import pytest
from helpers import PLAIN, assert_close
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.step import _member_step
from mlx_fp.step._member_step import stacked

X = mx.random.normal((48, 6), key=mx.random.key(0))
Y = mx.argmax(X[:, :3] + 0.3 * mx.random.normal((48, 3), key=mx.random.key(1)), axis=1)
RELATIVE = 1e-3 if PLAIN else 1e-6
"""The tolerance of floats: MLX's own BLAS sums as its arrays lie in memory, and a few epochs enlarge the difference."""

GRID = {"optimizer.learning_rate": [1e-2, 0.3], "optimizer.weight_decay": [0.0, 0.1], "seed": [0, 1]}


def batches():
    train = (data.arrays(x=X[:32], y=Y[:32]), data.shuffle(seed=1), data.batch(8))
    return data.splits(train=train, validation=(data.arrays(x=X[32:], y=Y[32:]), data.batch(8)))


def made(*verbs, **parts):
    # no bias before batch norm: its gradient is rounding alone, which Adam makes as large as any other
    first = nn.linear(6, 8, bias=False)
    model = nn.sequential(first, nn.batch_norm(8), nn.relu, nn.dropout(0.2), nn.linear(8, 3))
    usual = {
        "model": model,
        "task": fp.classification(),
        "optimizer": partial(optim.adamw, 1e-2),
        "data": batches,
        "epochs": 3,
    }
    return fp.experiment("blobs", *verbs, **{**usual, **parts})


def sweep(grid, target, **options):
    return fp.sweep(grid, quiet=True, compile=False, **options)(target)


def plain_rows(report):
    return [replace(row, seconds=0.0, timed=None, checkpoint=None).to_dict() for row in report.rows]


def assert_near(mine, alone):
    """Assert that plain values are equal, and floats to rounding."""
    if isinstance(mine, dict):
        assert mine.keys() == alone.keys()
        for name in mine:
            assert_near(mine[name], alone[name])
    elif isinstance(mine, list):
        assert len(mine) == len(alone)
        for one, other in zip(mine, alone, strict=True):
            assert_near(one, other)
    elif isinstance(mine, float):
        assert mine == pytest.approx(alone, rel=RELATIVE, abs=1e-6)
    else:
        assert mine == alone


def assert_as_alone(together, alone):
    assert [trial.settings for trial in together.trials] == [trial.settings for trial in alone.trials]
    for mine, other in zip(together.trials, alone.trials, strict=True):
        one, two = mine.report, other.report
        assert_near(list(one.losses), list(two.losses))
        assert_near(plain_rows(one), plain_rows(two))
        assert_near(one.best_value, two.best_value)
        names = ("best_epoch", "best_step", "epochs_ran", "stopped_early", "stop_reason", "monitor_name")
        assert [getattr(one, name) for name in names] == [getattr(two, name) for name in names]
    assert together.best.settings == alone.best.settings
    assert_close(together.best.report.params, alone.best.report.params, rtol=1e-3, atol=1e-5)


def test_trials_that_train_together_have_the_reports_of_trials_that_train_alone():
    assert_as_alone(sweep(GRID, made(), together=True), sweep(GRID, made()))


@pytest.mark.slow
def test_each_trial_stops_by_itself():
    target = made(partial(fp.early_stop, patience=1), epochs=8)
    together, alone = sweep(GRID, target, together=True), sweep(GRID, target)
    assert_as_alone(together, alone)
    assert len({trial.report.epochs_ran for trial in together.trials}) > 1


def test_a_trial_that_is_lost_stops_and_the_others_go_on():
    grid = {"optimizer.learning_rate": [1e-2, 1e30, 1e-1]}
    together, alone = (
        sweep(grid, made(optimizer=partial(optim.sgd, 0.1)), together=True),
        sweep(grid, made(optimizer=partial(optim.sgd, 0.1))),
    )
    reasons = [trial.report.stop_reason for trial in together.trials]
    assert reasons == [trial.report.stop_reason for trial in alone.trials]
    assert reasons[0] is None
    assert reasons[1] is not None
    assert_near(list(together.trials[2].report.losses), list(alone.trials[2].report.losses))


def test_a_hook_that_fails_ends_its_trial_alone():
    def failing(event):
        if event.loss_value > 1e3:
            raise RuntimeError("too large")

    grid = {"optimizer.learning_rate": [1e-2, 1e8, 1e-1]}
    target = made(fp.on("after_step", failing), optimizer=partial(optim.sgd, 0.1))
    with pytest.warns(RuntimeWarning, match="trial 2 ended with RuntimeError: too large"):
        found = sweep(grid, target, together=True)
    assert [trial.report is None for trial in found.trials] == [False, True, False]
    assert found.trials[2].report.epochs_ran == 3


@pytest.mark.slow
def test_a_compiled_sweep_has_a_trace_for_each_number_of_trials():
    target = made(model=nn.linear(6, 3), epochs=2)
    grid = {"optimizer.learning_rate": [1e-3, 1e-1]}
    together, alone = (fp.sweep(grid, quiet=True, together=each)(target) for each in (True, False))
    assert_as_alone(together, alone)


OPTIONS = {
    "log_every": {"log_every": 3},
    "keep_best": {"keep_best": True},
    "skip": {"nonfinite": "skip"},
    "steps": {"steps": 7},
    "bfloat16": {"dtype": mx.bfloat16},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.usual("steps")
def test_options_of_a_run_have_their_effect_together(name):
    grid = {"optimizer.learning_rate": [1e-2, 1e-1]}
    together, alone = (sweep(grid, made(), together=each, **OPTIONS[name]) for each in (True, False))
    if name != "bfloat16":
        assert_as_alone(together, alone)
    for mine, other in zip(together.trials, alone.trials, strict=True):
        assert mine.report.losses == pytest.approx(other.report.losses, rel=2e-2 if name == "bfloat16" else RELATIVE)
        assert [row.grad_norm for row in mine.report.steps] == pytest.approx(
            [row.grad_norm for row in other.report.steps], rel=max(RELATIVE, 1e-4)
        )


def test_an_interrupt_ends_all_trials_and_the_sweep_goes_on_from_there(tmp_path):
    sent = []

    def interrupt(event):
        if event.step == 5 and not sent:
            sent.append(event.step)
            os.kill(os.getpid(), signal.SIGINT)

    grid, out = {"seed": [0, 1]}, tmp_path / "grid"
    stopped = sweep(grid, made(fp.on("after_step", interrupt, name="watch")), together=True, out=out)
    assert [trial.report.stop_reason for trial in stopped.trials] == ["SIGINT"] * 2
    resumed = sweep(
        grid, made(fp.on("after_step", lambda event: None, name="watch")), together=True, out=out, resume="latest"
    )
    alone = sweep(grid, made())
    for mine, other in zip(resumed.trials, alone.trials, strict=True):
        assert mine.report.rows[-1].steps == 12
        assert_near(mine.report.rows[-1].loss, other.report.rows[-1].loss)


def test_the_members_are_stacked_once_an_epoch(monkeypatch):
    calls = []
    monkeypatch.setattr(_member_step, "stacked", lambda trees: calls.append(len(trees)) or stacked(trees))
    sweep({"seed": [0, 1, 2]}, made(), together=True)
    assert calls == [3, 3, 3]


@pytest.mark.slow
def test_the_files_are_those_of_trials_that_train_alone(tmp_path):
    grid = {"optimizer.learning_rate": [1e-2, 1e-1]}
    for name in ("together", "alone"):
        sweep(grid, made(), together=name == "together", out=tmp_path / name)
    files = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("together", "alone")]
    assert files[0] == files[1]
    trials = [sorted((tmp_path / name / "trial-2").rglob("*.safetensors"))[-1] for name in ("together", "alone")]
    mine, alone = map(fp.load, trials)
    assert_close(mine.params, alone.params, rtol=1e-4)
    assert_close(mine.opt_state, alone.opt_state, rtol=1e-4)
    resumed = sweep(grid, made(epochs=4), together=True, out=tmp_path / "together", resume="latest")
    assert [trial.report.start_epoch for trial in resumed.trials] == [3, 3]
    longer = sweep(grid, made(epochs=4))
    assert_near(resumed.trials[1].report.rows[-1].loss, longer.trials[1].report.rows[-1].loss)


def test_an_ensemble_has_the_reports_of_its_seeds_and_predicts_with_a_spread():
    found = fp.ensemble(3, quiet=True, compile=False)(made(seed=5))
    for i, report in enumerate(found.reports):
        alone = fp.run(quiet=True, compile=False, seed=5 + i)(made())
        assert_near(list(report.losses), list(alone.losses))
        assert_close(report.params, alone.params, rtol=1e-4, atol=1e-5)
    mean, spread = found.predict(X)
    outputs = mx.stack([made().model.apply(r.params, X)[0] for r in found.reports])
    assert_close(mean, outputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert_close(spread, mx.std(outputs, axis=0), rtol=1e-4, atol=1e-5)
    assert found.to_dict()["mean"] == pytest.approx(sum(found.values) / 3)


REFUSED = {
    "another path": ({"data.batch_size": [1, 2]}, {}, "'data.batch_size' may differ"),
    "no number": ({"optimizer.learning_rate": [0.1, optim.cosine_decay(0.1, 5)]}, {}, "are numbers"),
    "accumulate": (GRID, {"accumulate": 2}, "accumulate=2 is for trials that train alone"),
    "steps per call": (GRID, {"steps_per_call": 2}, "steps_per_call=2 is for trials that train alone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_settings_and_options_that_trials_cannot_share_are_refused(name):
    grid, options, words = REFUSED[name]
    target = made(data=lambda batch_size=8: batches())
    with pytest.raises(ValueError, match=words):
        sweep(grid, target, together=True, **options)


def test_hooks_on_gradients_and_models_that_mlx_cannot_vmap_are_refused_before_the_first_step():
    hook = fp.on("after_backward", lambda event: None)
    with pytest.raises(TypeError, match="after_backward need a step with .*one of several members.* has none"):
        sweep(GRID, made(hook), together=True)
    deep = nn.sequential(nn.remat(nn.linear(6, 8)), nn.linear(8, 3))
    with pytest.raises(ValueError, match=r"layers\.0: .*remat"):
        sweep(GRID, made(model=deep), together=True)
    with pytest.raises(ValueError, match="momentum of sgd"):
        sweep({"optimizer.momentum": [0.0, 0.9]}, made(optimizer=partial(optim.sgd, 0.1)), together=True)


def test_an_optimiser_of_options_and_verbs_may_be_swept():
    def optimizer(rate=0.1, decay=0.9, norm=1.0):
        return pipe(optim.adamw(rate), optim.clip_norm(norm), optim.ema(decay))

    grid = {"optimizer.decay": [0.5, 0.99], "optimizer.norm": [0.1, 5.0]}
    target = made(optimizer=optimizer)
    assert_as_alone(sweep(grid, target, together=True), sweep(grid, target))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="1 or more; got 0"):
        fp.ensemble(0)
    with pytest.raises(TypeError, match="takes an experiment; got Trainer"):
        fp.ensemble(2)(made().trainer)
