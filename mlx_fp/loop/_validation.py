"""Validation within a run, and the verdict on it: after an epoch, every n steps, or when a hook asks for it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from ..core._errors import located, placed_at
from ..core._frozen import FrozenDict
from ..core._types import Params
from ..data import Dataset
from ..optim import averaged
from ..task._folds import values
from ._checkpointing import save_on_error
from ._dispatching import dispatch, with_signal
from ._evaluation import evaluate_batches
from ._monitor import BestSoFar, update_best
from ._reading import read_all
from ._rows import Evaluation
from ._state import Loop, LoopState, Moment, Moments, World
from ._summary import row_of
from ._totals import Means, close

__all__ = ["judge_epoch", "means_so_far", "validate", "validate_on_request"]

Validated = Generator[Moment, None, "tuple[LoopState, bool]"]
Place = dict[str, Any]
"""Where a validation is, for errors: set, batch and stage, which change as it goes on."""

SetMeans = Generator[Moment, None, "tuple[LoopState, Means | None]"]


def validate_on_request(loop: Loop, state: LoopState, world: World, epoch: int) -> Moments:
    """Run a validation that was asked for; one that is interrupted is asked for still."""
    if not loop.plan.validation:
        raise ValueError("a hook asked to Validate(), and there is no validation data")
    state, done = yield from validate(loop, state.with_requests(validate=False), world, epoch, asked=True)
    return state if done else state.with_requests(validate=True)


def validate(
    loop: Loop, state: LoopState, world: World, epoch: int, *, asked: bool = False, train: Means | None = None
) -> Validated:
    """Evaluate the parameters on the validation data, and judge them: the state, and whether it was not interrupted.

    A validation that was `asked` for and fails is asked for still in the checkpoint that the error leaves. `train` are
    the training figures at the end of an epoch, which a monitor may watch.
    """
    place: Place = {"batch": 0, "stage": "before_validation"}
    if list(loop.plan.validation) != [""]:
        place["set"] = None
    rescue = save_on_error(
        loop, lambda: state.with_requests(validate=True) if asked else state, world, lambda: str(place["stage"])
    )
    now = {name: partial(place.get, name) for name in place}
    with rescue, located(split="validation", epoch=epoch, **now):
        state = yield from dispatch(loop, state, world, "before_validation", epoch=epoch, step=state.steps)
        params = _params_to_judge(loop, state)
        means: dict[str, Means] = {}
        for name, data in loop.plan.validation.items():
            place |= {"batch": 0, "stage": "validation"} | ({"set": name} if name else {})
            state, found = yield from _evaluate_set(loop, state, world, params, name, data, epoch, place)
            if found is None:
                return state, False
            means[name] = found
        place["stage"] = "after_validation"
        state = _add_evaluation(loop, state, epoch, params, _merge_sets(means), train)
        yield Moment(state, state.moving)
        row = state.evaluations[-1]
        state = yield from dispatch(loop, state, world, "after_validation", row=row)
        place["stage"] = "after_evaluation"
        return (yield from dispatch(loop, state, world, "after_evaluation", row=row)), True


def judge_epoch(loop: Loop, state: LoopState, world: World, means: Means) -> Moments:
    """Judge the end of an epoch by its training figures."""
    state = _add_evaluation(loop, state, state.epoch, _params_to_judge(loop, state), Means(), means)
    yield Moment(state, state.moving)
    return (yield from dispatch(loop, state, world, "after_evaluation", row=state.evaluations[-1]))


def means_so_far(loop: Loop, state: LoopState) -> tuple[LoopState, Means]:
    """Read all that is queued; return the state then, and the means of the epoch so far."""
    state = read_all(loop, state)
    with placed_at(stage="figures"):
        metrics = values(loop.step.metrics, state.moving.train.opt_state["metrics"])
        return state, close(state.moving.sums, loop.plan.train, metrics, loop.plan.reduce)


def _evaluate_set(
    loop: Loop,
    state: LoopState,
    world: World,
    params: Params,
    name: str,
    data: Dataset,
    epoch: int,
    place: Place,
) -> SetMeans:
    """Evaluate parameters on one validation set; None in the place of its means after an interrupt."""
    reduce = loop.plan.validation_reduce
    parts = evaluate_batches(loop.evaluate, params, data, reduce=reduce, in_flight=loop.in_flight, epoch=epoch)
    with closing(parts):
        while True:
            try:
                number, batch, logs = next(parts)
            except StopIteration as done:
                return state, done.value
            place |= {"batch": number, "stage": "after_validation_batch"}
            fields = {"epoch": epoch, "batch": batch, "loss": logs["loss"], "index": number, "name": name}
            state = yield from dispatch(loop, state, world, "after_validation_batch", **fields)
            place |= {"batch": number + 1, "stage": "validation"}
            state = with_signal(state, world)
            yield Moment(state, state.moving)
            if state.moving.requests.interrupted:
                return state, None


def _merge_sets(means: Mapping[str, Means]) -> Means:
    """Return the figures of all sets, those of a named one with its name in front."""
    if list(means) == [""]:
        return means[""]
    figures = {
        f"{name}_{figure}": value
        for name, each in means.items()
        for figure, value in {"loss": each.figures["loss"], **each.named()}.items()
    }
    return Means(sum(each.batches for each in means.values()), metrics=FrozenDict(figures))


def _params_to_judge(loop: Loop, state: LoopState) -> Params:
    train = state.moving.train
    return averaged(train.opt_state)(train.params) if loop.plan.averaged else train.params


def _add_evaluation(
    loop: Loop, state: LoopState, epoch: int, params: Params, validation: Means, train: Means | None
) -> LoopState:
    """Return the state with an evaluation more and the verdict of the monitor, if it watches figures that are here.

    A run that a loss has ended that is not finite gets none.
    """
    value, improved, best = None, False, state.best
    if (train is not None or loop.judges_validation) and not state.moving.requests.diverged:
        if train is None:
            state, train = _means_for_monitor(loop, state)
        sums = state.moving.sums
        row = row_of(state, epoch, 0.0, 0, train, validation)
        value = loop.monitor.value(row, lambda: sums.losses.newest(sums.updates))
        best, improved = _verdict(loop, state, value, epoch)
    figures = (validation.loss, validation.named(), validation.batches)
    verdict = Evaluation(epoch, state.steps, *figures, value, improved, best.stale)
    best_params = params if improved and loop.plan.keep_best else state.best_params
    return replace(state, evaluations=(*state.evaluations, verdict), best=best, best_params=best_params)


def _verdict(loop: Loop, state: LoopState, value: float | None, epoch: int) -> tuple[BestSoFar, bool]:
    """Judge a value; the same one once more at the same step has the verdict that it had."""
    before = state.evaluation
    if before is not None and value is not None and before.monitor_value == value:
        return state.best, before.improved
    return update_best(loop.monitor, state.best, value, epoch, state.steps)


def _means_for_monitor(loop: Loop, state: LoopState) -> tuple[LoopState, Means]:
    """Return the training figures so far where a monitor that is a function of the row may want them."""
    wanted = loop.monitor.metric is not None and state.moving.sums.batches
    return means_so_far(loop, state) if wanted else (state, Means())
