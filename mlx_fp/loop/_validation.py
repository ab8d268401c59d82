"""Validation within a run, and its verdict: after an epoch, every n steps, or when a hook requests it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial

from ..core._errors import located, placed_at
from ..core._frozen import FrozenDict
from ..core._types import Params
from ..data import Dataset
from ..optim import averaged
from ..task._folds import values
from ._checkpointing import save_on_error
from ._dispatching import agree, dispatch, with_signal
from ._evaluation import evaluate_batches
from ._monitor import BestSoFar, update_best
from ._nonfinite import read_all
from ._rows import Evaluation
from ._state import Loop, LoopState, Moment, Moments, Ports
from ._summary import row_of
from ._totals import Means, close

__all__ = ["judge_epoch", "means_so_far", "validate", "validate_on_request"]

Validated = Generator[Moment, None, "tuple[LoopState, bool]"]
Place = dict[str, object]
"""The place within a validation, for error notes: set, batch and stage, which change during the validation."""

SetMeans = Generator[Moment, None, "tuple[LoopState, Means | None]"]


def validate_on_request(loop: Loop, state: LoopState, ports: Ports, epoch: int) -> Moments:
    """Run a requested validation. After an interrupt the request stays, so that a resumed run repeats it."""
    if not loop.plan.validation:
        raise ValueError("a hook asked to Validate(), and there is no validation data")
    state, done = yield from validate(loop, state.with_requests(validate=False), ports, epoch, requested=True)
    return state if done else state.with_requests(validate=True)


def validate(
    loop: Loop, state: LoopState, ports: Ports, epoch: int, *, requested: bool = False, train: Means | None = None
) -> Validated:
    """Evaluate the parameters on the validation data, and judge them.

    Return the state, and False after an interrupt. With `requested`, a checkpoint that an error leaves keeps the
    request. `train` are the training figures at the end of an epoch, which a monitor may watch.
    """
    place: Place = {"batch": 0, "stage": "before_validation"}
    if list(loop.plan.validation) != [""]:
        place["set"] = None
    rescue = save_on_error(
        loop, lambda: state.with_requests(validate=True) if requested else state, ports, lambda: str(place["stage"])
    )
    now = {name: partial(place.get, name) for name in place}
    with rescue, located(split="validation", epoch=epoch, **now):
        state = yield from dispatch(loop, state, ports, "before_validation", epoch=epoch, step=state.steps)
        params = _params_to_judge(loop, state)
        means: dict[str, Means] = {}
        for name, data in loop.plan.validation.items():
            place |= {"batch": 0, "stage": "validation"} | ({"set": name} if name else {})
            state, set_means = yield from _evaluate_set(loop, state, ports, params, name, data, epoch, place)
            if set_means is None:
                return state, False
            means[name] = set_means
        place["stage"] = "after_validation"
        state = _add_evaluation(loop, state, epoch, params, _merge_sets(means), train)
        yield Moment(state, state.moving)
        row = state.evaluations[-1]
        state = yield from dispatch(loop, state, ports, "after_validation", row=row)
        place["stage"] = "after_evaluation"
        state = yield from dispatch(loop, state, ports, "after_evaluation", row=row)
        return agree(state, ports), True


def judge_epoch(loop: Loop, state: LoopState, ports: Ports, means: Means) -> Moments:
    """Judge the end of an epoch by its training figures."""
    state = _add_evaluation(loop, state, state.epoch, _params_to_judge(loop, state), Means(), means)
    yield Moment(state, state.moving)
    return (yield from dispatch(loop, state, ports, "after_evaluation", row=state.evaluations[-1]))


def means_so_far(loop: Loop, state: LoopState) -> tuple[LoopState, Means]:
    """Read all queued logs. Return the new state, and the means of the epoch so far."""
    state = read_all(loop, state)
    with placed_at(stage="figures"):
        metrics = values(loop.step.metrics, state.moving.train.opt_state["metrics"])
        return state, close(state.moving.sums, loop.plan.train, metrics, loop.plan.reduce)


def _evaluate_set(
    loop: Loop,
    state: LoopState,
    ports: Ports,
    params: Params,
    name: str,
    data: Dataset,
    epoch: int,
    place: Place,
) -> SetMeans:
    """Evaluate parameters on one validation set. After an interrupt the means are None."""
    reduce = loop.plan.validation_reduce
    parts = evaluate_batches(
        loop.evaluate, params, data, reduce=reduce, in_flight=loop.in_flight, epoch=epoch, link=ports.link
    )
    with closing(parts):
        while True:
            try:
                number, batch, logs = next(parts)
            except StopIteration as done:
                return state, done.value
            place |= {"batch": number, "stage": "after_validation_batch"}
            fields = {"epoch": epoch, "batch": batch, "loss": logs["loss"], "index": number, "name": name}
            state = yield from dispatch(loop, state, ports, "after_validation_batch", **fields)
            place |= {"batch": number + 1, "stage": "validation"}
            state = with_signal(state, ports)
            yield Moment(state, state.moving)
            if state.moving.requests.interrupted:
                return state, None


def _merge_sets(means: Mapping[str, Means]) -> Means:
    """Return the figures of all sets, those of a named set with its name in front."""
    if list(means) == [""]:
        return means[""]
    figures = {
        f"{name}_{figure}": value
        for name, each in means.items()
        for figure, value in {"loss": each.figures["loss"], **each.named()}.items()
    }
    return Means(sum(each.batches for each in means.values()), metrics=FrozenDict(figures))


def _params_to_judge(loop: Loop, state: LoopState) -> Params:
    """Return the parameters, or their averages with `averaged=True`."""
    train = state.moving.train
    return averaged(train.opt_state)(train.params) if loop.plan.averaged else train.params


def _add_evaluation(
    loop: Loop, state: LoopState, epoch: int, params: Params, validation: Means, train: Means | None
) -> LoopState:
    """Return the state with one more evaluation, and the verdict of the monitor if its figure is available.

    There is no verdict where a loss that is not finite has ended the run.
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
    """Judge a value. The same value again at the same step has the same verdict."""
    before = state.evaluation
    if before is not None and value is not None and before.monitor_value == value:
        return state.best, before.improved
    return update_best(loop.monitor, state.best, value, epoch, state.steps)


def _means_for_monitor(loop: Loop, state: LoopState) -> tuple[LoopState, Means]:
    """Return the training figures so far if the monitor is a function of the row, which may read them."""
    readable = loop.monitor.metric is not None and state.moving.sums.batches
    return means_so_far(loop, state) if readable else (state, Means())
