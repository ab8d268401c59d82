"""The record of a trainer: model, task, optimiser and hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..checkpointing._policy import Policy
from ..compile import rng
from ..core._frozen import freeze_field
from ..core._html import html_table
from ..core._pickling import Picklable
from ..core._signature import name_of
from ..core._types import Batch, Params
from ..data import collate, source
from ..nn._layer import Layer, shapes
from ..nn._observing import Call, observed_calls
from ..optim import Optimizer
from ..step._bound_model import BoundModel, call_loss
from ..step._protocol import Step
from ..task._task import Task
from ..tree._conversion import as_arrays
from ..tree._paths import flat
from ._hook import Hook, RunHooks
from ._monitor import Monitor

__all__ = ["Trainer", "checked_trainer", "frozen_paths"]

_SHOWN_PATHS = 6
"""The number of frozen paths that the repr of a trainer lists."""


@dataclass(frozen=True, slots=True, repr=False)
class Trainer(Picklable):
    """A model with its task, optimiser, hooks and options. Verbs such as `monitor` return changed copies of it."""

    model: Layer
    task: Task
    optimizer: Optimizer
    hooks: tuple[Hook | RunHooks, ...] = ()
    monitor: Monitor | None = None
    """The figure to watch. None: the figure that the task names."""
    policy: Policy | None = None
    """When and where checkpoints are written. None: no checkpoints."""
    step: Callable[..., Step] | None = None
    """The function that makes the training step from `(model, loss, optimizer, metrics=…)`. None: `train_step`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `fit` and `events`. Options of the call take precedence."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """The settings of the experiment as plain values by path, for the report; none without an experiment."""

    def __post_init__(self) -> None:
        freeze_field(self, "options", "settings")

    def observed(self, params: Params, batch: Batch) -> list[Call]:
        """Return the calls of the parts of the model when the loss takes a batch. Nothing is computed.

        Args:
            params: The parameters of the model.
            batch: A batch as the data give it, before the collate of the task.
        """
        task, data = self.task, source([batch])
        (collated,) = data if task.collate is None else collate(task.collate)(data)
        forward = BoundModel(self.model, params, False, None)
        return observed_calls(lambda: rng.run(0, lambda: call_loss(task.loss, forward, as_arrays(collated))))

    def __repr__(self) -> str:
        lines = {name: text.replace("\n", "\n  ") for name, text in self._described().items()}
        return "\n".join(["trainer", *(f"  {name}: {text}" for name, text in lines.items())])

    def _repr_html_(self) -> str:
        """Return the same as HTML, for a notebook."""
        return html_table([["trainer", ""], *self._described().items()], left=2)

    def _described(self) -> dict[str, str]:
        """Return the text of each field that is shown."""
        lines = {
            "model": repr(self.model),
            "task": repr(self.task),
            "optimizer": repr(self.optimizer),
            "frozen": _shown_paths(frozen_paths(self.model)),
            "hooks": ", ".join(map(repr, self.hooks)),
            "monitor": self.monitor and self.monitor.name,
            "checkpoints": self.policy and str(self.policy.path if isinstance(self.policy.path, str) else "a function"),
            "step": self.step and name_of(self.step),
            "options": ", ".join(self.options),
        }
        always = {"frozen", "hooks"}
        return {name: text or "none" for name, text in lines.items() if text or name in always}


def checked_trainer(target: object, taker: str) -> Trainer:
    """Return a trainer unchanged. Raise TypeError with the remedy for anything else."""
    if not isinstance(target, Trainer):
        hint = ": fp.trainer(model, task) makes one from a model"
        model_like = isinstance(target, Layer) or callable(target)
        raise TypeError(f"{taker} takes a trainer; got {type(target).__name__}{hint if model_like else ''}")
    return target


def frozen_paths(model: Layer) -> list[str]:
    """List the paths of the weights that do not train. Buffers are not listed: they never train, but they change.

    Nothing is computed: the arrays of the paths stay lazy.

    >>> from mlx_fp import nn
    >>> frozen_paths(pipe(nn.sequential(encoder=nn.linear(2, 2), head=nn.linear(2, 2)), nn.freeze("encoder")))
    ['encoder.weight', 'encoder.bias']
    """
    params = shapes(model)
    weight, trains = model.trainable.leaves(params), model.trainable(params)
    return [path for path, leaf in flat(params).items() if weight(path, leaf) and not trains(path, leaf)]


def _shown_paths(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN_PATHS} more" if len(paths) > _SHOWN_PATHS else ""
    return ", ".join(paths[:_SHOWN_PATHS]) + more
