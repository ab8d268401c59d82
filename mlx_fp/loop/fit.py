"""The loop: a run as a lazy stream of events, `fit`, which consumes it, and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypedDict, Unpack

from ..data import as_dataset
from ..errors import located, unknown
from ..step import eval_step
from ..types import Array, Params
from .event import EVENTS, AfterFit, Event, event_name
from .progress import progress
from .report import Report
from .run import Plan, Run, validated
from .totals import Totals
from .trainer import Trainer, with_hooks

__all__ = ["Options", "evaluate", "events", "fit"]


class Options(TypedDict, total=False):
    """The options of `fit` and `events`.

    `validation` is a Dataset or a sequence of batches, read anew each epoch, as the training data is. Parameters start
    from `params`, or from `seed`, 0 if none is given, which seeds the random stream of the run too. `compile` and
    `dtype` are those of `train_step`. `keep_losses=False` drops the losses of single steps.
    """

    validation: Any
    epochs: int
    params: Params | None
    seed: int | Array
    compile: bool | Mapping[str, Any]
    dtype: Any
    keep_losses: bool


def fit(train: Any, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Trainer], Report]:
    """Train for a number of epochs, 1 unless `epochs` says otherwise, and report; `options` as in `Options`.

    Progress shows as a bar on a terminal, as lines elsewhere, and not at all with `quiet=True`. ValueError for an epoch
    without batches; an exception keeps its class and says in a note where it happened.

    >>> from mlx_fp import data, nn, optim, task
    >>> from mlx_fp.loop.trainer import trainer
    >>> x = mx.random.normal((64, 2), key=mx.random.key(0))
    >>> train = pipe(data.arrays(x, (x[:, 0] > 0).astype(mx.int32)), data.shuffle(seed=0), data.batch(16))
    >>> report = pipe(trainer(nn.linear(2, 2), task.classification()), fit(train, epochs=3, quiet=True))
    >>> len(report.rows), report.rows[-1].steps
    (3, 12)
    """
    stream = events(train, only=("after_fit",), **options)

    def run(target: Trainer) -> Report:
        *_, last = stream(target if quiet else with_hooks(*progress())(target))
        assert isinstance(last, AfterFit)
        return last.report

    return run


def events(
    train: Any, *, only: Iterable[str] = tuple(EVENTS), **options: Unpack[Options]
) -> Callable[[Trainer], Generator[Event, None, None]]:
    """Train as `fit` does, as a stream that yields each event after the hooks have seen it; closing it ends the run.

    `only` names the events to yield; no record is made of one that nobody listens to.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop.trainer import trainer
    >>> model = trainer(nn.linear(3, 1), lambda model, x: model(x).mean())
    >>> [event.step for event in events([mx.ones((2, 3))], only=("after_step",))(model)]
    [0]
    """
    plan = _plan(train, only, options)

    def stream(target: Trainer) -> Generator[Event, None, None]:
        yield from Run(target, plan).events()

    return stream


def evaluate(
    test: Any, *, params: Params, compile: bool | Mapping[str, Any] = True, dtype: Any = None
) -> Callable[[Trainer], dict[str, float]]:
    """Return the mean loss and the metrics of parameters on data, in evaluation mode: `{"loss": …, "accuracy": …}`.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop.trainer import trainer
    >>> model = nn.linear(3, 1)
    >>> params = {"weight": mx.ones((1, 3)), "bias": mx.zeros((1,))}
    >>> evaluate([mx.ones((2, 3))], params=params)(trainer(model, lambda m, x: m(x).mean()))
    {'loss': 3.0}
    """
    data = as_dataset(test)

    def evaluated(target: Trainer) -> dict[str, float]:
        task, totals = target.task, Totals()
        step = eval_step(target.model, task.loss, metrics=task.metrics, compile=compile, dtype=dtype)
        with located(split="test", batch=lambda: totals.batches):
            for _ in validated(step, params, data, totals, kind="test"):
                pass
        return {"loss": totals.means["loss"], **totals.named()}

    return evaluated


def _plan(train: Any, only: Iterable[str], options: Options) -> Plan:
    for name in options:
        if name not in Options.__annotations__:
            raise TypeError(unknown("option", name, Options.__annotations__))
    epochs, validation = options.get("epochs", 1), options.get("validation")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs is a count, 0 or more; got {epochs!r}")
    checked = {**options, "validation": None if validation is None else as_dataset(validation)}
    return Plan(as_dataset(train), frozenset(event_name(name) for name in only), **checked)  # type: ignore[arg-type]
