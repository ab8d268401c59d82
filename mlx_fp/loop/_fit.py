"""The loop: a run as a lazy stream of events, `fit`, which consumes it, and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar, Unpack

from ..core._errors import located
from ..core._fork import check_process
from ..core._options import FLAG, check_options
from ..core._traceback import ShortTraceback
from ..core._types import Params
from ..core.backend import device_backend
from ..data import Splits, as_dataset
from ..nn._layer import check_given
from ..step._evaluate import eval_step
from ._driving import drive
from ._evaluation import EvaluatedBatch, as_test_data, evaluate_batches
from ._event import Event
from ._event_table import EVENTS
from ._options import Options, documented
from ._plan import checked_options, collated_for, merge_options, plan
from ._progress import progress
from ._report import Report, params_of
from ._signals import graceful_stop
from ._starting import start_run
from ._state import World
from ._summary import report_of
from ._trainer_record import Trainer, checked_trainer

__all__ = ["evaluate", "events", "fit"]

T = TypeVar("T")
R = TypeVar("R")


@documented
def fit(train: Any, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Trainer], Report]:
    """Train for a number of epochs, or of steps, and return a report.

    Progress shows as a bar on a terminal, and as lines elsewhere. Ctrl-C and SIGTERM end the run after the current
    step, with a report. A second signal ends it at once. An exception keeps its class; its notes say where it was
    raised.

    Args:
        train: Training data: a Dataset, a sequence of batches, or `splits`, which may hold validation data too.
        quiet: Whether to show no progress.

    Returns:
        A function from a trainer to a report.

    Raises:
        TypeError: For an unknown option or a value of a wrong type, with candidates.
        ValueError: For a value out of range, or an epoch without batches.

    >>> from mlx_fp import classification, data, nn, optim
    >>> from mlx_fp.loop._trainer import trainer
    >>> x = mx.random.normal((64, 2), key=mx.random.key(0))
    >>> train = pipe(data.arrays(x, (x[:, 0] > 0).astype(mx.int32)), data.shuffle(seed=0), data.batch(16))
    >>> report = pipe(trainer(nn.linear(2, 2), classification()), fit(train, epochs=3, quiet=True))
    >>> len(report.rows), report.rows[-1].steps
    (3, 12)
    """
    check_process()
    check_options("fit", {"quiet": quiet}, {"quiet": FLAG})
    checked_options(options, beside=["quiet"])  # an error now and not when the run starts
    data = train if isinstance(train, Splits) else as_dataset(train)

    def run(target: Trainer) -> Report:
        shown = progress(quiet=quiet)
        asked = plan(data, shown.events, merge_options(checked_trainer(target, "fit").options, options))
        begun, short = start_run(target, asked), ShortTraceback()
        with short, begun as (loop, state, writer), graceful_stop() as signals, shown(loop.plan, state) as show:
            world = World(writer, signals.asked, signals.undisturbed)
            stream = drive(loop, state, world)
            del state  # a frame that holds a state keeps its parameters
            state = _follow(stream, show)  # MLX_FP_TRACEBACK=full shows the frames of the library
        return report_of(loop, state, world)

    return run


@documented
def events(
    train: Any, *, only: Iterable[str] = tuple(EVENTS), **options: Unpack[Options]
) -> Callable[[Trainer], Generator[Event, None, None]]:
    """Train as `fit` does, as a stream of events; closing the stream ends the run.

    Args:
        train: Training data, as for `fit`.
        only: Names of the events to yield, each after the hooks have seen it. No event is made that nobody listens to.

    Returns:
        A function from a trainer to the stream.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> model = trainer(nn.linear(3, 1), lambda model, x: model(x).mean())
    >>> [event.step for event in events([mx.ones((2, 3))], only=("after_step",))(model)]
    [0]
    """
    plan(train, only, {})  # an error now and not when the run starts
    checked_options(options)

    def stream(target: Trainer) -> Generator[Event, None, None]:
        merged_options = merge_options(checked_trainer(target, "events").options, options)
        with ShortTraceback(), start_run(target, plan(train, only, merged_options)) as (loop, state, writer):
            moments = drive(loop, state, World(writer))
            del state
            yield from moments

    return stream


def evaluate(
    test: Any, *, params: Params | Report, compile: bool | Mapping[str, Any] = True, dtype: Any = None, streams: int = 1
) -> Callable[[Trainer], dict[str, float]]:
    """Return the mean loss and the metrics of parameters on data, in evaluation mode: `{"loss": …, "accuracy": …}`.

    Of `splits` it reads the test split, and of a report its parameters. `compile`, `dtype` and `streams` are those of
    `eval_step`.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> model = nn.linear(3, 1)
    >>> params = {"weight": mx.ones((1, 3)), "bias": mx.zeros((1,))}
    >>> evaluate([mx.ones((2, 3))], params=params)(trainer(model, lambda m, x: m(x).mean()))
    {'loss': 3.0}
    """
    data = as_test_data(test, "evaluate")
    given = params_of(params)

    def evaluated_on(target: Trainer) -> dict[str, float]:
        task = checked_trainer(target, "evaluate").task
        check_given(target.model, given)
        step = eval_step(target.model, task.loss, metrics=task.metrics, compile=compile, dtype=dtype, streams=streams)
        tuned = device_backend().tuned(0, streams)
        batches = 0

        def count(part: EvaluatedBatch) -> None:
            nonlocal batches
            batches = part.number + 1

        with ShortTraceback(), tuned, located(split="test", batch=lambda: batches):
            means = _follow(evaluate_batches(step, given, collated_for(data, task), kind="test"), count)
        return {"loss": means.figures["loss"], **means.named()}

    return evaluated_on


def _follow(parts: Generator[T, None, R], each: Callable[[T], None]) -> R:
    """Run a generator to its end, hand each of its values to `each`, and return its result.

    An error of `each` is raised in the generator.
    """
    while True:
        try:
            part = next(parts)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        try:
            each(part)
        except BaseException as error:
            parts.throw(error)
        del part  # an event holds the parameters of its moment
