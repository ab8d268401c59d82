"""One verdict per evaluation: what improves, what is best, and what can be watched."""

from __future__ import annotations

import math
from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import batch_mean
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn
from mlx_fp.loop._monitor import BestSoFar, update_best

X = mx.random.normal((8, 3), key=mx.random.key(0))
PAIR = (X, (X[:, 0] > 0).astype(mx.int32))
ROW_FIELDS = [
    "epoch",
    "batches",
    "examples",
    "steps",
    "loss",
    "epoch_loss",
    "val_loss",
    "validation_batches",
    "cut",
    "monitor_value",
    "improved",
    "stale",
    "seconds",
    "examples_per_second",
    "checkpoint",
]


def stream(values):
    """One batch an epoch, the mean of which is the value of that epoch."""
    return data.stream(lambda epoch: [mx.full((2, 1), values[epoch])])


def run(values, *verbs, validation=None, task=batch_mean):
    held = None if validation is None else stream(validation)
    target = pipe(fp.trainer(nn.linear(1, 1), task), *verbs)
    return fp.fit(stream(values), validation=held, epochs=len(values), nonfinite="keep", quiet=True)(target)


def verdicts(report):
    return [row.improved for row in report.rows]


# what improves


def test_the_first_number_improves_then_what_is_better_and_nan_never():
    report = run([math.nan, 2.0, 3.0, math.nan, 1.0])
    assert verdicts(report) == [False, True, False, False, True]
    assert [row.stale for row in report.rows] == [1, 0, 1, 2, 0]
    assert (report.best_value, report.best_epoch) == (1.0, 4)


def test_nothing_but_nan_has_no_best():
    report = run([math.nan, math.nan])
    assert (verdicts(report), report.best_value, report.best_epoch) == ([False, False], None, None)


def test_an_infinity_is_never_the_best():
    assert verdicts(run([math.inf, math.inf, 5.0])) == [False, False, True]


def test_mode_max_takes_the_most():
    report = run([1.0, 3.0, 2.0], fp.monitor("loss", mode="max"))
    assert (verdicts(report), report.best_value, report.best_epoch) == ([True, True, False], 3.0, 1)


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_what_is_better_by_min_delta_exactly_is_not_better(mode, sign):
    values = [sign * value for value in (1.0, 0.75, 0.5, 0.25)]
    report = run(values, fp.monitor("epoch_loss", mode=mode, min_delta=0.25))
    assert verdicts(report) == [True, False, True, False]
    assert report.best_value == values[2]


def test_an_equal_value_does_not_improve():
    assert verdicts(run([1.0, 1.0])) == [True, False]


@given(st.lists(st.floats(width=32), min_size=1), st.sampled_from(["min", "max"]))
def test_the_best_is_the_least_or_most_of_the_numbers_and_the_first_of_equals(values, mode):
    standing, improved = BestSoFar(), []
    for epoch, value in enumerate(values):
        standing, better = update_best(fp.Monitor("epoch_loss", mode), standing, value, epoch, 10 * epoch)
        improved.append(better)
    numbers = [value for value in values if math.isfinite(value)]
    best = (min if mode == "min" else max)(numbers) if numbers else None
    assert standing.best_value == best
    assert standing.best_epoch == (None if best is None else values.index(best))
    assert standing.best_step == (None if best is None else 10 * values.index(best))
    since = improved[::-1].index(True) if any(improved) else len(values)
    assert standing.stale == since
    assert any(improved) == bool(numbers)


# when


def test_the_verdict_is_there_before_any_hook_whatever_its_priority():
    seen = []
    look = fp.on("after_epoch", lambda e: seen.append((e.improved, e.monitor_value, e.stale)), priority=-1000)
    report = run([2.0, 3.0, 1.0], look)
    assert seen == [(row.improved, row.monitor_value, row.stale) for row in report.rows]
    assert seen == [(True, 2.0, 0), (False, 3.0, 1), (True, 1.0, 0)]


def test_there_is_one_verdict_an_evaluation_however_many_read_it():
    asked = []
    watch = fp.monitor("mine", metric=lambda row: asked.append(row.epoch) or row.epoch_loss)
    run([2.0, 3.0], watch, fp.early_stop(5), fp.plateau(0.5), fp.stop_on_divergence(every=1))
    assert asked == [0, 1]


# what is watched


def test_a_function_of_the_row_may_be_watched():
    watch = fp.monitor("gap", mode="max", metric=lambda row: row.val_loss - row.epoch_loss)
    report = run([1.0, 2.0, 3.0], watch, validation=[2.0, 5.0, 3.0])
    assert [row.monitor_value for row in report.rows] == [1.0, 3.0, 0.0]
    assert (report.monitor_name, report.monitor_mode, report.best_epoch) == ("gap", "max", 1)
    assert [one.monitor_value for one in report.evaluations] == [1.0, 3.0, 0.0]


