"""How the run that goes on differs from the one that wrote the file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..core._errors import CheckpointError
from ..core._mlx import mx
from ..store._checkpoint import Checkpoint
from ..store._environment import environment
from ._hook import hook_keys
from ._monitor import figure_name
from ._state import Loop

__all__ = ["check_monitor", "differences", "plain_seed", "warn_of_options"]

_LOG = logging.getLogger("mlx_fp.loop")


def check_monitor(loop: Loop, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError where the file is of a run that watches another figure."""
    here = figure_name(loop.monitor.name), loop.monitor.mode
    there = figure_name(checkpoint.metadata["monitor_name"]), checkpoint.metadata["monitor_mode"]
    if here != there:
        raise CheckpointError(f"{checkpoint.path} watches {there[0]} ({there[1]}), and this run {here[0]} ({here[1]})")


def differences(loop: Loop, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say where the code is not what it was, so that the run goes on, but not to the same bits."""
    was, keys = checkpoint.metadata, hook_keys(loop.hooks)
    # one without memory that is new may only look on, and has nothing to go on from
    hooks = [key for key, hook in zip(keys, loop.hooks, strict=True) if key in was["hooks"] or hook.init is not None]
    own = {"the data": repr(loop.plan.train), "the hooks": ", ".join(hooks)}
    here = {**environment(), **own, "the optimiser": loop.trainer.optimizer.name}
    there = {
        **was["versions"],
        "the data": was["data"],
        "the hooks": ", ".join(was["hooks"]),
        "the optimiser": was["optimizer"],
    }
    both = {name: (there[name], now) for name, now in here.items() if name in there}  # older files say less
    other = [f"{name} was {before}, is {now}" for name, (before, now) in both.items() if before != now]
    return (*other, *_other_rates(loop.rates, was["rates"]))


def warn_of_options(loop: Loop, checkpoint: Checkpoint) -> None:
    """Warn of options of this run that have no effect, because the file holds."""
    was, plan, told = checkpoint.metadata, loop.plan, list[str]()
    if plan.params is not None and not checkpoint.left_out:
        told.append("params= is given, and the parameters of the file hold")
    if (seed := plain_seed(plan.seed)) != was.get("seed", seed):
        told.append(f"the seed was {was['seed']}, is {seed}, and the random stream of the file holds")
    if plan.keep_losses and not was.get("keep_losses", True):
        told.append("the losses of its steps were not kept, and report.losses begins here")
    if told:
        _LOG.warning("the run goes on from %s: %s", checkpoint.path or "a checkpoint", "; ".join(told))


def plain_seed(seed: Any) -> Any:
    """Return a seed, or the numbers of a key, as JSON has them."""
    return seed.tolist() if isinstance(seed, mx.array) else seed


def _other_rates(here: Mapping[str, float], there: Mapping[str, float]) -> list[str]:
    """Tell of learning rates that the code starts with and the file did not: those of the file hold."""
    return [
        f"{path} started at {there[path]:g}, the code says {rate:g}, and the rate in the file holds"
        for path, rate in here.items()
        if path in there and there[path] != rate
    ]
