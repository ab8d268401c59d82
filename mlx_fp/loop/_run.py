"""One run of a trainer: what the loop does between one event and the next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from ..checkpointing._writer import Saver
from ..core._errors import located
from ..core._types import Params, State
from ..data import Cursor, Dataset
from ..optim import averaged, skip_nonfinite
from ..step._carried import Packed
from ..step._evaluate import eval_step
from ..step._train import train_step
from ._checkpointing import after_epoch, cut, finish, rescue, resumed
from ._event import EVENTS, AfterBackward, Event, RunState
from ._hook import Asked, Hooks, Replace, Save, Stop, Validate
from ._monitor import Standing, judged, watched
from ._plan import Plan
from ._queueing import SYNC, check_unrolling
from ._report import Report, Row
from ._summary import report_of, row_of
from ._totals import IN_FLIGHT, Totals
from ._trainer import Trainer
from ._training import trained
from ._validation import logged, validated

__all__ = ["Run"]

Stream = Generator[Event, None, None]

_CAUSES = "a rate too high, an input that is not finite, or a label that is no class make it so"


class Run:
    """A run while it goes on. `events()` runs it; no record is made of an event that nobody listens to."""

    def __init__(self, trainer: Trainer, plan: Plan) -> None:
        task = trainer.task
        common = {"metrics": task.metrics, "compile": plan.compile, "dtype": plan.dtype, "streams": plan.streams}
        self.trainer, self.plan, self.hooks = trainer, plan.shaped(task), Hooks(trainer.hooks)
        self.heard = self.hooks.events | plan.wanted
        optimizer = skip_nonfinite()(trainer.optimizer) if plan.nonfinite == "skip" else trainer.optimizer
        self.step = train_step(trainer.model, task.loss, optimizer, **common)
        self.eval = eval_step(trainer.model, task.loss, **common)
        start = plan.seed if plan.params is None else plan.params
        self.state = Packed(self.step.init(start, seed=plan.seed))
        if plan.averaged:
            averaged(self.opt_state)  # a KeyError where no optimiser keeps averages
        self.sync = SYNC.get(plan.sync)
        self.in_flight = IN_FLIGHT * plan.steps_per_call if self.sync else math.inf
        check_unrolling(plan.steps_per_call, self.params, self.heard)
        self.rows: list[Row] = []
        self.losses: list[float] | None = [] if plan.keep_losses else None
        self.steps = self.completed = self.opened = 0  # the last is the step that the epoch began with
        self.standing = Standing()
        self.monitor = watched(task, trainer.monitor, plan.validation is not None, self._logged)
        self.stop: Stop | None = None
        self.interrupted = self.validate = self.save = self.saving = self.over = self.lost = False
        self.stage, self.name = "start", ""
        self.branch: dict[str, int] = {}  # the runs that this one has left, and after which step
        self.totals = self._totals(None, "mean")
        self.saver = None if trainer.policy is None else Saver(trainer.policy)
        self.resumed_totals: dict[str, Any] | None = None
        self.cursor, self.resume_from, self.resumed_from_epoch = resumed(self)
        self.start_epoch = self.cursor.epoch

    def events(self) -> Stream:
        """Run, and yield the events that are wanted.

        `after_fit` comes last. When an error, an interrupt or the closing of the stream ends the run, its hooks still
        run, and then the exception goes on.
        """
        with self.saver or nullcontext():
            try:
                yield from self._epochs()
                self.over = True
                yield from finish(self)
            except BaseException as error:
                closed = isinstance(error, GeneratorExit)
                self.stop = Stop("the stream was closed" if closed else f"{type(error).__name__}: {error}")
                self.tell("after_fit", report=self.report())
                raise
            yield from self.emit("after_fit", report=self.report())

    def interrupt(self, why: str) -> None:
        """End the run after the step at hand, without a last validation; nothing changes when its steps are over."""
        if not self.over:
            self.interrupted, self.stop = True, self.stop or Stop(why)

    @property
    def params(self) -> Params:
        """The parameters and buffers as they are."""
        return self.state.params

    @property
    def opt_state(self) -> State:
        """What goes from step to step beside them, as it is."""
        return self.state.opt_state

    def hold(self, params: Params | None = None, opt_state: State | None = None) -> None:
        """Go on from other parameters, or another state beside them; None leaves them as they are."""
        given = self.params if params is None else params, self.opt_state if opt_state is None else opt_state
        self.state = Packed(given) if "after_backward" in self.heard else self.step.pack(*given)

    def report(self) -> Report:
        """Say what the run has done so far."""
        return report_of(self)

    def _epochs(self) -> Stream:
        plan, ended, validate = self.plan, self.stop is not None, self.validate
        fields = {"start_epoch": self.start_epoch, "resumed_from_epoch": self.resumed_from_epoch}
        yield from self.emit("before_fit", epochs_target=plan.epochs, **fields, batches=plan.train.size)
        if validate and self.stop is None:  # an interrupt has cut what a hook had asked for
            yield from self.validate_now(self.start_epoch - (not self.cursor.index))
        if ended and self.cursor.index:
            yield from self._epoch(self.start_epoch)
        for epoch in range(self.start_epoch, plan.epochs):
            if self.stop is None and not self.cursor.index:
                with located(epoch=epoch, stage="before_epoch"):
                    yield from self.emit("before_epoch", epoch=epoch)
            if self.stop is not None:
                return
            yield from self._epoch(epoch)

    def _epoch(self, epoch: int) -> Stream:
        try:
            yield from self._through(epoch)
        except Exception as error:
            rescue(self, epoch, self.totals.batches, error)
            raise

    def _through(self, epoch: int) -> Stream:
        plan, started = self.plan, time.perf_counter()
        totals = self.totals = self._totals(self.losses, plan.reduce, self._lost)
        self.opened = self.steps - (self.resumed_totals or {"batches": 0})["batches"]
        whole = (yield from trained(self, epoch, totals)) and not self.lost
        if not totals.batches:
            return
        seconds, validation = time.perf_counter() - started, self._totals(None, plan.validation_reduce)
        if plan.validation is not None and not self.interrupted:
            yield from self._validate(epoch, plan.validation, validation)
        held = plan.validation is None or bool(validation.means)  # an interrupt ends a validation, too
        if not (whole and held):
            yield from cut(self, epoch, totals.batches)
        self.stage = "after_epoch"
        row = row_of(epoch, self.steps, seconds, totals, validation)
        with located(epoch=epoch, stage="after_epoch"):
            self.standing, row = judged(self.monitor, self.standing, row, whole=whole and held)
            self.rows.append(row)
            yield from self.emit("after_epoch", row=row)
            if whole and held:
                self.completed += 1
                self.cursor = Cursor(epoch + 1)
            if self.validate and not self.interrupted:
                yield from self.validate_now(epoch)
        if whole and held:
            yield from after_epoch(self, epoch, row.improved)

    def validate_now(self, epoch: int) -> Stream:
        """Validate between two steps, as a hook has asked; what is cut is done when the run goes on."""
        if self.plan.validation is None:
            raise ValueError("a hook asked to Validate(), and there is no validation data")
        self.validate, totals = False, self._totals(None, self.plan.validation_reduce)
        try:
            yield from self._validate(epoch, self.plan.validation, totals)
        finally:
            self.validate = self.validate or not totals.means

    def _validate(self, epoch: int, data: Dataset, totals: Totals) -> Stream:
        where = {"split": "validation", "epoch": epoch, "batch": lambda: totals.batches, "stage": lambda: self.stage}
        with located(**where):
            yield from self.emit("before_validation", epoch=epoch)
            self.stage = "validation"
            params = averaged(self.opt_state)(self.params) if self.plan.averaged else self.params
            for batch, logs in validated(self.eval, params, data, totals, epoch=epoch):
                if "after_validation_batch" in self.heard:
                    yield from self.emit("after_validation_batch", epoch=epoch, batch=batch, loss=logs["loss"])
                    self.stage = "validation"
                if self.interrupted:
                    return
            fields = {"val_loss": totals.means["loss"], "validation_batches": totals.batches}
            yield from self.emit("after_validation", epoch=epoch, **fields, val_metrics=totals.named())

    def emit(self, name: str, **fields: Any) -> Generator[Event, None, Event | None]:
        """Tell the hooks of an event, and yield it if it is wanted; nothing is made of one that nobody listens to."""
        if name not in self.heard:
            return None
        event = self.tell(name, **fields)
        if name in self.plan.wanted:
            yield event
        return event

    def tell(self, name: str, **fields: Any) -> Event:
        """Tell the hooks of an event that somebody listens to."""
        self.stage = name
        event = EVENTS[name](self.trainer, RunState(self.state), **fields)
        return self.hooks.emit(name, event, self._obey)

    def _obey(self, event: Event, asked: Asked) -> Event:
        """Do what a hook asks, and return the event as the next one shall see it."""
        if isinstance(asked, Stop):
            self.stop = self.stop or asked
        if isinstance(asked, Validate):
            self.validate = True
        if isinstance(asked, Save):
            if self.saver is None:
                raise ValueError("a hook asked to Save(), and this trainer writes no checkpoints: add checkpoints(…)")
            self.save = True
        return self._replaced(event, asked) if isinstance(asked, Replace) else event

    def _replaced(self, event: Event, by: Replace) -> Event:
        if by.params is not None or by.opt_state is not None:
            self.hold(by.params, by.opt_state)
        event = replace(event, state=RunState(self.state))
        if by.grads is None:
            return event
        if not isinstance(event, AfterBackward):
            raise TypeError("Replace(grads=…) is for hooks of after_backward, where gradients are")
        return replace(event, grads=by.grads)

    def _logged(self) -> list[str]:
        return logged(self.eval, self.params, self.plan.train)

    def _totals(
        self, losses: list[float] | None, reduce: Any, lost: Callable[[int, float], bool] | None = None
    ) -> Totals:
        return Totals(losses, reduce=reduce, in_flight=self.in_flight, lost=lost, metrics=self.trainer.task.metrics)

    def _lost(self, batch: int, loss: float) -> bool:
        """Do what the plan says of a loss that is not finite; return whether it is left out of the sums."""
        told = f"the loss is {loss} at step {self.opened + batch}, batch {batch} of the epoch"
        if self.plan.nonfinite == "raise" and self.stop is None:
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise FloatingPointError(f"{told}; {_CAUSES}; {ways}")
        if self.plan.nonfinite == "stop":
            self.lost, self.stop = True, self.stop or Stop(told)
        return self.plan.nonfinite == "skip"
