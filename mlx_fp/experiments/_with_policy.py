"""Change the policy for the checkpoints of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..checkpointing._policy import Policy
from ..loop._trainer import Trainer
from ._experiment import Experiment

__all__ = ["with_policy"]


def with_policy(target: Experiment, change: Callable[[Policy], Policy]) -> Experiment:
    """Return an experiment with a changed policy for its checkpoints, where it has one."""

    def verb(trainer: Trainer) -> Trainer:
        return trainer if trainer.policy is None else replace(trainer, policy=change(trainer.policy))

    return replace(target, verbs=(*target.verbs, verb))
