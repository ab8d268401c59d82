"""An experiment: model, task, optimiser, data and how to train, as one frozen record that can be changed by path.

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
from types import FunctionType
from typing import Any

from toolz import pipe

from ..core._errors import unknown
from ..core._frozen import freeze_field
from ..core._pickling import Picklable
from ..core._signature import arguments, name_of, signature_of
from ..data import Splits, as_dataset
from ..loop._trainer import Trainer, Verb, trainer, with_optimizer
from ..nn._lift import as_layer
from ..optim import adamw
from ..optim._optimizer import require_optimizer
from ..task._task import as_task

__all__ = ["Experiment", "experiment", "override", "settings"]

SECTIONS = ("model", "task", "optimizer", "data", "artifacts")
"""The parts of an experiment that may be functions of options, beside verbs that are partials."""

_OWN = ("epochs", "steps", "seed")
"""The settings that are fields of an experiment."""


@dataclass(frozen=True, slots=True)
class Experiment(Picklable):
    """What to train on what, and how; made by `experiment`, changed by `override`, trained by `run`.

    `trainer` and `splits` build what its sections say, anew each time.
    """

    name: str
    model: Any
    task: Any
    optimizer: Any
    data: Any
    artifacts: Any = None
    """A verb that says which files a run writes, such as `checkpoints(…)`, or None."""
    verbs: tuple[Verb, ...] = ()
    epochs: int = 1
    steps: int | None = None
    """How many updates a run makes, in the place of epochs."""
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `override` has set, by path."""

    def __post_init__(self) -> None:
        freeze_field(self, "options")

    @property
    def trainer(self) -> Trainer:
        """The trainer: model, task and optimiser, and what the verbs make of them."""
        made = trainer(self._section("model"), self._section("task"))
        named = [] if self.artifacts is None else [("artifacts", self.artifacts)]
        named += [(name_of(getattr(verb, "func", verb)), verb) for verb in self.verbs]
        verbs = [self._built(name, verb) if isinstance(verb, partial) else verb for name, verb in named]
        return pipe(made, with_optimizer(self._section("optimizer")), *verbs)  # type: ignore[no-any-return]

    @property
    def splits(self) -> Splits:
        """The data; what is given without splits is training data."""
        data = self._section("data")
        return data if isinstance(data, Splits) else Splits(as_dataset(data))

    def __repr__(self) -> str:
        changes = "".join(f", {path}={value!r}" for path, value in self.options.items())
        return f"experiment({self.name!r}, epochs={self.epochs}, seed={self.seed}{changes})"

    def sections(self) -> dict[str, Any]:
        """Name the parts that may be functions of options: the sections, and verbs that are partials."""
        verbs = {name_of(verb.func): verb for verb in self.verbs if isinstance(verb, partial)}
        return {name: getattr(self, name) for name in SECTIONS} | verbs

    def _section(self, name: str) -> Any:
        return self._built(name, getattr(self, name))

    def _built(self, name: str, value: Any) -> Any:
        own = _own(name, self.options)
        if isinstance(value, partial) and own:  # an option that it holds by position may be another one now
            return value.func(**{**_options(value), **own})
        return value(**own) if _takes_options(name, value) else value


