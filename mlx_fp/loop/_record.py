"""The state of a run as plain values, and back: the content of a checkpoint beside its arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from ..core._errors import CheckpointError
from ..core._frozen import FrozenDict
from ..core._mlx import mx
from ..core._types import Params, State, Tree
from ..optim._sharded import own_state
from ..store._checkpoint import Checkpoint
from ..store._environment import environment
from ..store._packed import Encoder, Floats
from ..tree._conversion import as_arrays
from ..tree._paths import flat, restore_like
from ._differences import check_monitor, differences, plain_seed, warn_of_options
from ._directive import Stop
from ._frozen import fill_frozen
from ._hook import HookState, hook_keys
from ._monitor import BestSoFar
from ._record_check import check_record
from ._requests import Requests
from ._rows import Evaluation, Row
from ._series import Series
from ._state import Lineage, Loop, LoopState, Moving
from ._totals import Read, Sums, entries_of, queue_of

__all__ = ["index", "record", "restore", "resume_state"]

R = TypeVar("R", Row, Evaluation)

_LOG = logging.getLogger("mlx_fp.loop")


def index(loop: Loop, state: LoopState) -> dict[str, Any]:
    """Return the values of a record that identify and name its file. Their size does not grow with the run."""
    cursor = state.cursor
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
        "run": state.lineage.run,
        "branch": dict(state.lineage.branches),
    }


def record(loop: Loop, state: LoopState, encoder: Encoder | None = None) -> dict[str, Any]:
    """Return a state as plain values and arrays, without parameters and optimiser state.

    This reads only the state, and no value of the device. `restore` is the inverse. An encoder that has encoded an
    earlier state of the run encodes only the new rows.
    """
    sums, requests, encode = state.moving.sums, state.moving.requests, encoder or Encoder()
    policy = loop.trainer.policy
    return {
        **index(loop, state),
        **asdict(state.best),
        "completed": state.completed,
        "hooks": dict(zip(hook_keys(loop.hooks), (hook._asdict() for hook in state.moving.hooks), strict=True)),
        "requests": asdict(requests),
        "rows": encode("rows", state.rows, _plain_row),
        "evaluations": encode("evaluations", state.evaluations, _plain_row),
        "best_params": state.best_params,
        "losses": mx.array(memoryview(sums.losses.packed()).cast("d"), mx.float32),  # type: ignore[arg-type]  # a buffer
        "sums": _sums(sums),
        "data": repr(loop.plan.train),
        "optimizer": loop.trainer.optimizer.name,
        "rates": dict(loop.rates),
        "seed": plain_seed(loop.plan.seed),
        "keep_losses": loop.plan.keep_losses,
        "versions": environment(),
        "user": None if policy is None else policy.user,
    }


def restore(loop: Loop, metadata: Mapping[str, Any], params: Params, opt_state: State) -> LoopState:
    """Return the state of which `record` made the metadata. Hooks that the record does not have start afresh.

    For the same loop, `restore(loop, record(loop, state), params, opt_state)` is `state`, with its own parameters and
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
        BestSoFar(**{field.name: metadata[field.name] for field in fields(BestSoFar)}),
        metadata["best_params"] if loop.plan.keep_best else None,
        Lineage(metadata["run"], metadata["branch"]),
    )


def resume_state(loop: Loop, start: LoopState, checkpoint: Checkpoint) -> LoopState:
    """Return the state of a checkpoint. Raise CheckpointError where it does not fit this run."""
    metadata, path, train = checkpoint.metadata, checkpoint.path, start.moving.train
    if "cursor" not in metadata or checkpoint.opt_state is None:
        raise CheckpointError(f"{path} holds parameters, and nothing of a run to go on with: give them as params=")
    try:
        check_record(metadata)
    except ValueError as error:
        raise CheckpointError(f"{path} holds no run to go on with: {error}") from None
    check_monitor(loop, checkpoint)
    if other := differences(loop, checkpoint):
        message = "%s was written by another run, and goes on inexactly, so that bits may differ: %s"
        _LOG.warning(message, path, "; ".join(other))
    warn_of_options(loop, checkpoint)
    weights, best = fill_frozen(checkpoint, train.params)
    params = _restore_tree("parameters", train.params, weights, path)
    best = None if best is None else _restore_tree("best parameters", train.params, best, path)
    own = own_state(loop.plan.across, checkpoint.opt_state)
    opt_state = _restore_tree("optimiser state", train.opt_state, own, path)
    state = restore(loop, {**metadata, "best_params": best}, params, opt_state)
    state = _check_losses(loop, state, path)
    return state.with_requests(
        stop=None, interrupted=False, diverged=False
    )  # those requests ended the process that wrote the file


