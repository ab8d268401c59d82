"""The state of a run as trees and plain values, and back: the content of a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from ..core._errors import CheckpointError
from ..data import Cursor
from ..store._bundle import environment
from ..tree._flattening import as_arrays
from ..tree._paths import flat, restore_like
from ._monitor import Standing
from ._report import Row

if TYPE_CHECKING:
    from ._run import Run

__all__ = ["restore", "snapshot"]

_LOG = logging.getLogger("mlx_fp.loop")


def snapshot(run: Run, cursor: Cursor, user: Any = None) -> dict[str, Any]:
    """Return what a run must know to go on from `cursor`, beside parameters and optimiser state."""
    from ..core._mlx import mx

    totals = run.totals.state() if cursor.index else None  # this reads the losses that are still on the device
    last = run.rows[-1] if run.rows else None
    return {
        "epoch": cursor.epoch if cursor.index else cursor.epoch - 1,
        "next_epoch": cursor.epoch,
        "step": run.steps,
        "cursor": asdict(cursor),
        "epoch_loss": last and last.epoch_loss,
        "monitor_name": run.monitor.name,
        "monitor_mode": run.monitor.mode,
        "monitor_value": last and last.monitor_value,
        "improved": bool(last and last.improved and not cursor.index),
        **asdict(run.standing),
        "completed": run.completed,
        "hooks": run.hooks.state(),
        "validate": run.validate,
        "rows": [asdict(row) for row in run.rows],
        "losses": None if run.losses is None else mx.array(run.losses, mx.float32),
        "totals": totals,
        "run": run.name,
        "branch": run.branch,
        "data": repr(run.plan.train),
        "optimizer": run.trainer.optimizer.name,
        "rates": run.rates,
        "versions": environment(),
        "user": user,
    }


def restore(run: Run, checkpoint: Any) -> Cursor:
    """Put a run where a checkpoint left it, and return where the data go on. CheckpointError for one of another run."""
    told = checkpoint.metadata
    if "cursor" not in told or checkpoint.opt_state is None:
        raise CheckpointError(
            f"{checkpoint.path} holds parameters, and nothing of a run to go on with: give them as params="
        )
    _same_monitor(run, checkpoint)
    _same_place(run, checkpoint)
    run.hold(
        _like("parameters", run.params, checkpoint.params, checkpoint.path),
        _like("optimiser state", run.opt_state, checkpoint.opt_state, checkpoint.path),
    )
    run.steps, run.completed = told["step"], told["completed"]
    run.standing = Standing(told["best_value"], told["best_epoch"], told["stale_epochs"])
    run.rows = [Row(**{field.name: row[field.name] for field in fields(Row)}) for row in told["rows"]]
    if run.losses is not None and told["losses"] is not None:
        run.losses[:] = told["losses"].tolist()
    run.hooks.restore(told["hooks"])
    run.name, run.branch = told["run"], told["branch"]
    run.validate = told["validate"]
    run.resumed_totals = told["totals"]
    return Cursor(**told["cursor"])


def _same_monitor(run: Run, checkpoint: Any) -> None:
    one = run.monitor.name, run.monitor.mode
    other = checkpoint.metadata["monitor_name"], checkpoint.metadata["monitor_mode"]
    if one != other:
        raise CheckpointError(f"{checkpoint.path} watches {other[0]} ({other[1]}), and this run {one[0]} ({one[1]})")


def _same_place(run: Run, checkpoint: Any) -> None:
    """Warn once where what computes is not what computed before: the run goes on, but not to the same bits."""
    told = checkpoint.metadata
    optimizer = run.trainer.optimizer.name
    here = {**environment(), "the data": repr(run.plan.train), "the hooks": ", ".join(run.hooks.state())}
    there = {**told["versions"], "the data": told["data"], "the hooks": ", ".join(told["hooks"])}
    here, there = {**here, "the optimiser": optimizer}, {**there, "the optimiser": told["optimizer"]}
    other = [f"{name} was {there.get(name)}, is {now}" for name, now in here.items() if there.get(name) != now]
    other += _other_rates(run.rates, told["rates"])
    if other:
        _LOG.warning("%s was written by another run, and goes on inexactly: %s", checkpoint.path, "; ".join(other))


def _other_rates(here: dict[str, float], there: dict[str, float]) -> list[str]:
    """Tell of learning rates that the code starts with and the file did not: those of the file hold."""
    return [
        f"{path} started at {there[path]:g}, the code says {rate:g}, and the rate in the file holds"
        for path, rate in here.items()
        if path in there and there[path] != rate
    ]


def _like(what: str, own: Any, held: Any, path: Any) -> Any:
    """Return the tree of a file in the containers of the run's own; the paths, shapes and dtypes must be the same."""
    mine = flat(own)
    theirs = flat(held)
    told = {name: f"{leaf.dtype} {tuple(leaf.shape)}" for name, leaf in mine.items()}
    came = {name: f"{leaf.dtype} {tuple(leaf.shape)}" for name, leaf in theirs.items()}
    odd = [name for name in told | came if told.get(name) != came.get(name)]
    if odd:
        each = [f"{name}: here {told.get(name, 'none')}, there {came.get(name, 'none')}" for name in odd]
        more = f"; and {len(each) - 8} more" if len(each) > 8 else ""
        raise CheckpointError(f"{path} holds other {what} than this run: {'; '.join(each[:8])}{more}")
    return as_arrays(restore_like(own, theirs))
