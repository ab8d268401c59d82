"""The verbs of trainers that say which figure is watched, and when checkpoints are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..checkpointing._policy import Policy, as_template
from ._monitor import Monitor
from ._verb import TrainerVerb, as_verb

__all__ = ["checkpoints", "monitor"]


def monitor(
    name: str, *, mode: str | None = None, min_delta: float = 0.0, metric: Callable[..., float] | None = None
) -> TrainerVerb:
    """Choose the figure that early stopping, plateaus and best checkpoints go by.

    Each validation is judged. A figure of training is judged at the end of each epoch. A value improves when it is
    better than the best value by more than `min_delta`. A value that is not finite never improves.

    Args:
        name: A figure of a row, for example `"val_loss"`, `"loss"` or `"val_accuracy"`; with `metric`, any name.
        mode: `"min"` or `"max"`. None: the mode of the metric of that name; `"min"` for a loss and for a function. A
            figure that the loss reports needs a mode.
        min_delta: The least improvement that counts, 0 or more, in the unit of the figure.
        metric: A function that returns the value to watch, given the row and, if it has a parameter `losses`, the list
            of the losses of the epoch's steps so far, for example `lambda row, losses: max(losses)`. The losses need
            `keep_losses=True`, the default.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        ValueError: The mode is unknown, or, when the run starts, no row will have this figure. The error names the
            nearest one.
        TypeError: `metric` is no function.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), monitor("val_accuracy", mode="max")).monitor.mode
    'max'
    """
    chosen = Monitor(name, mode, min_delta, metric)
    options = {"mode": mode, "min_delta": min_delta, "metric": metric}
    return as_verb(monitor, lambda target: replace(target, monitor=chosen), name, **options)


def checkpoints(
    path: str | os.PathLike[str] | Callable[..., object],
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
    user: Mapping[str, object] | None = None,
) -> TrainerVerb:
    """Write checkpoints after epochs, after steps, or after each best evaluation.

    A checkpoint is written after all hooks, whatever their priority.

    Args:
        path: A template with the fields `epoch next_epoch step monitor monitor_name epoch_loss improved` and format
            specs, for example `"runs/a/ep-{epoch:03}.safetensors"`; or a function whose parameters have such names.
        best: Whether to write each best evaluation too.
        every: Epochs between two checkpoints. None: none after an epoch.
        every_steps: Steps between two checkpoints. None: none within an epoch.
        keep_last: The number of newest files that stay. The `keep_best` best ones by the monitor stay too, and the file
            that the run was resumed from. None: all files stay.
        keep_best: The number of best files that stay with `keep_last`.
        background: Whether a thread writes, one file at a time, while training goes on. A failure is raised at the next
            step, and `fit` returns when the last file is on disk.
        trainable_only: Whether to leave frozen weights out of the files. A resumed run takes them from `params=`, or
            from the model's `init` where the seed gives the same weights.
        latest: Whether `latest.safetensors`, or `latest.npz`, in the folder of the files holds the newest checkpoint.
        bundle: Whether to write the run bundle, `bundle.json`, in that folder at the end of a run, before the
            `after_fit` hooks.
        user: Numbers, texts, None, or lists and dicts of these, for the metadata of each file and for the bundle.

    Returns:
        A function from a trainer to a trainer.

    Raises:
        ValueError: An option is out of range, the path is invalid, or it names one file for several that must stay.
        TypeError: A flag is not True or False, or `user` has another value; the error names the place.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), checkpoints("runs/ep-{epoch}", keep_last=3)).policy.folder
    PosixPath('runs')
    >>> checkpoints("runs/ep-{epohc}")
    Traceback (most recent call last):
    ValueError: unknown field 'epohc': did you mean 'epoch'? known: epoch, next_epoch, step, monitor, ...
    """
    options = {
        "best": best,
        "every": every,
        "every_steps": every_steps,
        "keep_last": keep_last,
        "keep_best": keep_best,
        "background": background,
        "trainable_only": trainable_only,
        "latest": latest,
        "bundle": bundle,
        "user": user,
    }
    policy = Policy(path if callable(path) else as_template(path), **options)  # type: ignore[arg-type]  # checked there
    return as_verb(checkpoints, lambda target: replace(target, policy=policy), path, **options)