def test_validation_is_watched_by_its_own_value():
    report = run([1.0, 1.0, 1.0], fp.monitor("val_loss"), validation=[3.0, 2.0, 4.0])
    assert (report.best_value, report.best_epoch) == (2.0, 1)


@pytest.mark.parametrize(("name", "held"), [("spread", False), ("val_spread", True)])
def test_what_the_loss_reports_can_be_watched(name, held):
    def loss(model, x):
        return x.mean(), {"spread": x.max() * 2}

    report = run([3.0, 1.0], fp.monitor(name, mode="min"), validation=[5.0, 4.0] if held else None, task=loss)
    assert (report.best_value, report.best_epoch) == (8.0 if held else 2.0, 1)


def test_asking_the_loss_what_it_reports_changes_no_bit():
    def loss(model, x):
        return model(x).mean(), {"spread": x.max()}

    def params(*verbs):
        found = run([3.0, 1.0], *verbs, task=loss).params
        return {path: leaf.tolist() for path, leaf in fp.flat(found).items()}

    assert params(fp.monitor("spread", mode="max")) == params()


@pytest.mark.parametrize("name", ["acc", "val_acc", "val_hard_acc"])
def test_a_figure_of_the_loss_has_no_direction_until_a_mode_gives_it_one(name):
    def loss(model, x):
        return model(x).mean(), {"acc": x.mean()}

    sets = {"hard": [mx.ones((2, 3))]} if "hard" in name else [mx.ones((2, 3))]
    run = fp.fit([mx.ones((2, 3))], validation=sets, quiet=True)
    target = fp.trainer(nn.linear(3, 1), loss)
    words = f'monitor \'{name}\' is a figure that the loss reports.*mode="min" or mode="max"'
    with pytest.raises(ValueError, match=words):
        run(pipe(target, fp.monitor(name)))
    with pytest.raises(ValueError, match=words):
        run(fp.trainer(nn.linear(3, 1), fp.Task("own", loss, monitor=name.replace("hard_", ""))))
    assert run(pipe(target, fp.monitor(name, mode="max"))).monitor_mode == "max"


@pytest.mark.parametrize(("given", "kind"), [(None, "None"), ({"a": 1}, "dict"), ("good", "str")])
def test_a_function_of_the_row_that_returns_no_number_is_an_error(given, kind):
    def spread(row):
        return given

    words = f"'spread', which monitor 'mine' watches, returns a number for each row; it returned {kind}"
    with pytest.raises(TypeError, match=words):
        run([1.0], fp.monitor("mine", metric=spread))


# the losses of the epoch

STEPS = [[3.0, 9.0, 1.0], [5.0, 2.0, 4.0]]
"""The losses of the steps of two epochs."""


def peak(*verbs, metric=lambda row, losses: max(losses), epochs=2, task=batch_mean, **options):
    """A run whose monitor is a function of the losses of each epoch."""
    train = data.stream(lambda epoch: [mx.full((2, 1), loss) for loss in STEPS[epoch]])
    target = pipe(fp.trainer(nn.linear(1, 1), task), fp.monitor("peak", metric=metric), *verbs)
    return fp.fit(train, epochs=epochs, quiet=True, **options)(target)


@pytest.mark.parametrize(
    "metric",
    [
        lambda row, losses: max(losses),
        lambda losses: max(losses),
        lambda losses, row: max(losses) + 0 * row.epoch,
        lambda r, *, losses: max(losses),
    ],
)
def test_a_function_may_name_the_losses_of_the_epoch(metric):
    report = peak(metric=metric)
    assert [row.monitor_value for row in report.rows] == [9.0, 5.0]
    assert (report.best_value, report.best_epoch) == (5.0, 1)


def test_a_function_that_is_judged_within_an_epoch_gets_the_losses_so_far():
    seen = []
    peak(metric=lambda row, losses: seen.append(losses) or len(losses), validation=[mx.ones((2, 1))], validate_every=2)
    assert seen == [[3.0, 9.0], [5.0], [5.0, 2.0, 4.0]]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
@pytest.mark.usual("1", "2", "4", "5")
def test_a_run_that_is_cut_within_an_epoch_judges_the_losses_of_all_of_it(cut, tmp_path):
    policy = fp.checkpoints(tmp_path / "{step}", every=None, every_steps=1)
    stop = fp.on("after_step", lambda e: fp.Stop("cut", final=False) if e.step == cut - 1 else None)
    peak(policy, stop)
    assert [row.monitor_value for row in peak(policy, resume="latest").rows] == [9.0, 5.0]


