"""A run that a hook has ended is finished: resumed with that hook it does nothing more, and reports the same."""

from __future__ import annotations

import math
import signal

import mlx.core as mx
import pytest
from helpers import assert_same_run, cross_entropy
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((40, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(16))  # batches of 16, 16 and 8
HELD = pipe(data.arrays(x=X[:20], y=Y[:20]), data.batch(8))
MODEL = nn.sequential(nn.linear(4, 8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))
BEST_FIRST = fp.monitor("given", metric=lambda row: float(row.epoch))  # each epoch is worse than the first


def trainer(*verbs):
    return pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optim.adam(1e-2)), BEST_FIRST, *verbs)


def fit(target, **options):
    """Train, and return the report and the number of each step that was taken."""
    taken = []
    counting = fp.on("before_step", lambda event: taken.append(event.step))
    train = fp.fit(TRAIN, validation=HELD, quiet=True, **{"epochs": 6, "seed": 9, **options})
    return pipe(target, counting, train), taken


def files(folder):
    """Each file with its bytes and the time it was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("options", [{}, {"every": 5}, {"every": None, "best": True}, {"background": True}])
@pytest.mark.usual("options1", "options2", "options3")
def test_a_run_that_stopped_early_and_is_submitted_again_does_nothing_more(options, tmp_path, caplog):
    told = []
    hooks = fp.early_stop(2), fp.on("after_checkpoint", lambda event: told.append(event.path))
    target = trainer(*hooks, fp.checkpoints(tmp_path / "ep-{epoch}", **options))
    first, _ = fit(target)
    assert len(told) == len(files(tmp_path))
    assert (first.epochs_ran, first.stop_reason) == (3, "no improvement in 2 evaluations")
    before = files(tmp_path)
    for _ in range(2):
        again, taken = fit(target, resume="latest")
        assert (again.epochs_ran, taken) == (0, [])
        assert_same_run(again, first)
    assert files(tmp_path) == before
    assert "ep-2.safetensors is of a run that a hook has ended: no improvement in 2 evaluations" in caplog.text


def test_more_epochs_do_not_go_beyond_the_end_of_a_run_left_alone(tmp_path):
    target = trainer(fp.early_stop(2), fp.checkpoints(tmp_path / "ep-{epoch}"))
    assert fit(target, epochs=3)[0].epochs_completed == 3
    assert_same_run(fit(target, epochs=6, resume="latest")[0], fit(target, epochs=6)[0])


@pytest.mark.parametrize("other", [[], [fp.early_stop(3)]], ids=["without", "more patient"])
@pytest.mark.usual("more patient")
def test_without_the_hook_that_ended_it_a_run_goes_on(other, tmp_path):
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    fit(trainer(fp.early_stop(2), policy))
    again, taken = fit(trainer(*other, policy), resume="latest")
    assert taken[0] == 9
    assert_same_run(again, fit(trainer(*other))[0])


EVENTS = [
    "before_epoch",
    "before_step",
    "after_backward",
    "after_step",
    "before_validation",
    "after_validation_batch",
    "after_validation",
    "after_evaluation",
    "after_epoch",
    "after_checkpoint",
]


def stopping(event, **options):
    """A trainer with a hook that ends a run in its second epoch."""
    return doubling(fp.on(event, lambda e: fp.Stop("enough", **options), once=True, when=lambda e: e.epoch == 1))


def doubling(*verbs):
    """A trainer whose parameters are doubled at the end of each epoch."""
    return trainer(*verbs, fp.on("after_epoch", lambda e: fp.Replace(params=doubled(e.state.params))))


def doubled(params):
    return fp.restore_like(params, {name: 2 * leaf for name, leaf in fp.flat(params).items()})


@pytest.mark.parametrize("steps", [None, 1], ids=["by epochs", "by steps"])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.usual(
    "before_epoch-by epochs",
    "before_epoch-by steps",
    "after_backward-by epochs",
    "after_step-by epochs",
    "after_validation_batch-by epochs",
    "after_validation-by epochs",
    "after_evaluation-by epochs",
    "after_epoch-by epochs",
)
def test_a_stop_of_any_hook_is_the_end_whenever_it_comes(event, steps, tmp_path):
    target = pipe(stopping(event), fp.checkpoints(tmp_path / "{step}-{next_epoch}", every=4, every_steps=steps))
    first, taken = fit(target)
    if event == "after_checkpoint" and steps is None:
        return  # there was none
    assert first.stop_reason == "enough"
    assert len(taken) < 9
    before = files(tmp_path)
    again, taken = fit(target, resume="latest")
    assert taken == []
    assert_same_run(again, first)
    assert files(tmp_path) == before


@pytest.mark.parametrize("event", EVENTS[1:-1])  # before an epoch it is asked again, and pauses again
@pytest.mark.usual("after_epoch")
def test_a_stop_that_is_not_final_is_a_pause(event, tmp_path):
    policy = fp.checkpoints(tmp_path / "{step}-{next_epoch}")
    paused, _ = fit(policy(stopping(event, final=False)))
    assert paused.stop_reason == "enough"
    again, _ = fit(policy(stopping(event, final=False)), resume="latest")
    assert_same_run(again, fit(doubling())[0])


@pytest.mark.parametrize("step", [3, 5])
@pytest.mark.usual("3")
def test_a_checkpoint_that_tells_of_an_end_leads_to_that_end(step, tmp_path):
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == step else None)
    policy = fp.checkpoints(tmp_path / "{step}-{next_epoch}", every_steps=1)
    first, _ = fit(trainer(stop, policy))
    again, taken = fit(trainer(stop), resume=tmp_path / f"{step + 1}-1")
    assert taken == []
    assert_same_run(again, first)
    earlier, taken = fit(trainer(stop), resume=tmp_path / f"{step}-1")
    assert taken == [step]
    assert_same_run(earlier, first)


def test_a_signal_is_no_end_but_a_hooks_word_in_the_same_epoch_is(tmp_path):
    target = trainer(
        fp.on("after_evaluation", lambda e: signal.raise_signal(signal.SIGTERM) if e.epoch == 2 else None),
        fp.early_stop(2),
        fp.checkpoints(tmp_path / "ep-{epoch}"),
    )
    assert fit(target)[0].stop_reason == "SIGTERM"
    again, taken = fit(target, resume="latest")
    assert (again.stop_reason, taken) == ("no improvement in 2 evaluations", [])


def test_a_hooks_word_on_an_epoch_that_a_signal_cut_short_is_no_end(tmp_path):
    cut = fp.on("after_step", lambda e: signal.raise_signal(signal.SIGTERM) if e.step == 4 else None)
    impatient = fp.on("after_epoch", lambda e: fp.Stop("too few") if e.row.batches < 3 else None)
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    assert fit(trainer(cut, impatient, policy))[0].stop_reason == "SIGTERM"
    again, taken = fit(trainer(fp.on("after_step", lambda e: None), impatient, policy), resume="latest")
    assert taken[0] == 5
    assert_same_run(again, fit(trainer(impatient))[0])


def test_the_first_of_two_words_is_the_last(tmp_path):
    late = fp.on("after_epoch", lambda e: fp.Stop("late"), priority=-1)
    target = trainer(late, fp.on("after_step", lambda e: fp.Stop("first")), fp.checkpoints(tmp_path / "{step}"))
    assert fit(target)[0].stop_reason == "first"
    assert fit(target, resume="latest")[0].stop_reason == "first"
    last = fp.on("after_step", lambda e: fp.Stop("first") if e.step == 2 else None)
    target = trainer(late, last, fp.checkpoints(tmp_path / "last-{step}"))
    assert fit(target)[0].stop_reason == "first"
    assert fit(target, resume="latest")[0].stop_reason == "first"


def test_a_run_that_is_ended_before_it_began_writes_nothing(tmp_path):
    report, taken = fit(trainer(fp.on("before_fit", lambda e: fp.Stop("no")), fp.checkpoints(tmp_path / "{epoch}")))
    assert (report.rows, taken, files(tmp_path)) == ((), [], {})


def test_a_loss_that_was_not_finite_is_no_end(tmp_path):
    lost = [1]

    def batches(epoch):
        for i, batch in enumerate(TRAIN.open(data.Cursor(epoch))):
            yield (*batch.values(), mx.array(math.nan if epoch == 1 and i in lost else 0.0))

    def loss(model, x, y, extra):
        return cross_entropy(model, x, y) + extra

    def run(**options):
        target = pipe(fp.trainer(MODEL, loss), fp.checkpoints(tmp_path / "{step}-{next_epoch}"))
        train = fp.fit(data.stream(batches), epochs=2, seed=9, sync="step", quiet=True, nonfinite="stop", **options)
        return train(target)

    assert "the loss is nan at step 4" in run().stop_reason
    lost.clear()
    again = run(resume="latest")
    assert (again.stop_reason, again.rows[-1].steps, again.epochs_completed) == (None, 6, 2)
