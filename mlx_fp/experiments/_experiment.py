"""An experiment: model, task, optimiser, data and length of a run in one frozen record, whose settings have paths.

>>> from mlx_fp import data, nn, optim
>>> from mlx_fp.task._task import regression
>>> x = mx.random.normal((64, 3), key=mx.random.key(0))
>>> def batches(batch_size=16):
...     return data.splits(train=(data.arrays(x=x, y=x.sum(axis=1)), data.shuffle(seed=1), data.batch(batch_size)))
>>> def optimizer(learning_rate=0.1):
...     return optim.sgd(learning_rate)
>>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), optimizer=optimizer, data=batches)
>>> override({"optimizer.learning_rate": 0.2, "data.batch_size": 8})(plain).options["data.batch_size"]
8
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from toolz import pipe

from ..core._errors import unknown
from ..core._frozen import freeze_field
from ..core._pickling import Picklable
from ..core._plain import as_plain
from ..core._signature import name_of
from ..data import Splits, as_dataset
from ..loop._trainer import Trainer, Verb, trainer, with_optimizer
from ..nn._layer import Layer
from ..nn._lift import as_layer
from ..optim import adamw
from ..optim._optimizer import Optimizer, require_optimizer
from ..task._task import Task, as_task
from ._option_function import OptionFunction, check_defaults, option_values, options_of, takes_options

__all__ = ["Experiment", "experiment", "override", "settings"]

SECTIONS = ("model", "task", "optimizer", "data", "artifacts")
"""The parts of an experiment that may be functions of options; verbs that are partials may be, too."""

_FIELD_SETTINGS = ("epochs", "steps", "seed")
"""The settings that are fields of an experiment."""


@dataclass(frozen=True, slots=True)
class Experiment(Picklable):
    """The parts of a training run; `experiment` makes this record, `override` changes it, and `run` trains it.

    Args:
        name: Name of the experiment in messages and files.
        model: The model, or a function of options that returns it.
        task: The task, or a function of options that returns it.
        optimizer: The optimiser, or a function of options that returns it.
        data: The data, or a function of options that returns them.
        artifacts: Verb that makes a run write files, for example `checkpoints(…)`; None writes none.
        verbs: Verbs that change the trainer, in this order.
        epochs: Number of epochs of a run.
        steps: Number of updates of a run, instead of epochs; None means that `epochs` counts.
        seed: Seed of the parameters and of the random stream.
        options: Settings that `override` has changed, by path.
    """

    name: str
    model: Layer | OptionFunction
    task: Task | OptionFunction
    optimizer: Optimizer | OptionFunction
    data: object
    artifacts: OptionFunction | None = None
    verbs: tuple[Verb | Callable[..., Verb], ...] = ()
    epochs: int = 1
    steps: int | None = None
    seed: int = 0
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze_field(self, "options")

    @property
    def trainer(self) -> Trainer:
        """A new trainer of the model, the task and the optimiser, changed by the verbs."""
        target = replace(trainer(self._section("model"), self._section("task")), settings=as_plain(settings(self)))
        verbs: list[tuple[str, OptionFunction]] = [] if self.artifacts is None else [("artifacts", self.artifacts)]
        verbs += [(name_of(getattr(verb, "func", verb)), verb) for verb in self.verbs]
        built = [self._build(name, verb) if isinstance(verb, partial) else verb for name, verb in verbs]
        return cast(Trainer, pipe(target, with_optimizer(self._section("optimizer")), *built))

    @property
    def splits(self) -> Splits:
        """The data of the experiment; data that are not `Splits` are training data."""
        data = self._section("data")
        return data if isinstance(data, Splits) else Splits(as_dataset(data))

    def __repr__(self) -> str:
        changes = "".join(f", {path}={value!r}" for path, value in self.options.items())
        return f"experiment({self.name!r}, epochs={self.epochs}, seed={self.seed}{changes})"

    def sections(self) -> dict[str, object]:
        """Return the parts that may be functions of options, by name: the sections, and verbs that are partials."""
        verbs = {name_of(verb.func): verb for verb in self.verbs if isinstance(verb, partial)}
        return {name: getattr(self, name) for name in SECTIONS} | verbs

    def _section(self, name: str) -> Any:
        return self._build(name, getattr(self, name))

    def _build(self, name: str, part: object) -> object:
        """Return a part; call it with the changed options where it is a function of options."""
        changes = options_of(name, self.options)
        if isinstance(part, partial) and changes:
            # By name, because an option that the partial holds by position may be a changed one.
            return part.func(**{**option_values(part), **changes})
        return part(**changes) if takes_options(part, name) else part


def experiment(
    name: str,
    *verbs: Verb | Callable[..., Verb],
    model: Layer | OptionFunction,
    data: object,
    task: Task | OptionFunction | None = None,
    loss: Callable[..., object] | None = None,
    optimizer: Optimizer | OptionFunction | None = None,
    artifacts: OptionFunction | None = None,
    epochs: int = 1,
    steps: int | None = None,
    seed: int = 0,
) -> Experiment:
    """Make an experiment.

    The model, the task, the optimiser, the data and the artifacts may each be a function of options with defaults.
    Each option is then a setting with a path, for example `model.width`. The options of a `partial` are settings, too:
    `partial(optim.adamw, 1e-3)` has `optimizer.learning_rate`, and the verb `partial(early_stop, patience=3)` has
    `early_stop.patience`.

    Args:
        name: Name of the experiment in messages and files.
        verbs: Verbs that change the trainer, in this order: hooks, a monitor, early stopping, options of `fit`.
        model: A Layer, an mlx.nn module or a function of options that returns one.
        data: A record that `data.splits` makes, or training data alone.
        task: A task, for example `classification()`. Give a task or a `loss`.
        loss: A loss, for a run without a task.
        optimizer: An optimiser; `adamw(1e-3)` by default.
        artifacts: A verb that makes a run write files, for example `checkpoints(…)`; by default a run writes none.
        epochs: Number of epochs of a run; 1 by default.
        steps: Number of updates of a run, instead of epochs; None by default.
        seed: Seed of the parameters and of the random stream; 0 by default.

    Returns:
        An Experiment.

    Raises:
        TypeError: A part is of another type, neither or both of `task` and `loss` are given, a function of options has
            a parameter without a default, or two verbs that are partials have the same name.

    >>> from mlx_fp import nn, regression
    >>> experiment("sums", model=nn.linear(3, 1), task=regression(), data=[], epochs=3)
    experiment('sums', epochs=3, seed=0)
    """
    if (task is None) == (loss is None):
        raise TypeError("an experiment takes a task or a loss, one of the two")
    chosen_task = as_task(loss) if task is None else task
    target = Experiment(
        name, model, chosen_task, optimizer or partial(adamw, 1e-3), data, artifacts, verbs, epochs, steps, seed
    )
    for verb in verbs:
        if not callable(verb):
            raise TypeError(f"an experiment's verbs change its trainer, as on(…) does; got {verb!r}")
    names = [name_of(verb.func) for verb in verbs if isinstance(verb, partial)]
    for repeated in names:
        if names.count(repeated) > 1 or repeated in (*SECTIONS, *_FIELD_SETTINGS):
            raise TypeError(
                f"two parts of an experiment are called {repeated!r}, so their settings have the same paths"
            )
    for section, part in target.sections().items():
        _check_section(section, part)
    return target


def settings(target: Experiment) -> dict[str, Any]:
    """Return the settings of an experiment by path, with their values.

    Args:
        target: The experiment.

    Returns:
        A dict from path to value, for example `{"epochs": 1, "optimizer.learning_rate": 0.1}`.

    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.task._task import regression
    >>> target = experiment("e", model=nn.linear(3, 1), task=regression(), optimizer=partial(optim.sgd, 0.1), data=[])
    >>> settings(target)
    {'epochs': 1, 'steps': None, 'seed': 0, 'optimizer.learning_rate': 0.1, 'optimizer.momentum': 0.0, ...}
    """
    values: dict[str, Any] = {name: getattr(target, name) for name in _FIELD_SETTINGS}
    for section, part in target.sections().items():
        options = option_values(part) if takes_options(part, section) else {}
        values |= {f"{section}.{name}": value for name, value in options.items()}
    return {**values, **target.options}


def override(changes: Mapping[str, object]) -> Callable[[Experiment], Experiment]:
    """Change settings of an experiment by path.

    Args:
        changes: New values by path, for example `{"epochs": 3, "optimizer.learning_rate": 0.1}`.

    Returns:
        A function from an experiment to a changed copy of it.

    Raises:
        KeyError: The experiment has no setting with this path; the message has candidates.

    >>> from mlx_fp import nn
    >>> from mlx_fp.task._task import regression
    >>> override({"optimiser.learning_rate": 1.0})(experiment("e", model=nn.linear(3, 1), task=regression(), data=[]))
    Traceback (most recent call last):
    KeyError: "unknown setting 'optimiser.learning_rate': did you mean 'optimizer.learning_rate'? known: ..."
    """

    def change(target: Experiment) -> Experiment:
        paths = settings(target)
        for path in changes:
            if path not in paths:
                raise KeyError(unknown("setting", path, paths))
        fields: dict[str, Any] = {name: changes[name] for name in _FIELD_SETTINGS if name in changes}
        options = {path: value for path, value in changes.items() if path not in fields}
        return replace(target, **fields, options={**target.options, **options})

    return change


def _check_artifacts(part: object) -> object:
    if part is not None and not callable(part):
        raise TypeError(f"an experiment's artifacts are a verb, such as checkpoints(…); got {part!r}")
    return part


_CHECKS: dict[str, Callable[[object], object]] = {
    "model": lambda part: as_layer(part, "an experiment's model"),
    "task": as_task,
    "optimizer": lambda part: require_optimizer(part, "an experiment"),
    "data": lambda part: part if isinstance(part, Splits) else as_dataset(part),
    "artifacts": _check_artifacts,
}
"""For each section, the function that raises TypeError for a part of another type."""


def _check_section(section: str, part: object) -> None:
    if takes_options(part, section):
        check_defaults(part, section)
    else:
        _CHECKS[section](part)
