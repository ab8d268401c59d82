"""`mlx-fp check FILE`: build everything, compute one batch without training, and predict the memory."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping

from ..core._text import dtype_name, shape_text, table
from ..core._types import Array, Batch
from ..core.backend import device_backend
from ..data import Dataset
from ..experiments._experiment import Experiment
from ..loop._memory import memory
from ..loop._plan import Plan
from ..loop._starting import first_state, make_step, with_skips
from ..loop._trainer import Trainer
from ..nn._summary import summary
from ..step._evaluate import eval_step
from ..tree._paths import flat
from ._building import built, first_batch, planned
from ._loading import loaded_experiment
from ._values import changes_of

__all__ = ["check_experiment"]


def check_experiment(arguments: Namespace) -> int:
    """Print the data, the model, the figures of one batch, the traces, and the memory to expect. Nothing is trained.

    Args:
        arguments: `target`, `changes` and `config` of the command line.

    Returns:
        The exit status 0. An error of the experiment is raised.
    """
    with loaded_experiment(arguments.target) as target:
        changed = built(target, changes_of(target, arguments.changes, arguments.config))
        trainer, plan = planned(changed)
        print(_facts(changed, trainer, plan))
        collated = plan.collated_for(trainer.task)
        batch = first_batch(collated.train)
        print(f"\n{_batch_table(batch)}\n\n{summary(trainer, batch=first_batch(plan.train))}\n")
        print(_figures_of_batch(trainer, collated, batch))
        print(f"\n{memory(plan.train)(trainer)}")
    return 0


def _facts(target: Experiment, trainer: Trainer, plan: Plan) -> str:
    """Return the parts of an experiment as a table; data with the number of batches of an epoch."""
    sets = {f"validation {name}".strip(): _data_text(data) for name, data in plan.validation.items()}
    length = f"{plan.steps} steps" if plan.steps is not None else f"{plan.epochs} epochs"
    facts = {
        "experiment": repr(target),
        "optimizer": repr(trainer.optimizer),
        "training": _data_text(plan.train),
        **sets,
        "length": length,
    }
    return table(list(facts.items()), left=2)


def _data_text(dataset: Dataset) -> str:
    size = "?" if dataset.size is None else f"{dataset.size:,}"
    return f"{size} × {dataset!r}"


def _batch_table(batch: Batch) -> str:
    """Return the shape and the dtype of each array of a batch as a table."""
    leaves = flat(batch) if isinstance(batch, (dict, list, tuple)) else {"the batch": batch}
    rows = [(path, *_shape_and_dtype(leaf)) for path, leaf in leaves.items()]
    return table([("batch", "shape", "dtype"), *rows], left=3)


def _shape_and_dtype(leaf: object) -> tuple[str, str]:
    """Return the shape and the dtype of an array of MLX or numpy; a value has its type.

    >>> _shape_and_dtype(mx.zeros((2, 3))), _shape_and_dtype(7)
    (('2×3', 'float32'), ('', 'int'))
    """
    if not hasattr(leaf, "shape"):
        return "", type(leaf).__name__
    return shape_text(leaf.shape), dtype_name(getattr(leaf, "dtype", ""))


def _figures_of_batch(trainer: Trainer, plan: Plan, batch: Batch) -> str:
    """Return the figures of the first batches, and the traces of both steps, as a table. The new state is dropped."""
    step = make_step(with_skips(trainer, plan), plan)
    with device_backend().tuned(step.parameter_bytes):
        params, opt_state = first_state(step, plan)
        _, ((logs, *_),) = step.advance(step.carry(params, opt_state), [batch])
        columns, traces = {"training": _numbers(logs)}, {"training": step.traces}
        for name, data in plan.validation.items():
            title, options = f"validation {name}".strip(), {"dtype": plan.dtype, "streams": plan.streams}
            evaluate = eval_step(trainer.model, trainer.task.loss, compile=plan.compile, **options)
            columns[title] = _numbers(evaluate(params, evaluate.init(), first_batch(data))[1])
            traces[title] = evaluate.traces
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    rows = [(name, *(figures.get(name, "") for figures in columns.values())) for name in names]
    dtypes = Counter(dtype_name(leaf.dtype) for leaf in flat(params).values())
    counts = ", ".join(f"{count} {name}" for name, count in dtypes.items())
    last = ("traces", *map(str, traces.values()))
    return table([("first batch", *columns), *rows, last]) + f"\n\narrays of the model: {counts}"


def _numbers(logs: Mapping[str, Array]) -> dict[str, str]:
    """Return the scalars of logs as text."""
    return {name: f"{value.item():.6g}" for name, value in logs.items() if value.size == 1}
