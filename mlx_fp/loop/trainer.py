"""A trainer: model, task, optimiser and hooks as one frozen record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..nn.layer import Layer
from ..nn.lift import as_layer
from ..optim import Optimizer, adamw
from ..optim.optimizer import checked
from ..task import Task, as_task
from .hook import Hook, hook

__all__ = ["Trainer", "on", "trainer", "with_hooks", "with_optimizer"]

Verb = Callable[["Trainer"], "Trainer"]


@dataclass(frozen=True, slots=True)
class Trainer:
    """What to train, for what, how, and who listens; the verbs of this module return changed copies."""

    model: Layer
    task: Task
    optimizer: Optimizer
    hooks: tuple[Hook, ...] = ()


def trainer(model: Any, task: Any, *, optimizer: Optimizer | None = None) -> Trainer:
    """Put a model and a task, or a loss, together; the optimiser is `adamw(1e-3)` unless another is given.

    >>> from mlx_fp import nn, task
    >>> trainer(nn.linear(4, 2), task.classification()).optimizer
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

    >>> from mlx_fp import nn, task
    >>> pipe(trainer(nn.linear(4, 2), task.classification()), on("after_epoch", print)).hooks
    (on('after_epoch', print),)
    """
    return with_hooks(hook(event, fn, **schedule))