def _check_losses(loop: Loop, state: LoopState, path: object) -> LoopState:
    """Return the state with a list for the losses of the epoch if a function reduces them.

    Raise CheckpointError where the file lacks losses of the present epoch that a function of this run needs.
    """
    sums, reduces = state.moving.sums, callable(loop.plan.reduce)
    read, counted = sums.updates - sums.queued, sums.read.counted
    lacking = [f"monitor {loop.monitor.name!r}"] * (loop.monitor.takes_losses and len(sums.losses.newest(read)) < read)
    lacking += ["the function of reduce="] * (reduces and counted is None and read > 0)
    if lacking:
        raise CheckpointError(
            f"{lacking[0]} takes the losses of steps, and {path} lacks those of the first {read} of its epoch, because "
            "the run that wrote it did not keep them: go on from the end of an epoch"
        )
    counted = (counted or Series()) if reduces else None
    sums = sums._replace(read=sums.read._replace(counted=counted))
    return replace(state, moving=state.moving._replace(sums=sums))


def _sums(sums: Sums) -> dict[str, object]:
    """Return the sums of an epoch as plain values and arrays."""
    read = sums.read
    return {
        "batches": sums.batches,
        "updates": sums.updates,
        "examples": sums.examples,
        "figures": {name: list(pair) for name, pair in read.figures.items()},
        "total": read.total,
        "last": read.last,
        "counted": None if read.counted is None else Floats(read.counted.packed()),
        "queue": [list(entry) for entry in entries_of(sums)],
    }


def _restored_sums(plain: Mapping[str, Any], losses: list[float]) -> Sums:
    """Return the sums of which `_sums` made the plain values."""
    counted = None if plain["counted"] is None else Series().extend(plain["counted"])
    figures: Mapping[str, tuple[float, float]] = FrozenDict(
        {name: (total, weight) for name, (total, weight) in plain["figures"].items()}
    )
    read = Read(figures, plain["total"], plain["last"], counted, Series().extend(losses))
    queue = [tuple(entry) for entry in plain["queue"]]
    return Sums(plain["batches"], plain["updates"], plain["examples"], len(queue), queue_of(queue), read)


def _plain_row(row: Row | Evaluation) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}


def _rows(kind: type[R], rows: Iterable[Mapping[str, Any]]) -> tuple[R, ...]:
    """Return rows of a class from their fields by name."""
    names = [field.name for field in fields(kind)]
    return tuple(kind(**{name: row[name] for name in names if name in row}) for row in rows)


def _hooks(loop: Loop, states: Mapping[str, Any]) -> tuple[HookState, ...]:
    """Return the states of the hooks of a run. Hooks that the file does not have start afresh."""
    fresh = {key: HookState(hook.init)._asdict() for key, hook in zip(hook_keys(loop.hooks), loop.hooks, strict=True)}
    return tuple(HookState(**deepcopy(states.get(key, initial))) for key, initial in fresh.items())


def _requests(plain: Mapping[str, Any]) -> Requests:
    stop = plain.get("stop")
    return Requests(**{**plain, "stop": None if stop is None else Stop(**stop)})


def _restore_tree(name: str, present: Tree, stored: Tree, path: object) -> Tree:
    """Return the tree of a file in the containers of the run's tree. Paths, shapes and dtypes must be the same."""
    leaves = flat(stored)
    here, there = ({p: _dtype_and_shape(leaf) for p, leaf in tree.items()} for tree in (flat(present), leaves))
    differing = [p for p in here | there if here.get(p) != there.get(p)]
    if differing:
        lines = [f"{p}: here {here.get(p, 'none')}, there {there.get(p, 'none')}" for p in differing]
        more = f"; and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise CheckpointError(f"{path} holds other {name} than this run: {'; '.join(lines[:8])}{more}")
    return as_arrays(restore_like(present, leaves))


def _dtype_and_shape(leaf: object) -> str:
    return f"{leaf.dtype} {tuple(leaf.shape)}" if isinstance(leaf, mx.array) else f"a {type(leaf).__name__}"
