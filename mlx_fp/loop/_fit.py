"""The loop: a run as a lazy stream of events, `fit`, which consumes it, and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Unpack

from ..core._errors import located
from ..core._types import Params
from ..core.backend import device_backend
from ..data import Splits, as_dataset
from ..nn._layer import check_given
from ..step._evaluate import eval_step
from ._epochs import run_events, started
from ._evaluation import validated
from ._event import EVENTS, Event
from ._plan import Options, plan, shaped
from ._progress import progress
from ._report import Report
from ._signals import asking
from ._summary import report_of
from ._totals import Totals
from ._trainer import Trainer

__all__ = ["evaluate", "events", "fit"]


def fit(train: Any, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Trainer], Report]:
    """Train for a number of epochs, 1 unless `epochs` says otherwise, and report; `options` as in `Options`.

    `train` may be `splits`, with validation data in them. Progress shows as a bar on a terminal, as lines elsewhere,
    and not at all with `quiet=True`. Ctrl-C and SIGTERM end the run after the step at hand, with a report that says
    so; a second one ends it at once. ValueError for an epoch without batches; an exception keeps its class and says in
    a note where it happened.

    >>> from mlx_fp import classification, data, nn, optim
    >>> from mlx_fp.loop._trainer import trainer
    >>> x = mx.random.normal((64, 2), key=mx.random.key(0))
    >>> train = pipe(data.arrays(x, (x[:, 0] > 0).astype(mx.int32)), data.shuffle(seed=0), data.batch(16))
    >>> report = pipe(trainer(nn.linear(2, 2), classification()), fit(train, epochs=3, quiet=True))
    >>> len(report.rows), report.rows[-1].steps
    (3, 12)
    """
    asked = plan(train, (), options)

    def run(target: Trainer) -> Report:
        shown = progress(quiet=quiet)
        running = started(target, replace(asked, wanted=shown.events))
        with asking(running.interrupt, busy=lambda: running.saving), shown(running.cursor) as show:
            _followed(run_events(running), show)
        return report_of(running)

    return run


def events(
    train: Any, *, only: Iterable[str] = tuple(EVENTS), **options: Unpack[Options]
) -> Callable[[Trainer], Generator[Event, None, None]]:
    """Train as `fit` does, as a stream that yields each event after the hooks have seen it; closing it ends the run.

    `only` names the events to yield; no record is made of one that nobody listens to.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> model = trainer(nn.linear(3, 1), lambda model, x: model(x).mean())
    >>> [event.step for event in events([mx.ones((2, 3))], only=("after_step",))(model)]
    [0]
    """
    asked = plan(train, only, options)

    def stream(target: Trainer) -> Generator[Event, None, None]:
        yield from run_events(started(target, asked))

    return stream


def evaluate(
    test: Any, *, params: Params, compile: bool | Mapping[str, Any] = True, dtype: Any = None, streams: int = 1
) -> Callable[[Trainer], dict[str, float]]:
    """Return the mean loss and the metrics of parameters on data, in evaluation mode: `{"loss": …, "accuracy": …}`.

    Of `splits` it reads the test split. `compile`, `dtype` and `streams` are those of `eval_step`.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> model = nn.linear(3, 1)
    >>> params = {"weight": mx.ones((1, 3)), "bias": mx.zeros((1,))}
    >>> evaluate([mx.ones((2, 3))], params=params)(trainer(model, lambda m, x: m(x).mean()))
    {'loss': 3.0}
    """
    if isinstance(test, Splits):
        if test.test is None:
            raise ValueError("evaluate reads the test split, and these splits have none")
        test = test.test
    data = as_dataset(test)

    def evaluated(target: Trainer) -> dict[str, float]:
        task, totals = target.task, Totals(metrics=target.task.metrics)
        check_given(target.model, params)
        step = eval_step(target.model, task.loss, metrics=task.metrics, compile=compile, dtype=dtype, streams=streams)
        tuned = device_backend().tuned(0, streams)
        with tuned, located(split="test", batch=lambda: totals.batches):
            for _ in validated(step, params, shaped(data, task), totals, kind="test"):
                pass
        return {"loss": totals.means["loss"], **totals.named()}

    return evaluated


def _followed(stream: Generator[Event, None, None], show: Callable[[Event], None]) -> None:
    """Show each event; an error of that ends the run as one of a hook does."""
    for event in stream:
        try:
            show(event)
        except BaseException as error:
            stream.throw(error)
