"""The state of a run as plain values, and back: the content of a checkpoint beside parameters and optimiser state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, fields
from typing import Any, TypeVar

from ..core._errors import CheckpointError
from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._types import Params, State, Tree
from ..store._bundle import environment
from ..store._checkpoint import Checkpoint
from ..tree._flattening import as_arrays
from ..tree._paths import flat, restore_like
from ._frozen import filled
from ._hook import HookState, Stop, hook_keys
from ._monitor import Standing
from ._record_check import check_record
from ._rows import Evaluation, Row
from ._series import Series
from ._state import Lineage, Loop, LoopState, Moving, Requests
from ._totals import Read, Sums, entries_of, queue_of

__all__ = ["record", "restored", "resumed"]

R = TypeVar("R")

_LOG = logging.getLogger("mlx_fp.loop")


def record(loop: Loop, state: LoopState, user: Any = None) -> dict[str, Any]:
    """Return all of a state as plain values and arrays, but for parameters and optimiser state.

    It reads nothing but the state, and no value of the device. `restored` is its inverse.
    """
    cursor, sums, requests = state.cursor, state.moving.sums, state.moving.requests
    last, verdict = state.rows[-1] if state.rows else None, state.evaluation
    return {
        "epoch": cursor.epoch if cursor.index else cursor.epoch - 1,
        "next_epoch": cursor.epoch,
        "step": state.steps,
        "cursor": asdict(cursor),
        "epoch_loss": last and last.epoch_loss,
        "monitor_name": loop.monitor.name,
        "monitor_mode": loop.monitor.mode,
        "monitor_value": verdict and verdict.monitor_value,
        "improved": bool(verdict and verdict.improved),
        **asdict(state.standing),
        "completed": state.completed,
        "hooks": dict(zip(hook_keys(loop.hooks), (one._asdict() for one in state.moving.hooks), strict=True)),
        "requests": asdict(requests),
        "rows": [asdict(row) for row in state.rows],
        "evaluations": [asdict(row) for row in state.evaluations],
        "best_params": state.best_params,
        "losses": mx.array(sums.losses.values(), mx.float32),
        "sums": _sums(sums),
        "run": state.lineage.run,
        "branch": dict(state.lineage.branches),
        "data": repr(loop.plan.train),
        "optimizer": loop.trainer.optimizer.name,
        "rates": dict(loop.rates),
        "seed": _plain_seed(loop.plan.seed),
        "keep_losses": loop.plan.keep_losses,
        "versions": environment(),
        "user": user,
    }


def restored(loop: Loop, metadata: Mapping[str, Any], params: Params, opt_state: State) -> LoopState:
    """Return the state of which `record` made the metadata. Hooks that were not there begin anew.

    For the same loop, `restored(loop, record(loop, state), params, opt_state)` is `state`, with its own parameters and
    optimiser state.
    """
    losses = metadata["losses"].tolist() if loop.plan.keep_losses else []
    sums = _restored_sums(metadata["sums"], losses)
    moving = Moving(
        loop.carry(params, opt_state),
        sums,
        _hooks(loop, metadata["hooks"]),
        _requests(metadata["requests"]),
    )
    return LoopState(
        moving,
        metadata["next_epoch"],
        metadata["step"] - sums.updates,
        _rows(Row, metadata["rows"]),
        _rows(Evaluation, metadata["evaluations"]),
        metadata["completed"],
        Standing(**{field.name: metadata[field.name] for field in fields(Standing)}),
        metadata["best_params"] if loop.plan.keep_best else None,
        Lineage(metadata["run"], metadata["branch"]),
    )


def resumed(loop: Loop, start: LoopState, checkpoint: Checkpoint) -> LoopState:
    """Return the state in a checkpoint, checked against the run that goes on. CheckpointError for another run's."""
    metadata, path, train = checkpoint.metadata, checkpoint.path, start.moving.train
    if "cursor" not in metadata or checkpoint.opt_state is None:
        raise CheckpointError(f"{path} holds parameters, and nothing of a run to go on with: give them as params=")
    try:
        check_record(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path} holds no run to go on with: {error}") from None
    _same_monitor(loop, checkpoint)
    _warn_of_differences(loop, checkpoint)
    _warn_of_options(loop, checkpoint)
    given, best = filled(checkpoint, train.params)
    params = _like("parameters", train.params, given, path)
    best = None if best is None else _like("best parameters", train.params, best, path)
    opt_state = _like("optimiser state", train.opt_state, checkpoint.opt_state, path)
    state = restored(loop, {**metadata, "best_params": best}, params, opt_state)
    return state.asking(stop=None, interrupted=False, diverged=False)  # those ended the process that wrote it


def _sums(sums: Sums) -> dict[str, Any]:
    read = sums.read
    return {
        "batches": sums.batches,
        "updates": sums.updates,
        "examples": sums.examples,
        "figures": {name: list(pair) for name, pair in read.figures.items()},
        "total": read.total,
        "last": read.last,
        "counted": None if read.counted is None else read.counted.values(),
        "queue": [list(entry) for entry in entries_of(sums)],
    }


