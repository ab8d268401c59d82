"""The differences between a resumed run and the run that wrote the checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping

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
    """Raise CheckpointError where the file is of a run with another monitor."""
    here = figure_name(loop.monitor.name), loop.monitor.mode
    there = figure_name(checkpoint.metadata["monitor_name"]), checkpoint.metadata["monitor_mode"]
    if here != there:
        raise CheckpointError(f"{checkpoint.path} watches {there[0]} ({there[1]}), and this run {here[0]} ({here[1]})")


def differences(loop: Loop, checkpoint: Checkpoint) -> tuple[str, ...]:
    """List the differences of the code from the file. With any, the run continues, but not to the same bits."""
    metadata, keys = checkpoint.metadata, hook_keys(loop.hooks)
    # a new hook without a memory has no state that the file could lack, and perhaps only reads events
    hooks = [
        key for key, hook in zip(keys, loop.hooks, strict=True) if key in metadata["hooks"] or hook.init is not None
    ]
    here = {
        **environment(),
        "the data": repr(loop.plan.train),
        "the hooks": ", ".join(hooks if hooks == list(metadata["hooks"]) else keys),
        "the optimiser": loop.trainer.optimizer.name,
    }
    there = {
        **metadata["versions"],
        "the data": metadata["data"],
        "the hooks": ", ".join(metadata["hooks"]),
        "the optimiser": metadata["optimizer"],
    }
    both = {
        name: (there[name], now) for name, now in here.items() if name in there
    }  # files of older versions have fewer names
    changes = [
        f"{name} was {before or 'none'}, is {now or 'none'}" for name, (before, now) in both.items() if before != now
    ]
    return (*changes, *_changed_rates(loop.rates, metadata["rates"]))


def warn_of_options(loop: Loop, checkpoint: Checkpoint) -> None:
    """Warn of options of this run without effect, because the values of the file take precedence."""
    metadata, plan, messages = checkpoint.metadata, loop.plan, list[str]()
    if plan.params is not None and not checkpoint.left_out:
        messages.append("params= is given, and the parameters of the file hold")
    if (seed := plain_seed(plan.seed)) != metadata.get("seed", seed):
        messages.append(f"the seed was {metadata['seed']}, is {seed}, and the random stream of the file holds")
    if plan.keep_losses and not metadata.get("keep_losses", True):
        messages.append("the losses of its steps were not kept, and report.losses begins here")
    if messages:
        _LOG.warning("the run goes on from %s: %s", checkpoint.path or "a checkpoint", "; ".join(messages))


def plain_seed(seed: object) -> object:
    """Return a seed, or the numbers of a key, as plain values."""
    return seed.tolist() if isinstance(seed, mx.array) else seed


def _changed_rates(here: Mapping[str, float], there: Mapping[str, float]) -> list[str]:
    """List the initial learning rates that differ from the file. The present rates of the file take precedence."""
    return [
        f"{path} started at {there[path]:g}, the code says {rate:g}, and the rate in the file holds"
        for path, rate in here.items()
        if path in there and there[path] != rate
    ]
