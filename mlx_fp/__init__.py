"""Functional pipelines for training models on Apple's MLX.

Models, data, hooks and loops are pure functions and frozen records that compose under `toolz.pipe`; the training step
is one compiled pure function of `(params, opt_state, batch)`. Names are loaded when they are first used, and MLX with
the first of them that needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import unknown as _unknown

if TYPE_CHECKING:
    from . import blas as blas
    from . import data as data
    from . import jit as jit
    from . import metrics as metrics
    from . import nn as nn
    from . import optim as optim
    from . import rng as rng
    from . import show as show
    from . import testing as testing
    from .cores import one_core as one_core
    from .evaluation import EvalStep as EvalStep
    from .evaluation import eval_step as eval_step
    from .experiment import Experiment as Experiment
    from .experiment import experiment as experiment
    from .experiment import override as override
    from .experiment import run as run
    from .experiment import settings as settings
    from .loop.event import Event as Event
    from .loop.fit import evaluate as evaluate
    from .loop.fit import events as events
    from .loop.fit import fit as fit
    from .loop.hook import Replace as Replace
    from .loop.hook import Save as Save
    from .loop.hook import Stop as Stop
    from .loop.hook import Validate as Validate
    from .loop.hook import fold as fold
    from .loop.hook import hook as hook
    from .loop.monitor import Monitor as Monitor
    from .loop.plateau import plateau as plateau
    from .loop.policy import checkpoints as checkpoints
    from .loop.report import Report as Report
    from .loop.stopping import early_stop as early_stop
    from .loop.stopping import stop_on_divergence as stop_on_divergence
    from .loop.trainer import Trainer as Trainer
    from .loop.trainer import monitor as monitor
    from .loop.trainer import on as on
    from .loop.trainer import trainer as trainer
    from .loop.trainer import with_hooks as with_hooks
    from .loop.trainer import with_metrics as with_metrics
    from .loop.trainer import with_named as with_named
    from .loop.trainer import with_optimizer as with_optimizer
    from .metric import Metric as Metric
    from .metrics import accuracy as accuracy
    from .nn import freeze as freeze
    from .nn import unfreeze as unfreeze
    from .registry import Registry as Registry
    from .select import Select as Select
    from .select import everything as everything
    from .select import matching as matching
    from .select import ndim as ndim
    from .select import nothing as nothing
    from .select import select as select
    from .select import under as under
    from .step import Step as Step
    from .step import train_step as train_step
    from .store.bundle import bundle as bundle
    from .store.bundle import read_bundle as read_bundle
    from .store.bundle import save_bundle as save_bundle
    from .store.checkpoint import Checkpoint as Checkpoint
    from .store.checkpoint import load as load
    from .store.checkpoint import save as save
    from .sweep import Sweep as Sweep
    from .sweep import sweep as sweep
    from .task import Task as Task
    from .task import classification as classification
    from .task import language_modeling as language_modeling
    from .task import regression as regression
    from .tree import flat as flat
    from .tree import merge as merge
    from .tree import norm as norm
    from .tree import partition as partition
    from .tree import paths as paths
    from .tree import restore_like as restore_like
    from .tree import size as size
    from .tree import swap as swap

_HOMES = {
    "": ("blas", "data", "jit", "metrics", "nn", "optim", "rng", "show", "testing"),
    "cores": ("one_core",),
    "evaluation": ("EvalStep", "eval_step"),
    "experiment": ("Experiment", "experiment", "override", "run", "settings"),
    "sweep": ("Sweep", "sweep"),
    "store.bundle": ("bundle", "read_bundle", "save_bundle"),
    "store.checkpoint": ("Checkpoint", "load", "save"),
    "loop.event": ("Event",),
    "loop.fit": ("evaluate", "events", "fit"),
    "loop.hook": ("Replace", "Save", "Stop", "Validate", "fold", "hook"),
    "loop.monitor": ("Monitor",),
    "loop.plateau": ("plateau",),
    "loop.policy": ("checkpoints",),
    "loop.report": ("Report",),
    "loop.stopping": ("early_stop", "stop_on_divergence"),
    "loop.trainer": (
        "Trainer",
        "monitor",
        "on",
        "trainer",
        "with_hooks",
        "with_metrics",
        "with_named",
        "with_optimizer",
    ),
    "metric": ("Metric",),
    "metrics": ("accuracy",),
    "nn": ("freeze", "unfreeze"),
    "registry": ("Registry",),
    "select": ("Select", "everything", "matching", "ndim", "nothing", "select", "under"),
    "step": ("Step", "train_step"),
    "task": ("Task", "classification", "language_modeling", "regression"),
    "tree": ("flat", "merge", "norm", "partition", "paths", "restore_like", "size", "swap"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        # the import of a submodule asks for it here first, and needs no advice
        module = find_spec(f"{__name__}.{name}")
        raise AttributeError(name if module else _unknown("name in mlx_fp", name, __all__))
    home = _HOME[name]
    found = import_module(f".{home or name}", __name__)
    value = getattr(found, name) if home else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Face(ModuleType):
    """A module whose public names stay what they are when a submodule of the same name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and _HOME.get(name)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
