"""Functional pipelines for training models on Apple's MLX.

Models, data, hooks and loops are pure functions and frozen records, and you chain them with `pipe`. The training step
is one compiled pure function of `(params, opt_state, batch)`. A name is loaded at its first use, and MLX is loaded with
the first name that needs it. For example, `fp.under` does not load MLX, and `fp.fit` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core._late import late as _late

if TYPE_CHECKING:
    from . import cpu as cpu
    from . import data as data
    from . import lm as lm
    from . import nn as nn
    from . import optim as optim
    from . import show as show
    from . import testing as testing
    from .across._world import World as World
    from .across._world import world as world
    from .compile import rng as rng
    from .core._memory_limits import memory_limits as memory_limits
    from .core._pipe import pipe as pipe
    from .core._registry import Registry as Registry
    from .experiments._cases import choices as choices
    from .experiments._cases import log_uniform as log_uniform
    from .experiments._cases import uniform as uniform
    from .experiments._ensemble import ensemble as ensemble
    from .experiments._experiment import Experiment as Experiment
    from .experiments._experiment import experiment as experiment
    from .experiments._experiment import override as override
    from .experiments._experiment import settings as settings
    from .experiments._k_fold import k_fold as k_fold
    from .experiments._run import run as run
    from .experiments._sweep import Sweep as Sweep
    from .experiments._sweep import sweep as sweep
    from .exporting._export import export as export
    from .exporting._imported import imported as imported
    from .exporting._onnx import to_onnx as to_onnx
    from .exporting._profile import profile as profile
    from .loop._batch_size import fit_batch_size as fit_batch_size
    from .loop._directive import Replace as Replace
    from .loop._directive import Save as Save
    from .loop._directive import Stop as Stop
    from .loop._directive import Validate as Validate
    from .loop._emitting import emit as emit
    from .loop._event import Event as Event
    from .loop._event_table import event as event
    from .loop._fit import evaluate as evaluate
    from .loop._fit import events as events
    from .loop._fit import fit as fit
    from .loop._hook import fold as fold
    from .loop._hook import hook as hook
    from .loop._hook import hook_states as hook_states
    from .loop._memory import memory as memory
    from .loop._monitor import Monitor as Monitor
    from .loop._on import on as on
    from .loop._plateau import plateau as plateau
    from .loop._predict import predict as predict
    from .loop._report import Report as Report
    from .loop._stopping import early_stop as early_stop
    from .loop._stopping import stop_on_divergence as stop_on_divergence
    from .loop._trainer import Trainer as Trainer
    from .loop._trainer import trainer as trainer
    from .loop._trainer import with_hooks as with_hooks
    from .loop._trainer import with_metrics as with_metrics
    from .loop._trainer import with_named as with_named
    from .loop._trainer import with_optimizer as with_optimizer
    from .loop._trainer import with_options as with_options
    from .loop._trainer import with_step as with_step
    from .loop._watching import checkpoints as checkpoints
    from .loop._watching import monitor as monitor
    from .nn import freeze as freeze
    from .nn import summary as summary
    from .nn import unfreeze as unfreeze
    from .nn._intermediates import intermediates as intermediates
    from .step import passes as passes
    from .step._dtypes import dtypes as dtypes
    from .step._evaluate import EvalStep as EvalStep
    from .step._evaluate import eval_step as eval_step
    from .step._find_nonfinite import find_nonfinite as find_nonfinite
    from .step._in_turn import in_turn as in_turn
    from .step._members import members as members
    from .step._protocol import Step as Step
    from .step._train import train_step as train_step
    from .store._bundle import bundle as bundle
    from .store._bundle import read_bundle as read_bundle
    from .store._bundle import save_bundle as save_bundle
    from .store._checkpoint import Checkpoint as Checkpoint
    from .store._checkpoint import load as load
    from .store._checkpoint import save as save
    from .task import metrics as metrics
    from .task._contrastive import contrastive as contrastive
    from .task._distillation import distillation as distillation
    from .task._folds import Metric as Metric
    from .task._language import language_modeling as language_modeling
    from .task._mean import Mean as Mean
    from .task._mean import mean as mean
    from .task._outputs import outputs as outputs
    from .task._task import Task as Task
    from .task._task import classification as classification
    from .task._task import regression as regression
    from .task.metrics import accuracy as accuracy
    from .tree._paths import flat as flat
    from .tree._paths import merge as merge
    from .tree._paths import norm as norm
    from .tree._paths import partition as partition
    from .tree._paths import paths as paths
    from .tree._paths import restore_like as restore_like
    from .tree._paths import size as size
    from .tree._paths import swap as swap
    from .tree._select import Select as Select
    from .tree._select import everything as everything
    from .tree._select import matching as matching
    from .tree._select import ndim as ndim
    from .tree._select import nothing as nothing
    from .tree._select import select as select
    from .tree._select import under as under

_MODULES = {  # public modules: name -> module
    **{name: f".{name}" for name in ("cpu", "data", "lm", "nn", "optim", "show", "testing")},
    "metrics": ".task.metrics",
    "passes": ".step.passes",
    "rng": ".compile.rng",
}

_NAMES = {  # public functions and classes: module -> names
    ".across._world": ("World", "world"),
    ".core._pipe": ("pipe",),
    ".core._memory_limits": ("memory_limits",),
    ".core._registry": ("Registry",),
    ".experiments._cases": ("choices", "log_uniform", "uniform"),
    ".experiments._ensemble": ("ensemble",),
    ".experiments._experiment": ("Experiment", "experiment", "override", "settings"),
    ".experiments._k_fold": ("k_fold",),
    ".experiments._run": ("run",),
    ".experiments._sweep": ("Sweep", "sweep"),
    ".exporting._export": ("export",),
    ".exporting._imported": ("imported",),
    ".exporting._onnx": ("to_onnx",),
    ".exporting._profile": ("profile",),
    ".loop._batch_size": ("fit_batch_size",),
    ".loop._directive": ("Replace", "Save", "Stop", "Validate"),
    ".loop._emitting": ("emit",),
    ".loop._event": ("Event",),
    ".loop._event_table": ("event",),
    ".loop._fit": ("evaluate", "events", "fit"),
    ".loop._hook": ("fold", "hook", "hook_states"),
    ".loop._memory": ("memory",),
    ".loop._monitor": ("Monitor",),
    ".loop._on": ("on",),
    ".loop._plateau": ("plateau",),
    ".loop._predict": ("predict",),
    ".loop._report": ("Report",),
    ".loop._stopping": ("early_stop", "stop_on_divergence"),
    ".loop._trainer": (
        "Trainer",
        "trainer",
        "with_hooks",
        "with_metrics",
        "with_named",
        "with_optimizer",
        "with_options",
        "with_step",
    ),
    ".loop._watching": ("checkpoints", "monitor"),
    ".nn": ("freeze", "summary", "unfreeze"),
    ".nn._intermediates": ("intermediates",),
    ".step._dtypes": ("dtypes",),
    ".step._evaluate": ("EvalStep", "eval_step"),
    ".step._find_nonfinite": ("find_nonfinite",),
    ".step._in_turn": ("in_turn",),
    ".step._members": ("members",),
    ".step._protocol": ("Step",),
    ".step._train": ("train_step",),
    ".store._bundle": ("bundle", "read_bundle", "save_bundle"),
    ".store._checkpoint": ("Checkpoint", "load", "save"),
    ".task._contrastive": ("contrastive",),
    ".task._distillation": ("distillation",),
    ".task._folds": ("Metric",),
    ".task._language": ("language_modeling",),
    ".task._mean": ("Mean", "mean"),
    ".task._outputs": ("outputs",),
    ".task._task": ("Task", "classification", "regression"),
    ".task.metrics": ("accuracy",),
    ".tree._paths": ("flat", "merge", "norm", "partition", "paths", "restore_like", "size", "swap"),
    ".tree._select": ("Select", "everything", "matching", "ndim", "nothing", "select", "under"),
}

__version__ = "0.1.0"
__all__ = sorted([*_MODULES, *(name for names in _NAMES.values() for name in names)])

if not TYPE_CHECKING:  # with a `__getattr__` a type checker would accept any name
    __getattr__ = _late(__name__, _NAMES, _MODULES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
