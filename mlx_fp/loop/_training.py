"""The steps of one epoch of a run: batches in, parameters and logs out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ..core._errors import located
from ..core._mlx import mx
from ..core._types import Batch, State
from ..task._folds import start, values
from ..tree._paths import leaves
from ._checkpointing import save_after_step
from ._event import AfterBackward, Event
from ._totals import Totals
from ._validation import validate_now

if TYPE_CHECKING:
    from ._run import Run

__all__ = ["grouped", "trained"]

Logs = Generator[Event, None, "tuple[State, ...]"]


def trained(run: Run, epoch: int, totals: Totals) -> Generator[Event, None, bool]:
    """Train on an epoch; return whether on all of it."""
    _begin(run, totals)
    plan, ahead = run.plan, list[Batch]()
    plain = run.heard.isdisjoint(("before_step", "after_backward", "after_step"))
    where = {"split": "train", "epoch": epoch, "batch": lambda: totals.batches + len(ahead), "stage": lambda: run.stage}
    with located(**where), closing(plan.train.open(run.cursor, kind="train")) as batches:
        for group in () if run.stop is not None else grouped(batches, plan.steps_per_call, ahead):
            run.stage = "step"
            logs = _stepped(run, group) if plain else (yield from _aloud(run, epoch, group))
            for one, batch in zip(logs, group, strict=True):
                totals.add(one, batch)
            if run.validate:
                yield from validate_now(run, epoch)
                run.stage = "step"
            if run.saver is not None:
                yield from save_after_step(run, epoch, totals.batches, len(group))
            if run.stop is not None:
                break
            run.stage = "data"
        whole = run.stop is None or totals.batches == plan.train.size
        if plan.sync == "epoch":
            mx.eval(run.state.arrays)
        if totals.batches or run.stop is None:  # a signal may come before the first batch
            totals.close(plan.train, values(run.step.metrics, run.opt_state["metrics"]))
    return whole


def grouped(batches: Iterable[Batch], count: int, ahead: list[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yield tuples of `count` batches of one shape each, and the batches that do not fit by themselves, in order.

    `ahead` holds those that were read and not yet yielded.

    >>> from mlx_fp.core._mlx import mx
    >>> [len(group) for group in grouped([mx.zeros((2,))] * 5, 2, [])]
    [2, 2, 1]
    """
    if count == 1:
        yield from zip(batches, strict=True)
        return
    for batch in batches:
        ahead.append(batch)
        if len(ahead) == count:
            alike = all(_shapes(one) == _shapes(batch) for one in ahead)
            yield from _taken(ahead, count if alike else 1)
    yield from _taken(ahead, 1)


def _taken(ahead: list[Batch], count: int) -> Iterator[tuple[Batch, ...]]:
    while ahead:
        group = tuple(ahead[:count])
        del ahead[:count]
        yield group


def _shapes(batch: Batch) -> list[Any]:
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in leaves(batch)]


def _begin(run: Run, totals: Totals) -> None:
    run.stage = "data"
    if run.resumed_totals is None:
        run.hold(opt_state={**run.opt_state, "metrics": start(run.step.metrics)})
    else:
        totals.restore(run.resumed_totals)
        run.resumed_totals = None


def _stepped(run: Run, group: tuple[Batch, ...]) -> tuple[State, ...]:
    """Take the steps, in one call, and queue them on the device; return the logs of each."""
    run.state, logs = run.step.advance(run.state, group)
    _queue(run, logs)
    return logs


def _queue(run: Run, logs: tuple[State, ...]) -> None:
    if run.sync is not None:
        run.sync(run.state.arrays, logs)
    run.steps += len(logs)


def _aloud(run: Run, epoch: int, group: tuple[Batch, ...]) -> Logs:
    """Take the steps, and tell of each: of all that are about to be taken, and then of all that were."""
    each = [{"epoch": epoch, "batch": batch, "step": run.steps + i} for i, batch in enumerate(group)]
    if "before_step" in run.heard:
        for here in each:
            yield from run.emit("before_step", **here)
    logs = (yield from _halves(run, each[0])) if "after_backward" in run.heard else _stepped(run, group)
    for here, one in zip(each, logs, strict=True):
        if "after_step" in run.plan.wanted:
            yield from run.emit("after_step", **here, loss=one["loss"], logs=one)
        elif "after_step" in run.heard:
            run.tell("after_step", **here, loss=one["loss"], logs=one)
    return logs


def _halves(run: Run, here: dict[str, Any]) -> Logs:
    """Take a step in its two halves, with what hooks make of the gradients between them."""
    grads, rest, opt_state, one = run.step.gradients(run.params, run.opt_state, here["batch"])
    run.hold(opt_state=opt_state)
    event = yield from run.emit("after_backward", **here, loss=one["loss"], grads=grads)
    grads = event.grads if isinstance(event, AfterBackward) else grads
    run.hold(*run.step.update(run.params, run.opt_state, grads, rest))
    _queue(run, (one,))
    return (one,)
