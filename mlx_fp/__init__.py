"""Functional pipelines for training models on Apple's MLX.

Models, data, hooks and loops are pure functions and frozen records that compose under `toolz.pipe`; the training step
is one compiled pure function of `(params, opt_state, batch)`. Names are loaded when they are first used, and MLX with
the first of them that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import unknown as _unknown

if TYPE_CHECKING:
    from . import blas as blas
    from . import data as data
    from . import jit as jit
    from . import nn as nn
    from . import optim as optim
    from . import rng as rng
    from . import show as show
    from .loop.event import Event as Event
    from .loop.fit import evaluate as evaluate
    from .loop.fit import events as events
    from .loop.fit import fit as fit
    from .loop.hook import Replace as Replace
    from .loop.hook import Stop as Stop
    from .loop.hook import fold as fold
    from .loop.hook import hook as hook
    from .loop.report import Report as Report
    from .loop.trainer import Trainer as Trainer
    from .loop.trainer import on as on
    from .loop.trainer import trainer as trainer
    from .loop.trainer import with_hooks as with_hooks
    from .loop.trainer import with_optimizer as with_optimizer
    from .metric import Metric as Metric
    from .metric import accuracy as accuracy
    from .nn import freeze as freeze
    from .nn import unfreeze as unfreeze
    from .select import Select as Select
    from .select import everything as everything
    from .select import matching as matching
    from .select import ndim as ndim
    from .select import nothing as nothing
    from .select import select as select
    from .select import under as under
    from .step import EvalStep as EvalStep
    from .step import Step as Step
    from .step import eval_step as eval_step
    from .step import train_step as train_step
    from .task import Task as Task
    from .task import classification as classification
    from .tree import flat as flat
    from .tree import merge as merge
    from .tree import norm as norm
    from .tree import partition as partition
    from .tree import paths as paths
    from .tree import restore_like as restore_like
    from .tree import size as size
    from .tree import swap as swap

_HOMES = {
    "": ("blas", "data", "jit", "nn", "optim", "rng", "show"),
    "loop.event": ("Event",),
    "loop.fit": ("evaluate", "events", "fit"),
    "loop.hook": ("Replace", "Stop", "fold", "hook"),
    "loop.report": ("Report",),
    "loop.trainer": ("Trainer", "on", "trainer", "with_hooks", "with_optimizer"),
    "metric": ("Metric", "accuracy"),
    "nn": ("freeze", "unfreeze"),
    "select": ("Select", "everything", "matching", "ndim", "nothing", "select", "under"),
    "step": ("EvalStep", "Step", "eval_step", "train_step"),
    "task": ("Task", "classification"),
    "tree": ("flat", "merge", "norm", "partition", "paths", "restore_like", "size", "swap"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(_unknown("name in mlx_fp", name, __all__))
    home = _HOME[name]
    found = import_module(f".{home or name}", __name__)
    value = getattr(found, name) if home else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
