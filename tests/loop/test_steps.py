"""Runs that count steps: their length, validation and logs every n steps, and updates on several batches."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((40, 3), key=mx.random.key(1))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=2), data.batch(8))  # 5 batches
HELD_OUT = pipe(data.arrays(x=X[:20], y=Y[:20]), data.batch(8))
MODEL = nn.sequential(nn.linear(3, 8), nn.relu, nn.linear(8, 2))


def trainer(*verbs, optimizer=None):
    return pipe(fp.trainer(MODEL, fp.classification(), optimizer=optimizer or optim.adam(1e-2)), *verbs)


def run(*verbs, train=TRAIN, optimizer=None, **options):
    return fp.fit(train, quiet=True, **options)(trainer(*verbs, optimizer=optimizer))


# length ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "rows"), [(3, [3]), (5, [5]), (12, [5, 10, 12])])
def test_a_number_of_updates_ends_a_run_and_the_data_go_round(steps, rows):
    report = run(steps=steps)
    assert [row.steps for row in report.rows] == rows
    assert len(report.losses) == report.rows[-1].steps == steps
    assert (report.steps_target, report.epochs_target, report.stopped_early) == (steps, None, False)
    assert report.epochs_completed == steps // 5


def test_as_many_steps_as_epochs_have_are_the_same_run():
    one, other = run(steps=10), run(epochs=2)
    assert_same_bits(one.params, other.params)
    assert [row.epoch_loss for row in one.rows] == [row.epoch_loss for row in other.rows]


@pytest.mark.parametrize("per_call", [1, 2, 4])
@pytest.mark.usual("1", "2")
def test_several_steps_in_a_call_do_not_go_beyond_the_end(per_call):
    report = run(steps=7, steps_per_call=per_call)
    assert len(report.losses) == 7
    assert_close(report.params, run(steps=7).params, atol=1e-5)


def test_a_stream_without_end_trains_for_so_many_steps():
    def forever():
        while True:
            yield {"x": X[:8], "y": Y[:8]}

    assert len(run(train=data.stream(forever), steps=9).losses) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps of a run is a count, 0 or more"),
        ({"steps": 2.0}, "steps of a run is a count"),
        ({"steps": 3, "epochs": 1}, "epochs=1 or steps=3 says: give one"),
        ({"validate_every": 0, "validation": HELD_OUT}, "validate_every of a run is a count, 1 or more"),
        ({"log_every": 0}, "log_every of a run is a count"),
        ({"accumulate": 0}, "accumulate of a run is a count"),
        ({"accumulate": 2, "steps_per_call": 2}, "give one of them"),
        ({"validation": {"not a name": HELD_OUT}}, "have names that can be part of others"),
    ],
)
def test_lengths_that_make_no_sense_are_errors_before_the_run(options, message):
    with pytest.raises(ValueError, match=message):
        fp.fit(TRAIN, **options)


def test_validating_every_n_steps_needs_data():
    with pytest.raises(ValueError, match="there is no validation data"):
        run(validate_every=3)


def test_options_may_come_with_the_trainer_and_those_of_the_call_go_before_them():
    preset = fp.with_options(steps=7, validate_every=3, seed=1)
    report = run(preset, validation=HELD_OUT)
    assert [each.step for each in report.evaluations] == [3, 6, 7]
    assert_same_bits(report.params, run(steps=7, seed=1).params)
    assert len(run(preset, epochs=1, validation=HELD_OUT, validate_every=5).losses) == 5
    later = fp.with_options(epochs=2)
    assert len(run(preset, later, validation=HELD_OUT).losses) == 10
    registry = fp.Registry("preset").add("short", preset)
    assert len(run(fp.with_named(registry, "short"), validation=HELD_OUT).losses) == 7
    with pytest.raises(TypeError, match="did you mean 'validate_every'"):
        fp.with_options(validate_evry=3)


@pytest.mark.parametrize("cut", [3, 5, 8])
@pytest.mark.usual("3")
def test_a_run_of_steps_goes_on_to_the_same_bits(tmp_path, cut):
    saves = fp.checkpoints(tmp_path / "step-{step}", every=None, every_steps=1)
    whole = run(steps=13, validation=HELD_OUT, validate_every=4)
    run(saves, steps=cut, validation=HELD_OUT, validate_every=4)
    report = run(saves, steps=13, validation=HELD_OUT, validate_every=4, resume="latest")
    assert_same_bits(report.params, whole.params)
    assert report.losses == whole.losses
    assert [row.epoch_loss for row in report.rows] == [row.epoch_loss for row in whole.rows]


def test_a_finished_run_of_steps_has_nothing_left_to_do(tmp_path):
    saves = fp.checkpoints(tmp_path / "step-{step}")
    run(saves, steps=8)
    again = run(saves, steps=8, resume="latest")
    assert ([row.steps for row in again.rows], len(again.losses)) == ([5, 8], 8)


# validation -----------------------------------------------------------------------------------------------------


def test_validation_every_n_steps_and_at_the_end():
    report = run(steps=13, validation=HELD_OUT, validate_every=4)
    assert [each.step for each in report.evaluations] == [4, 8, 12, 13]
    assert [each.epoch for each in report.evaluations] == [0, 1, 2, 2]
    assert [each.batches for each in report.evaluations] == [3] * 4
    at_8 = run(steps=8)
    expected = fp.evaluate(HELD_OUT, params=at_8.params)(trainer())
    assert report.evaluations[1].val_loss == pytest.approx(expected["loss"], rel=1e-6)
    assert report.evaluations[1].val_accuracy == pytest.approx(expected["accuracy"])


def test_a_row_has_the_last_evaluation_in_its_epoch():
    report = run(epochs=3, validation=HELD_OUT, validate_every=4)
    assert [each.step for each in report.evaluations] == [4, 8, 12, 15]
    assert [row.val_loss for row in report.rows] == [report.evaluations[i].val_loss for i in (0, 1, 3)]
    none = run(epochs=2, validation=HELD_OUT, validate_every=7)
    assert none.rows[0].val_loss is None
    assert none.rows[1].val_loss == none.evaluations[-1].val_loss


def test_the_same_parameters_are_not_evaluated_twice_at_the_end():
    report = run(steps=8, validation=HELD_OUT, validate_every=4)
    assert [each.step for each in report.evaluations] == [4, 8]


def test_without_validation_data_the_end_of_an_epoch_is_judged():
    report = run(epochs=2)
    assert [(each.step, each.val_loss) for each in report.evaluations] == [(5, None), (10, None)]
    assert [each.monitor_value for each in report.evaluations] == [row.accuracy for row in report.rows]


def test_a_hook_that_asks_to_validate_gets_a_verdict():
    asks = fp.on("after_step", lambda e: fp.Validate() if e.step == 1 else None)
    report = run(asks, epochs=1, validation=HELD_OUT)
    assert [each.step for each in report.evaluations] == [2, 5]
    assert report.evaluations[0].improved


def test_patience_counts_evaluations():
    worse = fp.monitor("val_loss", metric=lambda row: 1.0)
    report = run(worse, fp.early_stop(3), steps=100, validation=HELD_OUT, validate_every=2)
    assert [each.stale for each in report.evaluations] == [0, 1, 2, 3]
    assert (len(report.losses), report.stop_reason) == (8, "no improvement in 3 evaluations")


def test_a_plateau_lowers_the_rate_after_evaluations():
    worse = fp.monitor("val_loss", metric=lambda row: 1.0)
    options = {"steps": 10, "validation": HELD_OUT, "validate_every": 2, "log_every": 1}
    report = run(worse, fp.plateau(0.5, patience=2), optimizer=optim.sgd(0.4), **options)
    assert [row.learning_rate for row in report.steps] == pytest.approx([0.4] * 6 + [0.2] * 4)


def test_a_monitor_of_a_training_figure_judges_epochs_only():
    report = run(fp.monitor("epoch_loss"), epochs=2, validation=HELD_OUT, validate_every=2)
    judged = [each for each in report.evaluations if each.monitor_value is not None]
    assert [each.monitor_value for each in judged] == [row.epoch_loss for row in report.rows]
    assert report.best_value == min(row.epoch_loss for row in report.rows)


def test_the_best_checkpoint_may_lie_within_an_epoch(tmp_path):
    values = iter([3.0, 1.0, 2.0, 2.5])
    target = fp.monitor("val_loss", metric=lambda row: next(values))
    saves = fp.checkpoints(tmp_path / "step-{step}", best=True, every=None)
    report = run(target, saves, steps=8, validation=HELD_OUT, validate_every=2)
    assert (report.best_step, report.best_value) == (4, 1.0)
    assert report.best_checkpoint == str(tmp_path / "step-4.safetensors")
    assert_same_bits(fp.load(report.best_checkpoint).params, run(steps=4).params)
    assert [each.checkpoint is None for each in report.evaluations] == [False, False, True, False]  # and at the end
    again = run(fp.monitor("val_loss"), saves, steps=4, validation=HELD_OUT, resume="best")
    assert (again.resumed_from_epoch, again.best_step) == (0, 4)


def test_retention_keeps_the_best_within_an_epoch(tmp_path):
    values = iter([3.0, 1.0, 2.0, 2.5, 2.5])
    target = fp.monitor("val_loss", metric=lambda row: next(values))
    saves = fp.checkpoints(tmp_path / "step-{step}", every=None, every_steps=1, keep_last=1)
    run(target, saves, steps=9, validation=HELD_OUT, validate_every=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-4.safetensors", "step-9.safetensors"]


def test_infinities_and_nan_are_never_best():
    values = iter([-math.inf, math.nan, 2.0, -math.inf])
    report = run(fp.monitor("val_loss", metric=lambda row: next(values)), epochs=4, validation=HELD_OUT)
    assert [each.improved for each in report.evaluations] == [False, False, True, False]
    assert (report.best_value, report.best_epoch) == (2.0, 2)


# named sets -----------------------------------------------------------------------------------------------------

SETS = {"easy": HELD_OUT, "hard": pipe(data.arrays(x=X[20:], y=1 - Y[20:]), data.batch(8))}


def test_named_validation_sets_have_figures_of_their_own():
    report = run(epochs=2, validation=SETS)
    assert set(report.rows[0].val_metrics) == {"easy_loss", "easy_accuracy", "hard_loss", "hard_accuracy"}
    for name, held_out in SETS.items():
        expected = fp.evaluate(held_out, params=report.params)(trainer())
        assert getattr(report.rows[-1], f"val_{name}_loss") == pytest.approx(expected["loss"], rel=1e-6)
        assert getattr(report.rows[-1], f"val_{name}_accuracy") == pytest.approx(expected["accuracy"])
    assert (report.monitor_name, report.monitor_mode) == ("val_easy_accuracy", "max")
    assert report.rows[0].val_loss is None
    assert report.rows[0].validation_batches == 6


def test_a_monitor_names_a_set():
    report = run(fp.monitor("val_hard_accuracy"), epochs=2, validation=SETS)
    assert report.monitor_mode == "max"
    assert report.best_value == max(row.val_hard_accuracy for row in report.rows)
    with pytest.raises(ValueError, match="did you mean 'val_hard_loss'"):
        run(fp.monitor("val_hart_loss"), validation=SETS)


def test_events_and_errors_say_which_set():
    names = []
    run(fp.on("after_validation_batch", lambda e: names.append((e.name, e.index))), epochs=1, validation=SETS)
    assert names == [(name, index) for name in SETS for index in range(3)]

    def broken(row):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone") as caught:
        run(validation={"good": HELD_OUT, "bad": data.map(broken)(HELD_OUT)})
    assert any("set=bad" in note and "batch=0" in note for note in caught.value.__notes__)


# logs -----------------------------------------------------------------------------------------------------------


def loss_with_figure(model, x, y):
    logits = model(x)
    return nn.losses.cross_entropy(logits, y, reduction="mean"), {"largest": logits.max()}


def test_a_logged_step_has_its_loss_figures_rate_and_norm():
    schedule = optim.linear_schedule(0.1, 0.0, 10)
    target = fp.trainer(MODEL, loss_with_figure, optimizer=optim.sgd(schedule))
    batches = [(X[i * 8 : i * 8 + 8], Y[i * 8 : i * 8 + 8]) for i in range(5)]
    report = fp.fit(batches, epochs=2, log_every=3, quiet=True)(target)
    assert [row.step for row in report.steps] == [3, 6, 9]
    assert [row.epoch for row in report.steps] == [0, 1, 1]
    assert [row.loss for row in report.steps] == [report.losses[i] for i in (2, 5, 8)]
    assert [row.learning_rate for row in report.steps] == pytest.approx([0.08, 0.05, 0.02], rel=1e-5)

    step = fp.train_step(MODEL, loss_with_figure, optim.sgd(schedule))
    params, opt_state = step.init(0)
    for i in range(3):
        grads = step.gradients(params, opt_state, batches[i])
        params, opt_state, logs = step(params, opt_state, batches[i])
    assert report.steps[0].grad_norm == pytest.approx(fp.norm(grads.grads).item(), rel=1e-5)
    assert report.steps[0].figures == {"largest": pytest.approx(logs["largest"].item(), rel=1e-5)}
    assert all(row.rows_per_second > 0 and row.peak_memory > 0 for row in report.steps)
    assert report.steps[0].tokens_per_second is None
    assert report.to_dict()["steps"][0]["grad_norm"] == report.steps[0].grad_norm


def test_the_norm_is_that_before_clipping_and_no_figure_of_the_epoch():
    clipped = run(epochs=1, log_every=1, optimizer=optim.clip_norm(1e-3)(optim.sgd(0.0)))
    plain = run(epochs=1, log_every=1, optimizer=optim.sgd(0.0))
    norms = [[row.grad_norm for row in report.steps] for report in (clipped, plain)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    assert set(plain.rows[0].metrics) == {"accuracy"}


def test_logging_changes_no_bit_and_its_absence_costs_nothing():
    assert_same_bits(run(epochs=2, log_every=1).params, run(epochs=2).params)
    seen = []
    run(fp.on("after_step", lambda e: seen.append(set(e.logs))), epochs=1)
    assert seen[0] == {"loss"}


def test_tokens_are_counted_where_the_task_counts_them():
    tokens = mx.random.randint(1, 7, (12, 6), key=mx.random.key(5))
    model = nn.sequential(nn.embedding(7, 4), nn.linear(4, 7))
    target = fp.trainer(model, fp.language_modeling(ignore=0))
    report = fp.fit(data.batch(4)(data.arrays(tokens)), log_every=1, quiet=True)(target)
    assert all(row.tokens_per_second == pytest.approx(5 * row.rows_per_second) for row in report.steps)


@pytest.mark.parametrize("sync", ["async", "step", "epoch", "none"])
def test_every_logged_step_is_told_in_order_however_the_loop_waits(sync):
    told = []
    report = run(fp.on("after_log", lambda e: told.append(e.row)), epochs=2, log_every=2, sync=sync)
    assert told == list(report.steps)
    assert [row.step for row in told] == [2, 4, 6, 8, 10]


def test_a_resumed_epoch_is_timed_by_what_this_process_did(tmp_path):
    saves = fp.checkpoints(tmp_path / "step-{step}", every=None, every_steps=3)
    run(saves, steps=3)
    row = run(saves, steps=5, resume="latest").rows[-1]
    assert row.timed == 16
    assert row.examples == 40


# accumulation ---------------------------------------------------------------------------------------------------


def test_n_batches_make_one_update_and_the_last_may_have_fewer():
    report = run(epochs=2, accumulate=2)
    assert [(row.steps, row.batches, row.examples) for row in report.rows] == [(3, 5, 40), (6, 5, 40)]
    assert len(report.losses) == 6
    step = fp.train_step(MODEL, fp.classification().loss, optim.adam(1e-2))
    params, opt_state = step.init(0)
    for epoch in range(2):
        batches = list(TRAIN.open(data.Cursor(epoch)))
        for i in range(0, 5, 2):
            params, opt_state, _ = step.accumulate(params, opt_state, batches[i : i + 2])
    assert_close(report.params, params, atol=1e-6)


def test_accumulated_batches_train_as_a_larger_batch_does():
    big = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=2), data.batch(16))
    small, large = run(epochs=3, accumulate=2), run(train=big, epochs=3)
    assert_close(small.params, large.params, atol=1e-5)
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-5)
    assert small.rows[-1].accuracy == large.rows[-1].accuracy


def test_schedules_and_steps_count_updates():
    report = run(steps=4, accumulate=2, log_every=1, optimizer=optim.sgd(optim.linear_schedule(0.4, 0.0, 4)))
    assert [row.learning_rate for row in report.steps] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=1e-6)


def test_hooks_see_one_step_with_its_batches():
    seen = []
    for event in ("before_step", "after_step"):
        hook = fp.on(event, lambda e: seen.append((e.step, e.index, [batch["x"].shape[0] for batch in e.batch])))
        run(hook, epochs=1, accumulate=2)
    assert seen == 2 * [(0, 0, [8, 8]), (1, 2, [8, 8]), (2, 4, [8])]


def test_hooks_between_the_halves_see_the_mean_gradient():
    halved = fp.on("after_backward", lambda e: fp.Replace(grads=_halved(e.grads)))
    report = run(halved, epochs=2, accumulate=2, optimizer=optim.sgd(0.2))
    assert_close(report.params, run(epochs=2, accumulate=2, optimizer=optim.sgd(0.1)).params, atol=1e-6)


def _halved(grads):
    from mlx.utils import tree_map

    return tree_map(lambda g: g / 2, grads)


def test_a_group_with_a_gradient_that_is_not_finite_is_skipped_whole():
    x = mx.where(mx.arange(40)[:, None] == 10, mx.nan, X)  # in the second batch
    batches = [(x[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]
    report = run(train=batches, epochs=1, accumulate=2, nonfinite="skip")
    expected = run(train=batches[2:], epochs=1, accumulate=2)
    assert_close(report.params, expected.params, atol=1e-6)
    assert report.rows[0].accuracy == expected.rows[0].accuracy
    assert report.rows[0].epoch_loss == pytest.approx(expected.rows[0].epoch_loss)


@pytest.mark.parametrize("cut", [1, 2, 4])
@pytest.mark.usual("4")
def test_an_accumulating_run_goes_on_to_the_same_bits(tmp_path, cut):
    saves = fp.checkpoints(tmp_path / "step-{step}", every=None, every_steps=1)
    run(saves, steps=cut, accumulate=2)
    assert_same_bits(run(saves, steps=6, accumulate=2, resume="latest").params, run(steps=6, accumulate=2).params)


# the best parameters --------------------------------------------------------------------------------------------


def test_the_best_parameters_are_kept_in_memory():
    values = iter([3.0, 1.0, 2.0])
    target = fp.monitor("val_loss", metric=lambda row: next(values))
    report = run(target, epochs=3, validation=HELD_OUT, keep_best=True)
    assert_same_bits(report.best_params, run(epochs=2).params)
    assert run(epochs=1).best_params is None


def test_the_best_parameters_are_the_averages_that_were_judged(tmp_path):
    optimizer = optim.ema(0.5)(optim.adam(1e-2))
    saves = fp.checkpoints(tmp_path / "ep-{epoch}", best=True, every=None)
    values = iter([1.0, 2.0])
    target = fp.monitor("val_loss", metric=lambda row: next(values))
    options = {"validation": HELD_OUT, "keep_best": True, "averaged": True, "optimizer": optimizer}
    report = run(target, saves, epochs=2, **options)
    best = fp.load(report.best_checkpoint)
    assert_same_bits(report.best_params, optim.averaged(best.opt_state)(best.params))
    assert_same_bits(report.best_params, best.metadata["best_params"])
    expected = fp.evaluate(HELD_OUT, params=report.best_params)(trainer())
    assert report.evaluations[0].val_loss == pytest.approx(expected["loss"], rel=1e-6)


def test_a_resumed_run_still_has_the_best_parameters(tmp_path):
    def target(*values):
        left = iter(values)
        return fp.monitor("val_loss", metric=lambda row: next(left))

    saves, options = fp.checkpoints(tmp_path / "ep-{epoch}"), {"validation": HELD_OUT, "keep_best": True}
    run(target(1.0), saves, epochs=1, **options)
    report = run(target(2.0), saves, epochs=2, resume="latest", **options)
    assert_same_bits(report.best_params, run(epochs=1).params)


# where nothing counts -------------------------------------------------------------------------------------------


def masked(model, x, y, mask):
    return fp.mean(nn.losses.cross_entropy(model(x), y), where=mask)


def test_an_epoch_loss_is_the_mean_over_what_counted():
    masks = [mx.array([1] * 8), mx.array([1] + [0] * 7), mx.array([0] * 8)]
    batches = [{"x": X[i * 8 : i * 8 + 8], "y": Y[i * 8 : i * 8 + 8], "mask": mask} for i, mask in enumerate(masks)]
    target = fp.trainer(MODEL, masked, optimizer=optim.sgd(0.0))
    report = fp.fit(batches, validation=batches, quiet=True)(target)
    logits = MODEL.apply(report.params, X[:9])[0]
    expected = nn.losses.cross_entropy(logits, Y[:9], reduction="mean").item()
    assert report.rows[0].epoch_loss == pytest.approx(expected, rel=1e-6)
    assert report.rows[0].val_loss == pytest.approx(expected, rel=1e-6)
    assert math.isnan(report.losses[2])
    assert report.stop_reason is None


def test_a_validation_in_which_nothing_counts_is_nan_and_never_best():
    def batches(mask):
        return [{"x": X[:8], "y": Y[:8], "mask": mx.array([mask] * 8)}]

    target = fp.trainer(MODEL, masked)
    report = fp.fit(batches(1), validation=batches(0), epochs=2, quiet=True)(target)
    assert all(math.isnan(row.val_loss) for row in report.rows)
    assert report.best_value is None