def _restored_sums(plain: Mapping[str, Any], losses: list[float]) -> Sums:
    counted = None if plain["counted"] is None else Series().extend(plain["counted"])
    figures: Mapping[str, tuple[float, float]] = FrozenDict(
        {name: (total, weight) for name, (total, weight) in plain["figures"].items()}
    )
    read = Read(figures, plain["total"], plain["last"], counted, Series().extend(losses))
    queue = [tuple(entry) for entry in plain["queue"]]
    return Sums(plain["batches"], plain["updates"], plain["examples"], len(queue), queue_of(queue), read)


def _rows(kind: type[R], rows: Iterable[Mapping[str, Any]]) -> tuple[R, ...]:
    """Return rows of a kind, of their fields by name."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return tuple(kind(**{name: row[name] for name in names}) for row in rows)


def _hooks(loop: Loop, states: Mapping[str, Any]) -> tuple[HookState, ...]:
    fresh = {key: HookState(hook.init)._asdict() for key, hook in zip(hook_keys(loop.hooks), loop.hooks, strict=True)}
    return tuple(HookState(**deepcopy(states.get(key, own))) for key, own in fresh.items())


def _requests(plain: Mapping[str, Any]) -> Requests:
    stop = plain.get("stop")
    return Requests(**{**plain, "stop": None if stop is None else Stop(**stop)})


def _same_monitor(loop: Loop, checkpoint: Checkpoint) -> None:
    one = loop.monitor.name, loop.monitor.mode
    other = checkpoint.metadata["monitor_name"], checkpoint.metadata["monitor_mode"]
    if one != other:
        raise CheckpointError(f"{checkpoint.path} watches {other[0]} ({other[1]}), and this run {one[0]} ({one[1]})")


def _warn_of_differences(loop: Loop, checkpoint: Checkpoint) -> None:
    """Warn once where the code is not what it was: the run goes on, but not to the same bits."""
    was, hooks = checkpoint.metadata, hook_keys(loop.hooks)
    own = {"the data": repr(loop.plan.train), "the hooks": ", ".join(hooks)}
    here = {**environment(), **own, "the optimiser": loop.trainer.optimizer.name}
    there = {
        **was["versions"],
        "the data": was["data"],
        "the hooks": ", ".join(was["hooks"]),
        "the optimiser": was["optimizer"],
    }
    other = [f"{name} was {there.get(name)}, is {now}" for name, now in here.items() if there.get(name) != now]
    other += _other_rates(loop.rates, was["rates"])
    if other:
        _LOG.warning("%s was written by another run, and goes on inexactly: %s", checkpoint.path, "; ".join(other))


def _warn_of_options(loop: Loop, checkpoint: Checkpoint) -> None:
    """Warn of options of this run that have no effect, because the file holds."""
    was, plan, told = checkpoint.metadata, loop.plan, list[str]()
    if plan.params is not None and not checkpoint.left_out:
        told.append("params= is given, and the parameters of the file hold")
    if (seed := _plain_seed(plan.seed)) != was.get("seed", seed):
        told.append(f"the seed was {was['seed']}, is {seed}, and the random stream of the file holds")
    if plan.keep_losses and not was.get("keep_losses", True):
        told.append("the losses of its steps were not kept, and report.losses begins here")
    if told:
        _LOG.warning("the run goes on from %s: %s", checkpoint.path or "a checkpoint", "; ".join(told))


def _plain_seed(seed: Any) -> Any:
    return seed.tolist() if isinstance(seed, mx.array) else seed


def _other_rates(here: Mapping[str, float], there: Mapping[str, float]) -> list[str]:
    """Tell of learning rates that the code starts with and the file did not: those of the file hold."""
    return [
        f"{path} started at {there[path]:g}, the code says {rate:g}, and the rate in the file holds"
        for path, rate in here.items()
        if path in there and there[path] != rate
    ]


def _like(name: str, own: Tree, given: Tree, path: Any) -> Tree:
    """Return the tree of a file in the containers of the run's own; the paths, shapes and dtypes must be the same."""
    mine, theirs = flat(own), flat(given)
    kinds = [{p: _kind(leaf) for p, leaf in leaves.items()} for leaves in (mine, theirs)]
    other = [p for p in kinds[0] | kinds[1] if kinds[0].get(p) != kinds[1].get(p)]
    if other:
        each = [f"{p}: here {kinds[0].get(p, 'none')}, there {kinds[1].get(p, 'none')}" for p in other]
        more = f"; and {len(each) - 8} more" if len(each) > 8 else ""
        raise CheckpointError(f"{path} holds other {name} than this run: {'; '.join(each[:8])}{more}")
    return as_arrays(restore_like(own, theirs))


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype} {tuple(leaf.shape)}" if isinstance(leaf, mx.array) else f"a {type(leaf).__name__}"
