"""Trainers and their verbs: each verb returns a changed copy of a trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

from ..core._registry import Registry
from ..nn._layer import Layer
from ..nn._lift import as_layer
from ..optim import Optimizer, adamw
from ..optim._optimizer import require_optimizer
from ..step._protocol import Step
from ..task._folds import Metric
from ..task._folds import checked as checked_metrics
from ..task._task import Task, as_task
from ._hook import Hook, RunHooks
from ._options import Options
from ._plan import checked_options, merge_options
from ._trainer_record import Trainer, checked_trainer
from ._verb import TrainerVerb, as_verb

__all__ = [
    "Trainer",
    "Verb",
    "checked_trainer",
    "trainer",
    "with_hooks",
    "with_metrics",
    "with_named",
    "with_optimizer",
    "with_options",
    "with_step",
]

Verb = Callable[[Trainer], Trainer]
"""A function from a trainer to a trainer, for example a `TrainerVerb`, or a preset of the user."""


def trainer(
    model: Layer | Callable[..., object], task: Task | Callable[..., object], *, optimizer: Optimizer | None = None
) -> Trainer:
    """Make a trainer of a model and a task.

    Args:
        model: A Layer, an mlx.nn module, or a function without parameters.
        task: A task, for example `classification()`, or a loss: `loss(model, *batch)` returns a scalar or a `Mean`.
        optimizer: The optimiser. None: `adamw(1e-3)`.

    Raises:
        TypeError: The model, the task or the optimiser is something else.

    >>> from mlx_fp import classification, nn
    >>> trainer(nn.linear(4, 2), classification())
    trainer
      model: Linear(input_dims=4, output_dims=2)
      task: classification(accuracy)
      optimizer: adamw(learning_rate=0.001)
      frozen: none
      hooks: none
    """
    chosen = adamw(1e-3) if optimizer is None else require_optimizer(optimizer, "a trainer")
    return Trainer(as_layer(model, "a trainer's model"), as_task(task), chosen)


def with_optimizer(optimizer: Optimizer) -> TrainerVerb:
    """Train with another optimiser.

    Args:
        optimizer: The optimiser, for example `adamw(1e-3)`, with its wrappers.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        TypeError: It is no Optimizer.

    >>> from mlx_fp import classification, nn, optim
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_optimizer(optim.sgd(0.1))).optimizer.name
    'sgd'
    """
    chosen = require_optimizer(optimizer, "a trainer")
    return as_verb(with_optimizer, lambda target: replace(target, optimizer=chosen), optimizer)


def with_step(make: Callable[..., Step]) -> TrainerVerb:
    """Train with another step, for example one with its own passes, or one that takes several steps in one.

    Args:
        make: `make(model, loss, optimizer, *, metrics, **options) -> Step`. `options` are those of `compile`, `dtype`,
            `parts`, `streams` and `update` that differ from their defaults in `fit`.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        TypeError: `make` is no function.

    >>> from functools import partial
    >>> from mlx_fp import nn, passes, train_step
    >>> in_parts = with_step(partial(train_step, through=[passes.in_parts(4)]))
    >>> pipe(trainer(nn.linear(4, 1), lambda model, x: model(x).mean()), in_parts).step is None
    False
    """
    if not callable(make):
        raise TypeError(f"with_step takes a function that makes a step; got {make!r}")
    return as_verb(with_step, lambda target: replace(target, step=make), make)


def with_hooks(*hooks: Hook | RunHooks) -> TrainerVerb:
    """Add hooks after the present ones.

    Args:
        hooks: Hooks that `fold` or `hook` has made.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        TypeError: One of them is no Hook.

    >>> from mlx_fp import classification, hook, nn
    >>> with_hooks(hook("after_epoch", print))
    with_hooks(on('after_epoch', print))
    """
    wrong = [each for each in hooks if not isinstance(each, (Hook, RunHooks))]
    if wrong:
        raise TypeError(f"with_hooks takes hooks, made by `fold` or `hook`; got {wrong[0]!r}")
    return as_verb(with_hooks, lambda target: replace(target, hooks=(*target.hooks, *hooks)), *hooks)


def with_metrics(*metrics: Metric) -> TrainerVerb:
    """Compute more metrics, in training and in validation.

    Args:
        metrics: Metrics, for example `metrics.f1(10)`.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        TypeError: One of them is no Metric.
        ValueError: Two metrics of the trainer have one name.

    >>> from mlx_fp import classification, metrics, nn
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_metrics(metrics.top_k(2))).task
    classification(accuracy, top_2)
    """
    added = checked_metrics(metrics)

    def change(target: Trainer) -> Trainer:
        return replace(target, task=replace(target.task, metrics=checked_metrics((*target.task.metrics, *added))))

    return as_verb(with_metrics, change, *metrics)


def with_options(**options: Unpack[Options]) -> TrainerVerb:
    """Give a trainer options of `fit` and `events`. Options of the call, and later ones, take precedence.

    Args:
        options: Options of `fit`, for example `steps=5_000, accumulate=4`; `help(fp.fit)` lists them.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        TypeError: For an unknown option or a value of a wrong type, with candidates.
        ValueError: For a value out of range.

    >>> from mlx_fp import fit, nn
    >>> slow = with_options(epochs=3, accumulate=2)
    >>> slow
    with_options(epochs=3, accumulate=2)
    >>> target = pipe(trainer(nn.linear(4, 1), lambda model, x: model(x).mean()), slow)
    >>> fit([mx.ones((2, 4))], quiet=True)(target).epochs_completed
    3
    """
    checked_options(options)  # an error now and not when the run starts
    return as_verb(
        with_options, lambda target: replace(target, options=merge_options(target.options, options)), **options
    )


def with_named(registry: Registry, name: str, **options: object) -> TrainerVerb:
    """Apply a preset or a pack of a registry.

    Args:
        registry: The registry. A preset is a function from a trainer to a trainer. A pack is a function of options that
            returns a preset.
        name: The name of the entry.
        options: The options of a pack. Without options the entry is taken as a preset.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        KeyError: There is no such entry; the error names the nearest one.
        TypeError: The entry returns no trainer.

    >>> from mlx_fp import classification, nn, optim
    >>> presets = Registry("preset").add("slow", with_optimizer(optim.sgd(1e-4)))
    >>> pipe(trainer(nn.linear(4, 2), classification()), with_named(presets, "slow")).optimizer.name
    'sgd'
    """
    preset = registry[name](**options) if options else registry[name]

    def change(target: Trainer) -> Trainer:
        changed = preset(target)
        if not isinstance(changed, Trainer):
            raise TypeError(f"the {registry.kind} {name!r} gave no trainer but {changed!r}: does it take options?")
        return changed

    return as_verb(with_named, change, registry, name, **options)
