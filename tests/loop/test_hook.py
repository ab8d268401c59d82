"""Hooks are folds; their schedule has one implementation."""

import re

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.loop._event_table import EVENTS


def emit(*hooks, times=1):
    """Fold so many events through hooks by hand; return what they asked."""
    states, asked = fp.hook_states(hooks), []
    for number in range(times):
        event = fp.event("before_epoch", {}, {}, epoch=number)
        states, _, directives = fp.emit(hooks, states, event)
        asked += directives
    return asked


def test_memory_goes_from_event_to_event_and_each_run_starts_anew():
    seen = []
    count = fp.fold("before_epoch", 10, lambda memory, event: (seen.append(memory) or memory + 1, None))
    emit(count, times=3)
    emit(count, times=1)
    assert seen == [10, 11, 12, 10]


def test_order_is_priority_then_registration():
    order = []
    names = [("a", 0), ("b", -1), ("c", 0), ("d", 5), ("e", -1)]
    emit(*(fp.hook("before_epoch", lambda e, n=n: order.append(n), priority=p) for n, p in names))
    assert order == ["b", "e", "a", "c", "d"]


def test_every_counts_emissions_before_when_is_asked():
    fired, asked = [], []
    when = lambda e: asked.append(e.epoch) or e.epoch != 3
    emit(fp.hook("before_epoch", lambda e: fired.append(e.epoch), every=3, when=when), times=8)
    assert asked == [0, 3, 6]
    assert fired == [0, 6]


def test_once_is_spent_by_a_completed_run_not_by_a_declined_one():
    fired = []
    emit(fp.hook("before_epoch", lambda e: fired.append(e.epoch), once=True, when=lambda e: e.epoch >= 2), times=5)
    assert fired == [2]


def test_a_fold_that_returns_no_pair_is_an_error_that_says_so():
    target = pipe(
        fp.trainer(nn.linear(1, 1), lambda m, x: m(x).mean()),
        fp.with_hooks(fp.fold("after_step", 0, lambda m, e: m + 1)),
    )
    with pytest.raises(TypeError, match=r"a fold, returns \(memory, directive\); this is 1"):
        fp.fit([mx.ones((1, 1))], quiet=True)(target)


def test_directives_come_back_and_anything_else_names_the_hook():
    assert emit(fp.hook("before_epoch", lambda e: fp.Stop("now"))) == [fp.Stop("now")]

    def confused(event):
        return "stop"

    with pytest.raises(TypeError, match=r"confused.*'stop'"):
        emit(fp.hook("before_epoch", confused))


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_a_wrong_every_fails_when_the_hook_is_made(every):
    with pytest.raises(ValueError, match="every"):
        fp.hook("after_epoch", print, every=every)


def test_what_is_no_function_or_no_hook_is_refused():
    with pytest.raises(TypeError, match="function of the event"):
        fp.hook("after_epoch", "print")
    with pytest.raises(TypeError, match="with_hooks takes hooks"):
        fp.with_hooks(print)


# directives in a run

X = mx.random.normal((8, 4), key=mx.random.key(3))
PAIR = (X, (X[:, 0] > 0).astype(mx.int32))
TRAIN = [PAIR] * 4


def fit(*verbs, **options):
    target = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), *verbs)
    return fp.fit(TRAIN, quiet=True, **options)(target)


def asking(directive, *, event="after_step", step=1):
    return fp.on(event, lambda e: directive if e.step == step else None)


@pytest.mark.parametrize("event", ["before_step", "after_backward", "after_step"])
def test_validate_validates_after_the_step_at_hand_beside_the_end_of_the_epoch(event):
    names = {kind: name for name, kind in EVENTS.items()}
    target = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), asking(fp.Validate(), event=event))
    only = ("after_step", "before_validation", "after_validation_batch", "after_validation", "after_epoch")
    happened = [names[type(e)] for e in fp.events(TRAIN, validation=[PAIR], only=only)(target)]
    held = ["before_validation", "after_validation_batch", "after_validation"]
    assert happened == [*["after_step"] * 2, *held, *["after_step"] * 2, *held, "after_epoch"]


def test_validation_in_the_middle_changes_no_bit_and_no_row():
    def outcome(*verbs):
        report = fit(*verbs, validation=[PAIR], epochs=2)
        return {p: a.tolist() for p, a in fp.flat([report.params, report.opt_state]).items()}, report.losses

    assert outcome(asking(fp.Validate())) == outcome()
    report = fit(asking(fp.Validate()), validation=[PAIR], epochs=2)
    assert [(row.validation_batches, row.batches) for row in report.rows] == [(1, 4), (1, 4)]


def test_validation_in_the_middle_is_of_the_parameters_of_that_step():
    seen, params = [], []
    hooks = (
        asking(fp.Validate()),
        fp.on("after_step", lambda e: params.append(e.state.params)),
        fp.on("after_validation", lambda e: seen.append({"loss": e.val_loss, **e.val_metrics})),
    )
    fit(*hooks, validation=[PAIR])
    target = fp.trainer(nn.linear(4, 2), fp.classification())
    assert seen == [fp.evaluate([PAIR], params=params[step])(target) for step in (1, 3)]


