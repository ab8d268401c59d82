"""Hooks are folds; their schedule has one implementation."""

import pytest

import mlx_fp as fp
from mlx_fp.loop.hook import Hooks


def emit(*hooks, times=1, event="after_epoch"):
    running = Hooks(hooks)
    asked = []
    for number in range(times):
        running.emit(event, number, lambda e, directive: asked.append(directive) or e)
    return asked


def test_memory_goes_from_event_to_event_and_each_run_starts_anew():
    seen = []
    count = fp.fold("after_epoch", 10, lambda memory, event: (seen.append(memory) or memory + 1, None))
    emit(count, times=3)
    emit(count, times=1)
    assert seen == [10, 11, 12, 10]


def test_order_is_priority_then_registration():
    order = []
    names = [("a", 0), ("b", -1), ("c", 0), ("d", 5), ("e", -1)]
    emit(*(fp.hook("after_epoch", lambda e, n=n: order.append(n), priority=p) for n, p in names))
    assert order == ["b", "e", "a", "c", "d"]


def test_every_counts_emissions_before_when_is_asked():
    fired, asked = [], []
    when = lambda e: asked.append(e) or e != 3
    emit(fp.hook("after_epoch", fired.append, every=3, when=when), times=8)
    assert asked == [0, 3, 6]
    assert fired == [0, 6]


def test_once_is_spent_by_a_completed_run_not_by_a_declined_one():
    fired = []
    emit(fp.hook("after_epoch", fired.append, once=True, when=lambda e: e >= 2), times=5)
    assert fired == [2]


def test_directives_come_back_and_anything_else_names_the_hook():
    assert emit(fp.hook("after_epoch", lambda e: fp.Stop("now"))) == [fp.Stop("now")]

    def confused(event):
        return "stop"

    with pytest.raises(TypeError, match=r"confused.*'stop'"):
        emit(fp.hook("after_epoch", confused))


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_a_wrong_every_fails_when_the_hook_is_made(every):
    with pytest.raises(ValueError, match="every"):
        fp.hook("after_epoch", print, every=every)


def test_what_is_no_function_or_no_hook_is_refused():
    with pytest.raises(TypeError, match="function of the event"):
        fp.hook("after_epoch", "print")
    with pytest.raises(TypeError, match="with_hooks takes hooks"):
        fp.with_hooks(print)
