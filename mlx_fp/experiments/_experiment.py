"""An experiment: model, task, optimiser, data and how to train, as one frozen record that can be changed by path.

>>> from mlx_fp import data, nn, optim
>>> from mlx_fp.task._task import regression
>>> x = mx.random.normal((64, 3), key=mx.random.key(0))
>>> def batches(batch_size=16):
...     return data.splits(train=(data.arrays(x=x, y=x.sum(axis=1)), data.shuffle(seed=1), data.batch(batch_size)))
>>> def optimizer(learning_rate=0.1):
...     return optim.sgd(learning_rate)
>>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), optimizer=optimizer, data=batches)
>>> report = run(epochs=3, quiet=True)(override({"optimizer.learning_rate": 0.2, "data.batch_size": 8})(plain))
>>> report.rows[-1].steps
24
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import FunctionType
from typing import Any, Unpack

from toolz import pipe

from ..core._errors import unknown
from ..core._frozen import freeze_field
from ..core._signature import arguments, name_of, signature_of
from ..data import Splits, as_dataset
from ..loop._fit import fit
from ..loop._plan import Options
from ..loop._report import Report
from ..loop._trainer import Trainer, Verb, trainer, with_optimizer
from ..nn._lift import as_layer
from ..optim import adamw
from ..optim._optimizer import checked
from ..task._task import as_task

__all__ = ["Experiment", "experiment", "override", "run", "settings"]

SECTIONS = ("model", "task", "optimizer", "data")
"""The parts of an experiment that may be functions of options."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What to train on what, and how; made by `experiment`, changed by `override`, trained by `run`.

    `trainer` and `splits` build what its sections say, anew each time.
    """

    name: str
    model: Any
    task: Any
    optimizer: Any
    data: Any
    verbs: tuple[Verb, ...] = ()
    epochs: int = 1
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `override` has set, by path."""

    def __post_init__(self) -> None:
        freeze_field(self, "options")

    @property
    def trainer(self) -> Trainer:
        """The trainer: model, task and optimiser, and what the verbs make of them."""
        made = trainer(self._section("model"), self._section("task"))
        return pipe(made, with_optimizer(self._section("optimizer")), *self.verbs)  # type: ignore[no-any-return]

    @property
    def splits(self) -> Splits:
        """The data; what is given without splits is training data."""
        data = self._section("data")
        return data if isinstance(data, Splits) else Splits(as_dataset(data))

    def __repr__(self) -> str:
        changes = "".join(f", {path}={value!r}" for path, value in self.options.items())
        return f"experiment({self.name!r}, epochs={self.epochs}, seed={self.seed}{changes})"

    def _section(self, name: str) -> Any:
        value, own = getattr(self, name), _own(name, self.options)
        if isinstance(value, partial) and own:  # an option that it holds by position may be another one now
            return value.func(**{**_options(value), **own})
        return value(**own) if _is_function(value) else value


def experiment(
    name: str,
    *verbs: Verb,
    model: Any,
    data: Any,
    task: Any = None,
    loss: Callable[..., Any] | None = None,
    optimizer: Any = None,
    epochs: int = 1,
    seed: int = 0,
) -> Experiment:
    """Put an experiment together. `verbs` change its trainer, in order: hooks, monitor, early stopping, checkpoints.

    Give a task, or a loss alone. Model, task, optimiser and data may each be a function of options with defaults. The
    options are then settings by path: `model.width`, or `optimizer.learning_rate` of `partial(optim.adamw, 1e-3)`.
    Data are `splits`, or training data alone. TypeError for sections that are none.
    """
    if (task is None) == (loss is None):
        raise TypeError("an experiment takes a task or a loss, one of the two")
    task, optimizer = task if loss is None else as_task(loss), optimizer or partial(adamw, 1e-3)
    made = Experiment(name, model, task, optimizer, data, verbs, epochs, seed)
    odd = [verb for verb in verbs if not callable(verb)]
    if odd:
        raise TypeError(f"an experiment's verbs change its trainer, as on(…) does; got {odd[0]!r}")
    for section in SECTIONS:
        _check(section, getattr(made, section))
    return made


def settings(target: Experiment) -> dict[str, Any]:
    """Return what can be set in an experiment, by path, and what it is.

    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.task._task import regression
    >>> target = experiment("e", model=nn.linear(3, 1), task=regression(), optimizer=partial(optim.sgd, 0.1), data=[])
    >>> settings(target)
    {'epochs': 1, 'seed': 0, 'optimizer.learning_rate': 0.1, 'optimizer.momentum': 0.0, ...}
    """
    found: dict[str, Any] = {"epochs": target.epochs, "seed": target.seed}
    for section in SECTIONS:
        found |= {f"{section}.{name}": value for name, value in _options(getattr(target, section)).items()}
    return {**found, **target.options}


def override(changes: Mapping[str, Any]) -> Callable[[Experiment], Experiment]:
    """Return an experiment with other settings, by path. KeyError with candidates for a path that there is not.

    >>> from mlx_fp import nn
    >>> from mlx_fp.task._task import regression
    >>> override({"optimiser.learning_rate": 1.0})(experiment("e", model=nn.linear(3, 1), task=regression(), data=[]))
    Traceback (most recent call last):
    KeyError: "unknown setting 'optimiser.learning_rate': did you mean 'optimizer.learning_rate'? known: ..."
    """

    def overridden(target: Experiment) -> Experiment:
        known = settings(target)
        for path in changes:
            if path not in known:
                raise KeyError(unknown("setting", path, known))
        own = {name: changes[name] for name in ("epochs", "seed") if name in changes}
        deep = {path: value for path, value in changes.items() if path not in own}
        return replace(target, **own, options={**target.options, **deep})

    return overridden


def run(*, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], Report]:
    """Train an experiment for its epochs, from its seed, and report; `options` as for `fit` go before its own."""

    def ran(target: Experiment) -> Report:
        given: Any = {"epochs": target.epochs, "seed": target.seed, **options}
        return fit(target.splits, quiet=quiet, **given)(target.trainer)

    return ran


_KINDS: dict[str, Callable[[Any], Any]] = {
    "model": lambda value: as_layer(value, "an experiment's model"),
    "task": as_task,
    "optimizer": lambda value: checked(value, "an experiment"),
    "data": lambda value: value if isinstance(value, Splits) else as_dataset(value),
}
"""What each section must be where it is no function of options; TypeError otherwise."""


def _is_function(section: Any) -> bool:
    """Whether a section is a function of options, and not the thing itself, a module class say."""
    return isinstance(section, (FunctionType, partial))


def _options(value: Any) -> Mapping[str, Any]:
    if not _is_function(value):
        return {}
    if isinstance(value, partial):  # the arguments that it holds are options too
        return arguments(value.func, value.args, value.keywords)
    return arguments(value, (), {})


def _own(section: str, options: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{section}."
    return {path.removeprefix(prefix): value for path, value in options.items() if path.startswith(prefix)}


def _check(section: str, value: Any) -> None:
    if not _is_function(value):
        _KINDS[section](value)
        return
    lacking = [p.name for p in signature_of(value) or [] if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if lacking:
        raise TypeError(
            f"the {section} {name_of(value)!r} is a function of options; give {', '.join(lacking)} a default"
        )
