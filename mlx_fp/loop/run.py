"""One run of a trainer: what the loop does between one event and the next."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import metric
from ..data import Cursor, Dataset
from ..door import mx
from ..errors import located
from ..step import EvalStep, eval_step, train_step
from ..types import Array, Batch, Params, State
from .event import EVENTS, AfterBackward, Event, RunState
from .hook import Hooks, Replace, Stop
from .report import Report, Row
from .totals import Totals
from .trainer import Trainer

__all__ = ["Plan", "Run", "validated"]

Stream = Generator[Event, None, None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked to do; the options of `fit`."""

    train: Dataset
    wanted: frozenset[str]
    validation: Dataset | None = None
    epochs: int = 1
    params: Params | None = None
    seed: int | Array = 0
    compile: bool | Mapping[str, Any] = True
    dtype: Any = None
    keep_losses: bool = True


class Run:
    """A run while it goes on. `events()` runs it; no record is made of an event that nobody listens to."""

    def __init__(self, trainer: Trainer, plan: Plan) -> None:
        task, common = trainer.task, {"compile": plan.compile, "dtype": plan.dtype}
        self.trainer, self.plan, self.hooks = trainer, plan, Hooks(trainer.hooks)
        self.heard = self.hooks.events | plan.wanted
        self.step = train_step(trainer.model, task.loss, trainer.optimizer, metrics=task.metrics, **common)
        self.eval = eval_step(trainer.model, task.loss, metrics=task.metrics, **common)
        start = plan.seed if plan.params is None else plan.params
        self.params, self.opt_state = self.step.init(start, seed=plan.seed)
        self.rows: list[Row] = []
        self.losses: list[float] | None = [] if plan.keep_losses else None
        self.steps = self.completed = 0
        self.stop: Stop | None = None

    def events(self) -> Stream:
        """Run, and yield the events that are wanted.

        `after_fit` comes last. When an error, an interrupt or the closing of the stream ends the run, its hooks still
        run, and then the exception goes on.
        """
        try:
            yield from self._epochs()
        except BaseException as error:
            closed = isinstance(error, GeneratorExit)
            self.stop = Stop("the stream was closed" if closed else f"{type(error).__name__}: {error}")
            self._tell("after_fit", report=self.report())
            raise
        yield from self._emit("after_fit", report=self.report())

    def report(self) -> Report:
        """Say what the run has done so far."""
        return Report(
            rows=tuple(self.rows),
            losses=tuple(self.losses or ()),
            losses_kept=self.plan.keep_losses,
            epochs_target=self.plan.epochs,
            epochs_completed=self.completed,
            epochs_ran=len(self.rows),
            start_epoch=0,
            stopped_early=self.stop is not None and self.completed < self.plan.epochs,
            stop_reason=None if self.stop is None else self.stop.reason,
            params=self.params,
            opt_state=self.opt_state,
        )

    def _epochs(self) -> Stream:
        plan = self.plan
        fields = {"epochs_target": plan.epochs, "start_epoch": 0, "resumed_from_epoch": None}
        yield from self._emit("before_fit", **fields, batches=_length(plan.train))
        for epoch in range(plan.epochs):
            if self.stop is None:
                yield from self._emit("before_epoch", epoch=epoch)
            if self.stop is not None:
                return
            started, totals = time.perf_counter(), Totals(self.losses)
            yield from self._train(epoch, totals)
            seconds, validation = time.perf_counter() - started, Totals()
            if plan.validation is not None:
                yield from self._validate(epoch, plan.validation, validation)
            self.rows.append(_row(epoch, self.steps, seconds, totals, validation))
            yield from self._emit("after_epoch", row=self.rows[-1])

    def _train(self, epoch: int, totals: Totals) -> Stream:
        self.opt_state = {**self.opt_state, "metrics": metric.start(self.step.metrics)}
        with located(split="train", epoch=epoch, batch=lambda: totals.batches):
            for batch in self.plan.train.open(Cursor(epoch), kind="train"):
                logs = yield from self._step(epoch, batch)
                totals.add(logs, batch)
                if self.stop is not None:
                    break
            else:
                self.completed += 1
            totals.close(self.plan.train, metric.values(self.step.metrics, self.opt_state["metrics"]))

    def _step(self, epoch: int, batch: Batch) -> Generator[Event, None, State]:
        here = {"epoch": epoch, "batch": batch, "step": self.steps}
        if "before_step" in self.heard:
            yield from self._emit("before_step", **here)
        if "after_backward" in self.heard:
            grads, rest, self.opt_state, logs = self.step.gradients(self.params, self.opt_state, batch)
            event = yield from self._emit("after_backward", **here, loss=logs["loss"], grads=grads)
            grads = event.grads if isinstance(event, AfterBackward) else grads
            self.params, self.opt_state = self.step.update(self.params, self.opt_state, grads, rest)
        else:
            self.params, self.opt_state, logs = self.step(self.params, self.opt_state, batch)
        mx.async_eval(self.params, self.opt_state, logs)
        self.steps += 1
        if "after_step" in self.heard:
            yield from self._emit("after_step", **here, loss=logs["loss"], logs=logs)
        return logs

    def _validate(self, epoch: int, data: Dataset, totals: Totals) -> Stream:
        yield from self._emit("before_validation", epoch=epoch)
        with located(split="validation", epoch=epoch, batch=lambda: totals.batches):
            for batch, logs in validated(self.eval, self.params, data, totals, epoch=epoch):
                if "after_validation_batch" in self.heard:
                    yield from self._emit("after_validation_batch", epoch=epoch, batch=batch, loss=logs["loss"])
        fields = {"val_loss": totals.means["loss"], "validation_batches": totals.batches}
        yield from self._emit("after_validation", epoch=epoch, **fields, val_metrics=totals.named())

    def _emit(self, name: str, **fields: Any) -> Generator[Event, None, Event | None]:
        """Tell the hooks of an event, and yield it if it is wanted; nothing is made of one that nobody listens to."""
        if name not in self.heard:
            return None
        event = self._tell(name, **fields)
        if name in self.plan.wanted:
            yield event
        return event

    def _tell(self, name: str, **fields: Any) -> Event:
        event = EVENTS[name](self.trainer, RunState(self.params, self.opt_state), **fields)
        return self.hooks.emit(name, event, self._obey)

    def _obey(self, event: Event, directive: Stop | Replace) -> Event:
        """Do what a hook asks, and return the event as the next one shall see it."""
        if isinstance(directive, Stop):
            self.stop = self.stop or directive
            return event
        self.params = self.params if directive.params is None else directive.params
        self.opt_state = self.opt_state if directive.opt_state is None else directive.opt_state
        event = replace(event, state=RunState(self.params, self.opt_state))
        if directive.grads is None:
            return event
        if not isinstance(event, AfterBackward):
            raise TypeError("Replace(grads=…) is for hooks of after_backward, where gradients are")
        return replace(event, grads=directive.grads)


def validated(
    step: EvalStep, params: Params, data: Dataset, totals: Totals, *, epoch: int = 0, kind: str = "validation"
) -> Generator[tuple[Batch, State], None, None]:
    """Take every batch of the data into `totals`, in evaluation mode; yield each, before it counts, with its logs."""
    state = step.init()
    for batch in data.open(Cursor(epoch), kind=kind):
        state, logs = step(params, state, batch)
        mx.async_eval(state, logs)
        yield batch, logs
        totals.add(logs, batch)
    totals.close(data, metric.values(step.metrics, state))


def _row(epoch: int, steps: int, seconds: float, train: Totals, validation: Totals) -> Row:
    return Row(
        epoch=epoch,
        batches=train.batches,
        examples=train.examples,
        steps=steps,
        epoch_loss=train.means["loss"],
        metrics=train.named(),
        val_loss=validation.means.get("loss"),
        val_metrics=validation.named(),
        validation_batches=validation.batches,
        seconds=seconds,
    )


def _length(data: Dataset) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None