def test_validate_without_validation_data_says_so():
    with pytest.raises(ValueError, match="asked to Validate.*no validation data"):
        fit(asking(fp.Validate()))


def test_save_without_checkpoints_says_so():
    with pytest.raises(ValueError, match="asked to Save.*no checkpoints") as caught:
        fit(asking(fp.Save()))
    assert any("stage=after_step" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("event", [name for name in EVENTS if name != "after_checkpoint"])
def test_any_other_answer_is_a_type_error_that_names_the_hook(event):
    def confused(e):
        return "stop"

    with pytest.raises(TypeError, match=rf"on\('{event}', confused\) returned 'stop'; a hook returns None, Stop"):
        fit(fp.on(event, confused), validation=[PAIR], log_every=1)


# errors in hooks


@pytest.mark.parametrize(
    ("event", "where"),
    [
        ("before_epoch", "epoch=0, stage=before_epoch"),
        ("before_step", "split=train, epoch=0, batch=0, stage=before_step"),
        ("after_backward", "split=train, epoch=0, batch=0, stage=after_backward"),
        ("after_step", "split=train, epoch=0, batch=0, stage=after_step"),
        ("before_validation", "split=validation, epoch=0, batch=0, stage=before_validation"),
        ("after_validation_batch", "split=validation, epoch=0, batch=0, stage=after_validation_batch"),
        ("after_validation", "split=validation, epoch=0, batch=1, stage=after_validation"),
        ("after_evaluation", "split=validation, epoch=0, batch=1, stage=after_evaluation"),
        ("after_epoch", "epoch=0, stage=after_epoch"),
    ],
)
def test_an_error_in_a_hook_keeps_its_class_and_says_which_and_where(event, where):
    def broken(e):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="^'?mine") as caught:
        fit(fp.on(event, broken), validation=[PAIR])
    assert caught.value.__notes__ == [f"at hook=on('{event}', broken)", f"at {where}"]


@pytest.mark.parametrize("event", ["before_fit", "after_fit"])
def test_an_error_at_the_ends_of_a_run_says_which_hook(event):
    def broken(e):
        raise LookupError("mine")

    with pytest.raises(LookupError) as caught:
        fit(fp.on(event, broken))
    assert caught.value.__notes__ == [f"at hook=on('{event}', broken)"]


def test_an_error_in_when_says_which_hook():
    with pytest.raises(ZeroDivisionError) as caught:
        fit(fp.on("after_step", print, when=lambda e: 1 / 0))
    assert "at hook=on('after_step', print)" in caught.value.__notes__


# schedules and memory in a run


def test_schedules_count_emissions_over_epochs():
    seen = []
    fit(fp.on("after_step", lambda e: seen.append(e.step), every=3), epochs=2)
    assert seen == [0, 3, 6]


def test_memory_may_be_arrays_and_each_run_starts_anew():
    seen = []

    def add(total, event):
        total = total + event.loss
        seen.append(total.item())
        return total, None

    first = fit(fp.with_hooks(fp.fold("after_step", mx.array(0.0), add)))
    fit(fp.with_hooks(fp.fold("after_step", mx.array(0.0), add)))
    assert seen[:4] == seen[4:]
    assert seen[3] == pytest.approx(sum(first.losses), rel=1e-6)


def test_a_stop_in_a_fold_ends_the_run():
    third = fp.fold("after_step", 0, lambda count, e: (count + 1, fp.Stop("three") if count == 2 else None))
    assert fit(fp.with_hooks(third)).stop_reason == "three"


def test_later_hooks_of_an_event_see_what_earlier_ones_replaced():
    seen = []
    start = nn.init(5)(nn.linear(4, 2))
    put = fp.on("after_step", lambda e: fp.Replace(params=start) if e.step == 3 else None, priority=-1)
    look = fp.on("after_step", lambda e: seen.append(e.state.params["weight"].tolist()))
    report = fit(look, put)
    assert seen[-1] == start["weight"].tolist() == report.params["weight"].tolist()
    assert seen[-2] != seen[-1]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"once": 3}, "once of a hook for 'before_epoch' is True or False; got 3"),
        ({"priority": "a"}, "priority of a hook for 'before_epoch' is a finite number; got 'a'"),
        ({"priority": float("nan")}, "priority of a hook for 'before_epoch' is a finite number; got nan"),
        ({"when": 5}, "when of a hook for 'before_epoch' is a function, or None; got 5"),
    ],
)
def test_a_wrong_schedule_fails_when_the_hook_is_made(schedule, words):
    for make in (fp.hook, fp.on, lambda event, fn, **kw: fp.fold(event, 0, fn, **kw)):
        with pytest.raises((TypeError, ValueError), match=re.escape(words)):
            make("before_epoch", print, **schedule)


def test_a_fold_of_no_function_fails_when_it_is_made():
    with pytest.raises(TypeError, match=r"a fold for 'before_epoch' is a function .*got 5"):
        fp.fold("before_epoch", 0, 5)