def test_losses_that_are_not_kept_are_an_error_before_the_first_step(tmp_path):
    words = "monitor 'peak' takes the losses of steps, and keep_losses=False drops them"
    with pytest.raises(ValueError, match=words):
        peak(keep_losses=False)
    assert len(peak(metric=lambda row: row.epoch_loss, keep_losses=False).rows) == 2
    policy = fp.checkpoints(tmp_path / "{step}", every=1, every_steps=1)
    stop = fp.on("after_step", lambda e: fp.Stop("cut", final=False) if e.step == 3 else None)
    peak(policy, stop, metric=lambda row: row.epoch_loss, keep_losses=False)
    with pytest.raises(ValueError, match=r"and .*4\.safetensors lacks those of the first 1 of its epoch"):
        peak(policy, resume="latest")
    assert peak(policy, resume=tmp_path / "3").rows[1].monitor_value == 5.0


def test_a_function_that_requires_something_else_is_refused_when_it_is_given():
    with pytest.raises(TypeError, match=r"monitor function '<lambda>' requires 'lossess'.* \(did you mean 'losses'"):
        fp.monitor("peak", metric=lambda row, lossess: 0.0)


def test_the_task_says_what_to_watch_where_nothing_else_does():
    def watched(task, **options):
        report = fp.fit([PAIR], quiet=True, **options)(fp.trainer(nn.linear(3, 2), task))
        return report.monitor_name, report.monitor_mode

    assert watched(fp.classification(), validation=[PAIR]) == ("val_accuracy", "max")
    assert watched(fp.classification()) == ("accuracy", "max")
    assert watched(fp.classification().loss, validation=[PAIR]) == ("val_loss", "min")
    assert watched(fp.classification().loss) == ("loss", "min")


@pytest.mark.parametrize("name", ["loss", "epoch_loss"])
def test_the_loss_has_one_name_in_tables_rows_events_and_monitors(name):
    seen = []
    report = run([3.0, 1.0, 2.0], fp.monitor(name), fp.on("after_epoch", lambda e: seen.append((e.loss, e.epoch_loss))))
    assert (report.monitor_name, report.monitor_mode, report.best_value) == ("loss", "min", 1.0)
    assert seen == [(row.loss, row.epoch_loss) for row in report.rows] == [(3.0, 3.0), (1.0, 1.0), (2.0, 2.0)]
    assert str(report).split()[:2] == ["epoch", "loss"]
    assert (report.rows[1].to_dict()["loss"], report.rows[1].to_dict()["epoch_loss"]) == (1.0, 1.0)


def test_a_checkpoint_that_calls_the_loss_epoch_loss_goes_on(tmp_path):
    target = pipe(fp.trainer(nn.linear(1, 1), batch_mean), fp.checkpoints(tmp_path / "ep-{epoch}"))
    fp.fit(stream([1.0, 2.0]), epochs=1, quiet=True)(target)
    checkpoint = fp.load(next(tmp_path.glob("ep-0*")))
    older = replace(checkpoint, metadata={**checkpoint.metadata, "monitor_name": "epoch_loss"})
    report = fp.fit(stream([1.0, 2.0]), epochs=2, resume=older, quiet=True)(target)
    assert (report.monitor_name, report.best_value, len(report.rows)) == ("loss", 1.0, 2)


def test_the_last_monitor_given_wins():
    report = run([1.0, 2.0], fp.monitor("epoch_loss", mode="max"), fp.monitor("epoch_loss"))
    assert (report.monitor_mode, report.best_epoch) == ("min", 0)


@pytest.mark.parametrize("at", [2, 3])
def test_the_last_evaluation_of_an_epoch_that_a_hook_cuts_is_judged(at):
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == at else None)
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), stop)
    report = fp.fit([PAIR] * 4, validation=[PAIR], quiet=True)(target)
    (evaluation,) = report.evaluations
    assert (report.best_epoch, report.best_step, report.rows[0].improved) == (0, at + 1, True)
    assert (evaluation.step, evaluation.improved) == (at + 1, True)
    assert report.best_value == report.rows[0].val_accuracy == evaluation.val_accuracy


def test_an_epoch_that_a_hook_cuts_without_validation_data_gets_no_verdict():
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == 2 else None)
    report = fp.fit([PAIR] * 4, quiet=True)(pipe(fp.trainer(nn.linear(3, 2), fp.classification()), stop))
    assert (report.best_epoch, report.evaluations, report.rows[0].improved) == (None, (), False)


