"""A trainer: model, task, optimiser and hooks as one frozen record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core._registry import Registry
from ..nn._layer import Layer
from ..nn._lift import as_layer
from ..optim import Optimizer, adamw
from ..optim._optimizer import checked
from ..task._folds import Metric
from ..task._folds import checked as checked_metrics
from ..task._task import Task, as_task
from ._hook import Hook, hook
from ._monitor import Monitor
from ._report import Row

if TYPE_CHECKING:
    from ..checkpointing._policy import Policy

__all__ = [
    "Trainer",
    "Verb",
    "monitor",
    "on",
    "trainer",
    "with_hooks",
    "with_metrics",
    "with_named",
    "with_optimizer",
]

Verb = Callable[["Trainer"], "Trainer"]
"""What changes a trainer: it returns another."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What to train, for what, how, and who listens; the verbs of this module return changed copies."""

    model: Layer
    task: Task
    optimizer: Optimizer
    hooks: tuple[Hook, ...] = ()
    monitor: Monitor | None = None
    """What to watch; None is what the task says."""
    policy: Policy | None = None
    """Which checkpoints are written."""


def trainer(model: Any, task: Any, *, optimizer: Optimizer | None = None) -> Trainer:
    """Put a model and a task, or a loss, together; the optimiser is `adamw(1e-3)` unless another is given.

    >>> from mlx_fp import classification, nn
    >>> trainer(nn.linear(4, 2), classification()).optimizer
    adamw
    """
    made = Trainer(as_layer(model, "a trainer's model"), as_task(task), adamw(1e-3))
    return made if optimizer is None else with_optimizer(optimizer)(made)


def with_optimizer(optimizer: Optimizer) -> Verb:
    """Train with another optimiser."""
    given = checked(optimizer, "a trainer")
    return lambda target: replace(target, optimizer=given)


def with_hooks(*hooks: Hook) -> Verb:
    """Add hooks after those that are there."""
    odd = [h for h in hooks if not isinstance(h, Hook)]
    if odd:
        raise TypeError(f"with_hooks takes hooks, made by `fold` or `hook`; got {odd[0]!r}")
    return lambda target: replace(target, hooks=(*target.hooks, *hooks))


def on(event: str, fn: Callable[[Any], Any], **schedule: Any) -> Verb:
    """Call `fn(event)` whenever something happens in a run; it may return `Stop(reason)` or `Replace(…)`.

    `schedule` holds `priority`, `every`, `once` and `when`, as for `fold`. ValueError, with candidates, for an event
    that there is not.

    >>> from mlx_fp import classification, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), on("after_epoch", print)).hooks
    (on('after_epoch', print),)
    """
    return with_hooks(hook(event, fn, **schedule))


def with_metrics(*metrics: Metric) -> Verb:
    """Compute more metrics, in training and validation. ValueError for two of one name.

    >>> from mlx_fp import classification, metrics, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_metrics(metrics.top_k(2))).task
    classification(accuracy, top_2)
    """
    given = checked_metrics(metrics)

    def added(target: Trainer) -> Trainer:
        return replace(target, task=replace(target.task, metrics=checked_metrics((*target.task.metrics, *given))))

    return added


def monitor(
    name: str, *, mode: str | None = None, min_delta: float = 0.0, metric: Callable[[Row], float] | None = None
) -> Verb:
    """Watch a figure of each epoch's row, `val_loss` say, or what a function of the row, `metric`, makes of it.

    The best epoch is the one with the least, or with `mode="max"` the most of it; without `mode` it is as the metric of
    that name says, `"min"` where there is none. One that is better by no more than `min_delta` is not better, and NaN
    never is. Early stopping, plateaus and checkpoints go by it. ValueError, with candidates, for another mode, and when
    the run starts for a figure that there is not.

    >>> from mlx_fp import classification, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), monitor("val_accuracy", mode="max")).monitor.mode
    'max'
    """
    given = Monitor(name, mode, min_delta, metric)
    return lambda target: replace(target, monitor=given)


def with_named(registry: Registry, name: str, **options: Any) -> Verb:
    """Do what a registry has under a name: a preset, `trainer -> trainer`, or with options a pack, which makes one.

    >>> from mlx_fp import classification, nn, optim
    >>> presets = Registry("preset").add("slow", with_optimizer(optim.sgd(1e-4)))
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_named(presets, "slow")).optimizer
    sgd
    """
    verb = registry[name](**options) if options else registry[name]

    def applied(target: Trainer) -> Trainer:
        made = verb(target)
        if not isinstance(made, Trainer):
            raise TypeError(f"the {registry.kind} {name!r} gave no trainer but {made!r}: does it take options?")
        return made

    return applied