def experiment(
    name: str,
    *verbs: Verb,
    model: Any,
    data: Any,
    task: Any = None,
    loss: Callable[..., Any] | None = None,
    optimizer: Any = None,
    artifacts: Any = None,
    epochs: int = 1,
    steps: int | None = None,
    seed: int = 0,
) -> Experiment:
    """Put an experiment together.

    Model, task, optimiser, data and artifacts may each be a function of options with defaults. The options are then
    settings by path: `model.width`, or `optimizer.learning_rate` of `partial(optim.adamw, 1e-3)`. So are those of a
    verb that is a partial: `early_stop.patience` of `partial(early_stop, patience=3)`.

    Args:
        name: what messages and files call it.
        verbs: change its trainer, in order: hooks, monitor, early stopping, options of `fit`.
        model: a Layer, or what a trainer takes for one.
        data: `splits`, or training data alone.
        task: a task; give it or `loss`.
        loss: a loss alone.
        optimizer: `adamw(1e-3)` by default.
        artifacts: a verb that says which files a run writes, such as `checkpoints(…)`.
        epochs: how many epochs a run has.
        steps: how many updates a run makes, in the place of epochs.
        seed: where parameters and random numbers start.

    Raises:
        TypeError: a section is not of its kind, or two verbs that are partials have one name.
    """
    if (task is None) == (loss is None):
        raise TypeError("an experiment takes a task or a loss, one of the two")
    task, optimizer = task if loss is None else as_task(loss), optimizer or partial(adamw, 1e-3)
    made = Experiment(name, model, task, optimizer, data, artifacts, verbs, epochs, steps, seed)
    odd = [verb for verb in verbs if not callable(verb)]
    if odd:
        raise TypeError(f"an experiment's verbs change its trainer, as on(…) does; got {odd[0]!r}")
    names = [name_of(verb.func) for verb in verbs if isinstance(verb, partial)]
    twice = [name for name in names if names.count(name) > 1 or name in (*SECTIONS, *_OWN)]
    if twice:
        raise TypeError(f"two parts of an experiment are called {twice[0]!r}, so their settings have the same paths")
    for section, value in made.sections().items():
        _check(section, value)
    return made


def settings(target: Experiment) -> dict[str, Any]:
    """Return what can be set in an experiment, by path, and what it is.

    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.task._task import regression
    >>> target = experiment("e", model=nn.linear(3, 1), task=regression(), optimizer=partial(optim.sgd, 0.1), data=[])
    >>> settings(target)
    {'epochs': 1, 'steps': None, 'seed': 0, 'optimizer.learning_rate': 0.1, 'optimizer.momentum': 0.0, ...}
    """
    found: dict[str, Any] = {name: getattr(target, name) for name in _OWN}
    for section, value in target.sections().items():
        options = _options(value) if _takes_options(section, value) else {}
        found |= {f"{section}.{name}": option for name, option in options.items()}
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
        own = {name: changes[name] for name in _OWN if name in changes}
        deep = {path: value for path, value in changes.items() if path not in own}
        return replace(target, **own, options={**target.options, **deep})

    return overridden


def _as_verb(value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"an experiment's artifacts are a verb, such as checkpoints(…); got {value!r}")
    return value


_KINDS: dict[str, Callable[[Any], Any]] = {
    "model": lambda value: as_layer(value, "an experiment's model"),
    "task": as_task,
    "optimizer": lambda value: require_optimizer(value, "an experiment"),
    "data": lambda value: value if isinstance(value, Splits) else as_dataset(value),
    "artifacts": _as_verb,
}
"""What each section must be where it is no function of options; TypeError otherwise."""


def _takes_options(section: str, value: Any) -> bool:
    """Whether a section is a function of options, and not the thing itself: a module class say, or artifacts' verb."""
    return isinstance(value, partial) or (isinstance(value, FunctionType) and section != "artifacts")


def _options(value: Any) -> Mapping[str, Any]:
    """Return the options that a function of options has, and what they are."""
    if isinstance(value, partial):  # the arguments that it holds are options too
        return arguments(value.func, value.args, value.keywords)
    return arguments(value, (), {})


def _own(section: str, options: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{section}."
    return {path.removeprefix(prefix): value for path, value in options.items() if path.startswith(prefix)}


def _check(section: str, value: Any) -> None:
    if not _takes_options(section, value):
        _KINDS[section](value)
        return
    lacking = [p.name for p in signature_of(value) or [] if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if lacking:
        raise TypeError(
            f"the {section} {name_of(value)!r} is a function of options; give {', '.join(lacking)} a default"
        )
