"""A loss that is NaN or infinite: told with its step, or stopped at, or left out, and never in a checkpoint."""

from __future__ import annotations

import math
from contextlib import suppress

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_same_bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop._nonfinite import nonfinite_leaves

X = mx.random.normal((24, 3), key=mx.random.key(0))
GOOD = [(X[i : i + 4], X[i : i + 4].sum(axis=1)) for i in range(0, 24, 4)]
BAD = (mx.full((4, 3), math.nan), mx.zeros((4,)))


def batches(*bad):
    return [BAD if i in bad else batch for i, batch in enumerate(GOOD)]


def fit(train, *verbs, **options):
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(metrics=[])), fp.with_optimizer(optim.adam(1e-2)), *verbs)
    return pipe(target, fp.fit(train, quiet=True, **options))


@pytest.mark.parametrize("sync", ["async", "step", "epoch", "none"])
def test_it_is_an_error_with_its_step_and_batch(sync):
    with pytest.raises(FloatingPointError, match="the loss is nan at step 9, batch 3 of the epoch") as caught:
        fit(data.stream(lambda epoch: batches(3) if epoch == 1 else GOOD), epochs=3, sync=sync)
    assert any("split=train, epoch=1, batch=3" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("bad", range(6))
@pytest.mark.usual("1", "2", "3", "4", "5")
def test_its_step_is_that_of_its_batch_however_many_are_in_a_call(bad):
    words = f"the loss is nan at step {6 + bad}, batch {bad} of the epoch"
    with pytest.raises(FloatingPointError, match=words):
        fit(data.stream(lambda epoch: batches(bad) if epoch else GOOD), epochs=2, steps_per_call=4)


@pytest.mark.parametrize(("sync", "late"), [("async", 2), ("step", 2)])
def test_it_is_found_as_soon_as_its_step_is_no_longer_in_flight(sync, late):
    taken = []
    with pytest.raises(FloatingPointError, match="at step 1, batch 1"):
        fit(batches(1), fp.on("after_step", lambda e: taken.append(e.step)), sync=sync)
    assert taken == list(range(1 + late + 1))


@pytest.mark.parametrize("watched", ["val_loss", "always better"])
@pytest.mark.parametrize("bad", [3, 5])
def test_its_epoch_gets_no_verdict_wherever_in_it_that_is(bad, watched):
    metric = None if watched == "val_loss" else lambda row: 0.0
    monitor = fp.monitor(watched, metric=metric)
    report = fit(batches(bad), monitor, validation=GOOD, nonfinite="stop", keep_best=True)
    assert (report.best_epoch, report.best_value, report.rows[0].improved) == (None, None, False)
    assert report.best_params is None


def test_it_may_end_the_run_with_a_report():
    report = fit(batches(2), nonfinite="stop", epochs=3)
    assert report.stop_reason == "the loss is nan at step 2, batch 2 of the epoch"
    assert report.epochs_ran == 1
    assert math.isnan(report.losses[2])


def test_a_step_that_is_skipped_leaves_no_trace_but_its_loss():
    skipped = fit(batches(1, 4), nonfinite="skip", epochs=2, keep_losses=True)
    without = fit([GOOD[i] for i in (0, 2, 3, 5)], nonfinite="skip", epochs=2)
    assert_same_bits(skipped.params, without.params)
    assert skipped.rows[0].epoch_loss == pytest.approx(without.rows[0].epoch_loss)
    assert [math.isnan(loss) for loss in skipped.losses] == [False, True, False, False, True, False] * 2
    assert optim.reading("skipped")(skipped.opt_state).item() == 4


@pytest.mark.slow
def test_metrics_do_not_count_a_step_that_is_skipped():
    def mse(train):
        target = fp.trainer(nn.linear(3, 1), fp.regression(), optimizer=optim.sgd(1e-2))
        return pipe(target, fp.fit(train, nonfinite="skip", quiet=True)).rows[0].mse

    assert mse(batches(1, 4)) == pytest.approx(mse([GOOD[i] for i in (0, 2, 3, 5)]))


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.usual("True")
def test_an_update_on_several_batches_is_told_by_its_step_and_its_first_batch(resume, tmp_path):
    saved = fp.checkpoints(tmp_path / "{step}", every_steps=1)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5, batch 4 of the epoch"):
        fit(data.stream(lambda epoch: batches(5) if epoch else GOOD), saved, epochs=2, accumulate=2)
    if resume:
        with pytest.raises(FloatingPointError, match="the loss is nan at step 5, batch 4 of the epoch"):
            fit(batches(5), epochs=2, accumulate=2, resume=tmp_path / "4")


def test_skipping_resumes_to_the_same_bits(tmp_path):
    alone = fit(batches(1, 4), nonfinite="skip", epochs=3)
    fit(batches(1, 4), fp.checkpoints(tmp_path / "{step}", every_steps=1), nonfinite="skip", epochs=2)
    for step in (1, 2, 3, 7, 11):
        again = fit(batches(1, 4), nonfinite="skip", epochs=3, resume=tmp_path / str(step))
        assert_same_bits(again.params, alone.params)
        assert [row.epoch_loss for row in again.rows] == [row.epoch_loss for row in alone.rows]


def test_an_epoch_of_nothing_but_skipped_steps_has_no_loss():
    report = fit(batches(*range(6)), nonfinite="skip")
    assert math.isnan(report.rows[0].epoch_loss)
    assert report.best_value is None


def test_it_may_go_on():
    assert math.isnan(fit(batches(0), nonfinite="keep").rows[0].epoch_loss)


@pytest.mark.parametrize("policy", ["raise", "stop", "keep"])
def test_nothing_that_is_not_finite_is_in_a_checkpoint(policy, tmp_path):
    with suppress(FloatingPointError):
        fit(batches(2), fp.checkpoints(tmp_path / "{step}", every_steps=1, best=True), nonfinite=policy)
    for path in tmp_path.glob("*.safetensors"):
        assert all(mx.all(mx.isfinite(leaf)).item() for leaf in fp.flat(fp.load(path).params).values())


def test_another_name_is_refused_with_candidates():
    with pytest.raises(ValueError, match="unknown nonfinite 'skipp': did you mean 'skip'"):
        fit(GOOD, nonfinite="skipp")


# what a finite loss may leave behind ------------------------------------------------------------------------------


def steep(model, x, y):
    return (model(x).squeeze(-1) - y).square().mean() * mx.where(x[0, 0] > 100, 1e30, 1.0)


STEEP = [(mx.full((4, 3), 1000.0 if i == 2 else 1.0), mx.zeros((4,))) for i in range(5)]


def test_an_update_that_overflows_is_skipped_though_its_gradient_is_finite():
    target = fp.trainer(nn.linear(3, 1), steep, optimizer=optim.adam(1e-2))
    report = fp.fit(STEEP, epochs=2, nonfinite="skip", quiet=True)(target)
    assert optim.reading("skipped")(report.opt_state).item() == 2
    assert all(np.isfinite(np.array(leaf)).all() for leaf in fp.flat(report.params).values())
    assert all(np.isfinite(np.array(leaf)).all() for leaf in fp.flat(report.opt_state).values())


NORM = nn.sequential(nn.batch_norm(3), nn.fn(lambda x: mx.clip(x, -1, 1)), nn.linear(3, 1))
OVERFLOW = [(mx.array([[1e30, 0.0, 1.0], [-1e30, 1.0, 2.0]]) if i == 2 else mx.ones((2, 3)), None) for i in range(5)]


def bounded(model, x):
    return mx.where(mx.isfinite(y := model(x)), y, 0.0).square().mean()


def norm_run(**options):
    target = fp.trainer(NORM, bounded, optimizer=optim.sgd(1e-2))
    return fp.fit([x for x, _ in OVERFLOW], quiet=True, **options)(target)


@pytest.mark.slow
def test_buffers_that_overflow_are_noticed_at_the_end_of_an_epoch():
    with pytest.raises(FloatingPointError, match=r"layers.0.running_var not finite after step 5"):
        norm_run()
    report = norm_run(nonfinite="stop", epochs=3)
    assert "running_var not finite" in report.stop_reason
    assert report.epochs_ran == 1


def test_a_step_that_overflows_buffers_is_skipped():
    report = norm_run(nonfinite="skip")
    assert all(np.isfinite(np.array(leaf)).all() for leaf in fp.flat(report.params).values())
    assert optim.reading("skipped")(report.opt_state).item() == 1


@pytest.mark.parametrize("nonfinite", ["raise", "stop", "skip"])
@pytest.mark.usual("raise", "stop")
def test_a_constant_infinity_of_a_buffer_is_no_fault(tmp_path, nonfinite):
    mask = nn.buffer((3,), init=lambda shape: mx.array([0.0, -mx.inf, 0.0]))
    model = nn.define(lambda m, x: mx.softmax(m.head(x) + m.mask, axis=-1), head=nn.linear(3, 3), mask=mask)
    target = fp.checkpoints(tmp_path / "{step}")(fp.trainer(model, lambda m, x: m(x)[:, 0].mean()))
    report = fp.fit([mx.ones((2, 3))] * 3, nonfinite=nonfinite, quiet=True)(target)
    assert (report.stop_reason, len(report.checkpoints)) == (None, 1)
    assert report.rows[0].steps == 3


def test_a_loss_that_is_not_finite_is_an_error_after_a_stop_too():
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == 2 else None)
    bad = [(mx.full((4, 3), mx.nan if i == 2 else 1.0), mx.zeros((4,))) for i in range(5)]
    with pytest.raises(FloatingPointError, match="step 2"):
        fp.fit(bad, quiet=True)(stop(fp.trainer(nn.linear(3, 1), steep)))


def test_large_leaves_are_checked_one_after_another():
    leaves = {str(i): mx.zeros((1 << 20,)) for i in range(6)} | {"small": mx.zeros((3,))}
    mx.eval(leaves)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    assert nonfinite_leaves(leaves) == []
    assert mx.get_peak_memory() - before <= leaves["0"].nbytes
    for path in ("4", "small"):
        bad = leaves | {path: leaves[path].at[1].add(math.nan)}
        assert nonfinite_leaves(bad) == [path]
