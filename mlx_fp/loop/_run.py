"""One run of a trainer while it goes on: what it is made of, where it stands, and how it tells of events."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from typing import Any
from weakref import ref

from ..checkpointing._writer import Saver
from ..core._types import Params, State
from ..data import Cursor
from ..optim import averaged, skip_nonfinite
from ..optim._rates import learning_rates
from ..step._carried import Carried
from ..step._evaluate import eval_step
from ..step._train import train_step
from ._evaluation import logged
from ._event import EVENTS, AfterBackward, Event, RunState
from ._hook import Asked, Hooks, Replace, Save, Stop, Validate
from ._monitor import Standing, watched
from ._plan import SYNC, Plan, check_unrolling
from ._report import Row
from ._totals import IN_FLIGHT, Totals
from ._trainer import Trainer

__all__ = ["Run"]

_CAUSES = "a rate too high, an input that is not finite, or a label that is no class make it so"


class Run:
    """A run while it goes on; no record is made of an event that nobody listens to."""

    def __init__(self, trainer: Trainer, plan: Plan) -> None:
        task = trainer.task
        common = {"metrics": task.metrics, "compile": plan.compile, "dtype": plan.dtype, "streams": plan.streams}
        self.trainer, self.plan, self.hooks = trainer, plan.shaped(task), Hooks(trainer.hooks)
        self.heard = self.hooks.events | plan.wanted
        optimizer = skip_nonfinite()(trainer.optimizer) if plan.nonfinite == "skip" else trainer.optimizer
        self.step = train_step(trainer.model, task.loss, optimizer, **common)
        self.eval = eval_step(trainer.model, task.loss, **common)
        start = plan.seed if plan.params is None else plan.params
        self.state = Carried(self.step.init(start, seed=plan.seed))
        if plan.averaged:
            averaged(self.opt_state)  # a KeyError where no optimiser keeps averages
        self.rates = learning_rates(self.opt_state)
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
        self.totals = self.new_totals(None, "mean")
        self.saver = None if trainer.policy is None else Saver(trainer.policy)
        self.resumed_totals: dict[str, Any] | None = None
        self.cursor, self.start_epoch = Cursor(), 0
        self.resume_from: str | None = None
        self.resumed_from_epoch: int | None = None

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
        self.state = Carried(given) if "after_backward" in self.heard else self.step.carry(*given)

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
        event = EVENTS[name](RunState(self.state), **fields)
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

    def new_totals(self, losses: list[float] | None, reduce: Any, *, watched: bool = False) -> Totals:
        """Return empty sums. Each loss is appended to `losses`; if `watched`, one that is not finite is acted on.

        The sums hold the run weakly: a circle would keep the folder of an interrupted run locked until it is collected.
        """
        run = ref(self)

        def lost(batch: int, loss: float) -> bool:
            target = run()
            return target is not None and target._is_left_out(batch, loss)

        watch, metrics = lost if watched else None, self.trainer.task.metrics
        return Totals(losses, reduce=reduce, in_flight=self.in_flight, lost=watch, metrics=metrics)

    def _is_left_out(self, batch: int, loss: float) -> bool:
        """Do what the plan says of a loss that is not finite; return whether it is left out of the sums."""
        told = f"the loss is {loss} at step {self.opened + batch}, batch {batch} of the epoch"
        if self.plan.nonfinite == "raise" and self.stop is None:
            ways = "nonfinite='skip' leaves such steps out, 'stop' ends the run there"
            raise FloatingPointError(f"{told}; {_CAUSES}; {ways}")
        if self.plan.nonfinite == "stop":
            self.lost, self.stop = True, self.stop or Stop(told)
        return self.plan.nonfinite == "skip"
