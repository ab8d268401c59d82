"""A trainer: model, task, optimiser and hooks as one frozen record."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..checkpointing._policy import Policy, as_template
from ..core._frozen import freeze_field
from ..core._pickling import Picklable
from ..core._registry import Registry
from ..nn._layer import Layer
from ..nn._lift import as_layer
from ..optim import Optimizer, adamw
from ..optim._optimizer import require_optimizer
from ..step._protocol import Step
from ..task._folds import Metric
from ..task._folds import checked as checked_metrics
from ..task._task import Task, as_task
from ._hook import Hook
from ._monitor import Monitor
from ._plan import checked_options, merged

__all__ = [
    "Trainer",
    "Verb",
    "checked_trainer",
    "checkpoints",
    "monitor",
    "trainer",
    "with_hooks",
    "with_metrics",
    "with_named",
    "with_optimizer",
    "with_options",
    "with_step",
]

Verb = Callable[["Trainer"], "Trainer"]
"""What changes a trainer: it returns another."""


@dataclass(frozen=True, slots=True)
class Trainer(Picklable):
    """What to train, for what, how, and who listens; the verbs of this module return changed copies."""

    model: Layer
    task: Task
    optimizer: Optimizer
    hooks: tuple[Hook, ...] = ()
    monitor: Monitor | None = None
    """What to watch; None is what the task says."""
    policy: Policy | None = None
    """Which checkpoints are written."""
    step: Callable[..., Step] | None = None
    """What makes the training step of `(model, loss, optimizer, metrics=…)`; None is `train_step`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `fit` and `events`, before which those of the call go."""

    def __post_init__(self) -> None:
        freeze_field(self, "options")


def trainer(model: Any, task: Any, *, optimizer: Optimizer | None = None) -> Trainer:
    """Put a model and a task, or a loss, together; the optimiser is `adamw(1e-3)` unless another is given.

    >>> from mlx_fp import classification, nn
    >>> trainer(nn.linear(4, 2), classification()).optimizer
    adamw(learning_rate=0.001)
    """
    chosen = adamw(1e-3) if optimizer is None else require_optimizer(optimizer, "a trainer")
    return Trainer(as_layer(model, "a trainer's model"), as_task(task), chosen)


def checked_trainer(target: Any, taker: str) -> Trainer:
    """Return a trainer as it is; TypeError with the remedy for anything else."""
    if not isinstance(target, Trainer):
        hint = ": fp.trainer(model, task) makes one of a model" if isinstance(target, Layer) or callable(target) else ""
        raise TypeError(f"{taker} takes a trainer; got {type(target).__name__}{hint}")
    return target


def _verb(name: str, change: Verb) -> Verb:
    """Return a verb that takes nothing but a trainer; its name is for the error."""
    return lambda target: change(checked_trainer(target, name))


def with_optimizer(optimizer: Optimizer) -> Verb:
    """Train with another optimiser."""
    given = require_optimizer(optimizer, "a trainer")
    return _verb("with_optimizer", lambda target: replace(target, optimizer=given))


def with_step(make: Callable[..., Step]) -> Verb:
    """Train with another step, such as one with passes of its own, or several steps in one.

    Args:
        make: `make(model, loss, optimizer, *, metrics, **options) -> Step`. `options` are those of `compile`, `dtype`,
            `parts` and `streams` that `fit` is given.

    >>> from functools import partial
    >>> from mlx_fp import nn, passes, train_step
    >>> in_parts = with_step(partial(train_step, through=[passes.in_parts(4)]))
    >>> pipe(trainer(nn.linear(4, 1), lambda model, x: model(x).mean()), in_parts).step is None
    False
    """
    if not callable(make):
        raise TypeError(f"with_step takes a function that makes a step; got {make!r}")
    return _verb("with_step", lambda target: replace(target, step=make))


def with_hooks(*hooks: Hook) -> Verb:
    """Add hooks after those that are there."""
    odd = [h for h in hooks if not isinstance(h, Hook)]
    if odd:
        raise TypeError(f"with_hooks takes hooks, made by `fold` or `hook`; got {odd[0]!r}")
    return _verb("with_hooks", lambda target: replace(target, hooks=(*target.hooks, *hooks)))


def with_metrics(*metrics: Metric) -> Verb:
    """Compute more metrics, in training and validation. ValueError for two of one name.

    >>> from mlx_fp import classification, metrics, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_metrics(metrics.top_k(2))).task
    classification(accuracy, top_2)
    """
    given = checked_metrics(metrics)

    def added(target: Trainer) -> Trainer:
        return replace(target, task=replace(target.task, metrics=checked_metrics((*target.task.metrics, *given))))

    return _verb("with_metrics", added)


def monitor(
    name: str, *, mode: str | None = None, min_delta: float = 0.0, metric: Callable[..., float] | None = None
) -> Verb:
    """Watch a figure of a row, such as `val_loss`, or the value of a function, `metric`.

    The function is given the row, and, where it names `losses`, the list of the losses of the epoch's steps so far, as
    `report.losses` has them: `lambda row, losses: max(losses)`. Those need `keep_losses=True`, the default.

    Each validation is judged; a figure of training is judged at the end of each epoch.

    The best evaluation is the one with the least, or with `mode="max"` the most of it; without `mode` it is as the
    metric of that name says, `"min"` for a loss and for a function. A figure that the loss reports needs a mode.
    One that is better by no more than `min_delta` is not better, and one that is not finite never is. Early stopping,
    plateaus and checkpoints go by it. ValueError, with candidates, for another mode, and when the run starts for a
    figure that there is not.

    >>> from mlx_fp import classification, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), monitor("val_accuracy", mode="max")).monitor.mode
    'max'
    """
    given = Monitor(name, mode, min_delta, metric)
    return _verb("monitor", lambda target: replace(target, monitor=given))


def checkpoints(
    path: str | os.PathLike[str] | Callable[..., Any],
    *,
    best: bool = False,
    every: int | None = 1,
    every_steps: int | None = None,
    keep_last: int | None = None,
    keep_best: int = 1,
    background: bool = False,
    trainable_only: bool = False,
    latest: bool = False,
    bundle: bool = False,
    user: Mapping[str, Any] | None = None,
) -> Verb:
    """Write checkpoints: after every `every`-th epoch, every `every_steps` steps, and with `best` each best evaluation.

    A checkpoint is written after all hooks, whatever their priority.

    Args:
        path: a template of `epoch next_epoch step monitor monitor_name epoch_loss improved` with format specs, as
            `"runs/a/ep-{epoch:03}.safetensors"`, or a function of what it names of those.
        keep_last: without it all files stay; with it the last so many, the `keep_best` best ones by the monitor, and
            the one that the run was resumed from.
        background: a thread writes, one at a time, while training goes on; a failure comes out at the next step, and
            `fit` returns when the last is on disk.
        trainable_only: leave frozen weights out of the files. A run that goes on takes them from `params=`, or from the
            model's `init` where the seed gives the same.
        latest: `latest.safetensors`, or `.npz`, in the folder of the files always holds the newest checkpoint.
        bundle: `bundle.json` in that folder is the run bundle, written at the end of a run, before `after_fit` hooks.
        user: numbers, texts, None, or lists and dicts of these, for the metadata of each file and for the bundle.

    Raises:
        ValueError: bad options, a path that could not be made, or one for checkpoints that are all to be kept.
        TypeError: a flag is not True or False, or `user` has another value; the error names the place.

    >>> from mlx_fp import classification, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), checkpoints("runs/ep-{epoch}", keep_last=3)).policy.folder
    PosixPath('runs')
    >>> checkpoints("runs/ep-{epohc}")
    Traceback (most recent call last):
    ValueError: unknown field 'epohc': did you mean 'epoch'? known: epoch, next_epoch, step, monitor, ...
    """
    template = path if callable(path) else as_template(path)
    ways = (best, every, every_steps, keep_last, keep_best, background, trainable_only, latest, bundle, user)
    policy = Policy(template, *ways)
    return _verb("checkpoints", lambda target: replace(target, policy=policy))


def with_options(**options: Any) -> Verb:
    """Give a trainer options of `fit` and `events`, for presets: those of the call go before them, and later ones too.

    >>> from mlx_fp import fit, nn
    >>> slow = with_options(epochs=3, accumulate=2)
    >>> target = pipe(trainer(nn.linear(4, 1), lambda model, x: model(x).mean()), slow)
    >>> fit([mx.ones((2, 4))], quiet=True)(target).epochs_completed
    3
    """
    checked_options(options)  # an error now and not when the run starts
    return _verb("with_options", lambda target: replace(target, options=merged(target.options, options)))


def with_named(registry: Registry, name: str, **options: Any) -> Verb:
    """Do what a registry has under a name: a preset, `trainer -> trainer`, or with options a pack, which makes one.

    >>> from mlx_fp import classification, nn, optim
    >>> presets = Registry("preset").add("slow", with_optimizer(optim.sgd(1e-4)))
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_named(presets, "slow")).optimizer
    sgd(learning_rate=0.0001)
    """
    verb = registry[name](**options) if options else registry[name]

    def applied(target: Trainer) -> Trainer:
        made = verb(checked_trainer(target, "with_named"))
        if not isinstance(made, Trainer):
            raise TypeError(f"the {registry.kind} {name!r} gave no trainer but {made!r}: does it take options?")
        return made

    return applied
