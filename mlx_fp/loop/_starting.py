"""The start of a run: its loop, and its state, which is new or from a checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from ..across._agreement import check_facts, check_replicas
from ..across._errors import together
from ..across._world import ALONE
from ..checkpointing._resume import resolved
from ..checkpointing._retention import is_newest, new_run
from ..checkpointing._run_folder import policy_in
from ..checkpointing._silent import writer_of
from ..checkpointing._writer import Writer
from ..core._frozen import FrozenDict
from ..core._types import Params, State
from ..core.backend import device_backend
from ..data._fingerprint import fingerprint
from ..optim import Optimizer, averaged, skip_nonfinite
from ..optim._rates import learning_rates
from ..optim._sharded import shard_sizes, without_shards
from ..step._carried import Carried
from ..step._evaluate import eval_step
from ..step._protocol import FullStep, check_uses, full_step
from ..step._train import train_step
from ..task._task import check_uncut
from ..tree._paths import flat, size
from ._checkpointing import without_files
from ._differences import differences
from ._directive import Stop
from ._evaluation import names_in_logs
from ._event_table import STEP_EVENTS
from ._hook import Hook, hook_states, opened_hooks
from ._link import Alone, Link
from ._monitor import resolve_monitor
from ._nonfinite import nonfinite_leaves
from ._plan import SYNC, Plan
from ._process_link import ProcessLink
from ._progress_line import resume_text
from ._record import resume_state
from ._series import Series
from ._state import Lineage, Loop, LoopState, Moving, Origin
from ._summary import layers_of
from ._totals import IN_FLIGHT, Read, Sums
from ._trainer_record import Trainer

__all__ = ["first_state", "link_of", "make_step", "start_run", "with_skips"]

_STEP_DEFAULTS = {"compile": True, "dtype": None, "parts": 1, "streams": 1, "update": "at_end", "across": ALONE}
"""Defaults of the options of a step. Only other values are passed on, because a step of the user may lack them."""

_LOG = logging.getLogger("mlx_fp.loop")


@contextmanager
def start_run(trainer: Trainer, plan: Plan) -> Iterator[tuple[Loop, LoopState, Writer | None]]:
    """Within, yield the loop of a run, its state before the first step of this process, and the writer of its files.

    The writer locks the folder of the files before the newest file is looked for.
    """
    world, trainer = plan.across, replace(trainer, policy=policy_in(plan.out, trainer.policy))
    writer = writer_of(trainer.policy, plan.out, world.rank)
    with ExitStack() as opened:
        hooks = sorted(opened.enter_context(opened_hooks(trainer.hooks)), key=lambda hook: hook.priority)
        new = [together(world, lambda: _new_run(trainer, tuple(hooks), plan.collated_for(trainer.task)))]
        if writer is not None:
            together(world, lambda: opened.enter_context(writer))
        new.append(together(world, lambda: _restore_or_begin(*new.pop(), writer)))
        if world.size > 1:
            _check_agreement(*new[0])
        yield (*new.pop(), writer)  # this frame must not keep the parameters


def link_of(loop: Loop, state: LoopState, signal: Callable[[], str | None] = lambda: None) -> Link:
    """Return the link of a run to the other processes. `signal()` returns the name of a signal that has come."""
    plan = loop.plan
    if plan.across.size == 1:
        return Alone(signal)
    lag = IN_FLIGHT * plan.steps_per_call
    train, accumulates = state.moving.train, plan.accumulate > 1
    return ProcessLink(plan.across, loop.step, train, signal, lag, accumulates=accumulates)


def _check_agreement(loop: Loop, state: LoopState) -> None:
    """Raise ValueError, with the first difference, unless all processes start the same run."""
    plan, sets = loop.plan, loop.plan.validation
    names = (
        "epochs",
        "steps",
        "validate_every",
        "accumulate",
        "parts",
        "streams",
        "sync",
        "steps_per_call",
        "nonfinite",
    )
    facts = {
        "model": loop.trainer.model.name,
        "optimizer": loop.trainer.optimizer.name,
        **{name: getattr(plan, name) for name in names},
        "policy of checkpoints": loop.trainer.policy,
        "training data": fingerprint(plan.train),
        "validation data": {name: fingerprint(data) for name, data in sets.items()},
        "step": state.steps,
        "position in the data": state.cursor,
    }
    check_facts(plan.across, facts)
    train = state.moving.train
    check_replicas(plan.across, train.params, "parameters")
    check_replicas(plan.across, without_shards(train.opt_state), "state of the optimiser")
    if plan.accumulate > 1 and shard_sizes(plan.across, train.opt_state):
        raise ValueError("accumulate and optim.sharded exclude each other: a sharded update follows each message")


def _restore_or_begin(loop: Loop, state: LoopState, writer: Writer | None) -> tuple[Loop, LoopState]:
    """Return the loop and the state of a run, restored from a checkpoint if the plan has `resume`."""
    checkpoint, kind = resolved(loop.plan.resume, loop.trainer, loop.monitor.name, writer)
    files = [] if writer is None else writer.files()
    if checkpoint is None:
        if writer is not None:
            writer.begin(resumes=loop.plan.resume is not None)
        return loop, replace(state, lineage=Lineage(new_run(files)))
    state = resume_state(loop, state, checkpoint)
    named = {row.checkpoint for row in state.rows} | {each.checkpoint for each in state.evaluations}
    state = without_files(state, {name for name in named if name is not None and not Path(name).exists()})
    if not is_newest(checkpoint.path, files):
        branches = {**state.lineage.branches, state.lineage.run: state.steps}
        state = replace(state, lineage=Lineage(new_run(files), branches))
    if state.ended is not None:
        state = state.with_requests(stop=Stop(state.ended))
        message = "%s is of a run that a hook has ended: %s; without that hook it goes on"
        _LOG.warning(message, checkpoint.path or "the checkpoint", state.ended)
    if writer is not None:
        writer.resume_from(checkpoint.path, state.held)
    file = kind if checkpoint.path is None else str(checkpoint.path)
    origin = Origin(state.epoch, file, checkpoint.metadata["epoch"], kind, differences(loop, checkpoint))
    _LOG.info("%s", resume_text(origin, state.steps, state.epoch))
    return replace(loop, origin=origin), state


def _new_run(trainer: Trainer, hooks: tuple[Hook, ...], plan: Plan) -> tuple[Loop, LoopState]:
    """Return the loop of a run with its hooks, sorted by priority, and its state before the first step."""
    trainer = with_skips(trainer, plan)
    check_uncut(trainer.task, parts=plan.parts, streams=plan.streams, processes=plan.across.size)
    task = trainer.task
    common = {"compile": plan.compile, "dtype": plan.dtype, "streams": plan.streams}
    evaluate = eval_step(trainer.model, task.loss, metrics=task.metrics, **common)
    step = make_step(trainer, plan)
    params, opt_state = first_state(step, plan)
    trainer = _with_optimizer_of(step, trainer, plan)
    if plan.averaged:
        _check_averages(opt_state)
    listeners = _listeners(hooks)
    listened = frozenset(listeners) | plan.yielded
    _check_steps_per_call(plan.steps_per_call, params, listened)
    if plan.update == "in_backward" and "after_backward" in listened:
        raise ValueError('a hook listens to after_backward, and with update="in_backward" no step has all gradients')
    uses = {"accumulates": plan.accumulate > 1, "sends": plan.across.size > 1}
    check_uses(step, halves="after_backward" in listened, **uses)
    sync = SYNC.get(plan.sync)
    monitor = resolve_monitor(
        task, trainer.monitor, list(plan.validation), lambda: names_in_logs(evaluate, params, plan.train)
    )
    if monitor.takes_losses and not plan.keep_losses:
        raise ValueError(
            f"monitor {monitor.name!r} takes the losses of steps, and keep_losses=False drops them: leave it out"
        )
    in_flight = IN_FLIGHT * plan.steps_per_call if sync else None
    rates: Mapping[str, float] = FrozenDict(learning_rates(opt_state))
    silent = listened.isdisjoint(STEP_EVENTS - {"after_step"})
    bad = frozenset(nonfinite_leaves(flat(params)))
    layers = layers_of(trainer.model, params)
    loop = Loop(
        trainer, plan, step, evaluate, monitor, hooks, listeners, listened, rates, in_flight, bad, silent, sync, layers
    )
    sums = Sums(read=Read(counted=Series() if callable(plan.reduce) else None))
    return loop, LoopState(Moving(Carried((params, opt_state)), sums, hook_states(hooks)))


def with_skips(trainer: Trainer, plan: Plan) -> Trainer:
    """Return the trainer of a run: with `nonfinite="skip"` its optimiser skips updates that are not finite."""
    skips = plan.nonfinite == "skip"
    return replace(trainer, optimizer=skip_nonfinite()(trainer.optimizer)) if skips else trainer


def make_step(trainer: Trainer, plan: Plan) -> FullStep:
    """Return the step of a run. With `log_every` the step measures its rate and norm."""
    options = {name: getattr(plan, name) for name in _STEP_DEFAULTS}
    changed = {name: value for name, value in options.items() if value is not _STEP_DEFAULTS[name]}
    if plan.log_every is not None and trainer.step is None:
        changed["measure"] = True
    make, task = trainer.step or train_step, trainer.task
    return full_step(make(trainer.model, task.loss, trainer.optimizer, metrics=task.metrics, **changed))


def _with_optimizer_of(step: FullStep, trainer: Trainer, plan: Plan) -> Trainer:
    """Return the trainer of a run with the optimisers of its step, if the step has its own."""
    optimizer = getattr(step, "optimizer", None)
    if not isinstance(optimizer, Optimizer):
        return trainer
    if plan.nonfinite == "skip" and "skip_nonfinite" not in optimizer.name:
        raise ValueError(
            f'nonfinite="skip" wraps the optimiser of the trainer, and {step!r} has others: wrap the optimiser of each '
            "member in optim.skip_nonfinite()"
        )
    return replace(trainer, optimizer=optimizer)


def first_state(step: FullStep, plan: Plan) -> tuple[Params, State]:
    """Return the parameters and the state before the first step of a run."""
    return step.init(plan.seed if plan.params is None else plan.params, seed=plan.seed)


def _check_steps_per_call(count: int, params: Params, listened: Container[str]) -> None:
    """Raise ValueError for several steps per call with a hook on gradients. Warn where they save nothing.

    >>> _check_steps_per_call(2, {}, {"after_backward"})
    Traceback (most recent call last):
    ValueError: steps_per_call=2 takes whole steps, and a hook listens to after_backward, which is in the midst of one
    """
    if count == 1:
        return
    if "after_backward" in listened:
        reason = "takes whole steps, and a hook listens to after_backward, which is in the midst of one"
        raise ValueError(f"steps_per_call={count} {reason}")
    if not device_backend().unrolls(elements := size(params)):
        warnings.warn(
            f"steps_per_call={count} is for small models: with {elements:,} parameters it saves nothing, and costs "
            "memory and time to compile",
            RuntimeWarning,
            stacklevel=2,
        )


def _check_averages(opt_state: State) -> None:
    """Raise KeyError with the remedy where the optimiser keeps no averages."""
    try:
        averaged(opt_state)
    except KeyError as error:
        raise KeyError(f"averaged=True validates the averages that optim.ema keeps: {error.args[0]}") from None


def _listeners(hooks: tuple[Hook, ...]) -> Mapping[str, tuple[int, ...]]:
    """Return the indices of the hooks of each event."""
    events = dict.fromkeys(hook.event for hook in hooks)
    return FrozenDict({name: tuple(i for i, hook in enumerate(hooks) if hook.event == name) for name in events})