def test_each_evaluation_within_an_epoch_is_judged():
    report = fp.fit([PAIR] * 5, validation=[PAIR], validate_every=2, epochs=2, quiet=True)(
        pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.monitor("val_loss"))
    )
    assert [(one.epoch, one.step) for one in report.evaluations] == [(0, 2), (0, 4), (1, 6), (1, 8), (1, 10)]
    values = [one.val_loss for one in report.evaluations]
    assert [one.monitor_value for one in report.evaluations] == values
    assert [one.improved for one in report.evaluations] == [
        value == min(values[: i + 1]) for i, value in enumerate(values)
    ]
    assert [row.monitor_value for row in report.rows] == [values[1], values[-1]]
    assert report.best_step == report.evaluations[values.index(min(values))].step


# what is refused


def refused(name, *, task, validation=None):
    """The message for a monitor, and what had happened by then."""
    happened, pulled = [], []
    train = data.stream(lambda epoch: (pulled.append(epoch) or PAIR for _ in range(3)))
    begun = fp.on("before_fit", lambda e: happened.append("fit"))
    target = pipe(fp.trainer(nn.linear(3, 2), task), fp.monitor(name), begun)
    with pytest.raises(ValueError, match="unknown monitor") as caught:
        fp.fit(train, validation=validation, quiet=True)(target)
    return str(caught.value), happened, len(pulled)


def test_an_unknown_monitor_fails_before_training_with_candidates():
    message, happened, pulled = refused("val_acuracy", task=fp.classification(), validation=[PAIR])
    assert message.startswith("unknown monitor 'val_acuracy': did you mean 'val_accuracy'? known: loss, accuracy")
    assert happened == []
    assert pulled <= 1  # the one that the loss is asked for what it reports


def test_a_figure_of_validation_without_validation_fails_before_training():
    message, happened, _ = refused("val_accuracy", task=fp.classification())
    assert "did you mean 'accuracy'" in message
    assert message.endswith("there is no validation data")
    assert happened == []


def test_a_known_monitor_pulls_nothing_ahead():
    pulled = []
    train = data.stream(lambda epoch: (pulled.append(epoch) or PAIR for _ in range(3)))
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.monitor("accuracy", mode="max"))
    run = fp.events(train, only=("before_fit",))(target)
    next(run)
    assert pulled == []


def test_a_monitor_that_the_task_names_and_nothing_computes_is_an_error_too():
    task = fp.classification(monitor="val_f1")
    with pytest.raises(ValueError, match="unknown monitor 'val_f1'"):
        fp.fit([PAIR], validation=[PAIR], quiet=True)(fp.trainer(nn.linear(3, 2), task))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mode": "maximum"}, ValueError, "unknown mode 'maximum': did you mean 'max'"),
        ({"min_delta": -0.1}, ValueError, "min_delta"),
        ({"min_delta": math.nan}, ValueError, "min_delta"),
        ({"min_delta": math.inf}, ValueError, "min_delta"),
        ({"metric": "accuracy"}, TypeError, "function of the row"),
    ],
)
def test_wrong_options_fail_at_once(options, error, words):
    with pytest.raises(error, match=words):
        fp.monitor("epoch_loss", **options)


# rows


def test_a_row_has_the_fields_of_the_contract():
    report = fp.fit([PAIR], validation=[PAIR], quiet=True)(fp.trainer(nn.linear(3, 2), fp.classification()))
    row = report.rows[0].to_dict()
    assert row.keys() == {*ROW_FIELDS, "accuracy", "val_accuracy"}
    wanted = {"epoch": 0, "batches": 1, "examples": 8, "steps": 1, "validation_batches": 1, "stale": 0}
    assert row["improved"] is True
    assert {name: row[name] for name in wanted} == wanted
    assert row["monitor_value"] == row["val_accuracy"]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("val_accuracy", "max"), ("f1", "max"), ("val_f1", "max"), ("val_loss", "min"), ("epoch_loss", "min")],
)
@pytest.mark.usual("f1-max", "val_f1-max", "val_loss-min", "epoch_loss-min")
def test_the_direction_is_that_of_the_metric_of_the_name_in_any_order(name, mode):
    plain, more = fp.trainer(nn.linear(3, 2), fp.classification()), fp.with_metrics(metrics.f1(2))

    def direction(*verbs):
        return fp.fit([PAIR], validation=[PAIR], quiet=True)(pipe(plain, *verbs)).monitor_mode

    assert (direction(more, fp.monitor(name)), direction(fp.monitor(name), more)) == (mode, mode)
    assert direction(more, fp.monitor(name, mode="min")) == "min"


@pytest.mark.parametrize("name", ["loss", "seconds", "epoch"])
def test_a_metric_may_not_be_called_as_something_else_in_a_row(name):
    target = fp.trainer(nn.linear(3, 2), fp.classification(metrics=[metrics.accuracy(name)]))
    with pytest.raises(ValueError, match=f"a metric is called '{name}'"):
        fp.fit([(mx.ones((2, 3)), mx.array([0, 1]))], quiet=True)(target)
