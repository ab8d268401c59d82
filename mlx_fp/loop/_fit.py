"""`events`, a run as a lazy stream of events; `fit`, which reads such a stream to its end; and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack

from ..across._world import ALONE, World
from ..core._errors import located
from ..core._fork import check_process
from ..core._options import FLAG, check_options
from ..core._traceback import ShortTraceback
from ..core._types import Params
from ..data import Splits, as_dataset
from ..nn._given import check_given
from ..step._evaluate import eval_step
from ..task._task import check_uncut
from ._driving import drive
from ._evaluation import EvaluatedBatch, as_test_data, evaluate_batches
from ._evaluation_link import EvaluationLink
from ._event import Event
from ._event_table import EVENTS
from ._link import Alone, Link
from ._options import Options, documented
from ._plan import checked_options, collated_for, merge_options, plan
from ._progress import progress
from ._report import Report, params_of
from ._signals import graceful_stop
from ._starting import link_of, start_run
from ._state import Ports
from ._summary import report_of
from ._trainer_record import Trainer, checked_trainer

__all__ = ["evaluate", "events", "fit"]

T = TypeVar("T")
R = TypeVar("R")


@documented
def fit(train: object, *, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Trainer], Report]:
    """Train for a number of epochs or steps, and return a report.

    Progress is shown as a bar on a terminal, and as lines elsewhere. Epochs count from 0. Ctrl-C and SIGTERM end the
    run after the present step, with a report. A second signal ends it at once. An exception keeps its class. Its notes
    name the place: split, epoch, batch and stage.

    Args:
        train: Training data: a Dataset, a sequence of batches, or `splits`, which may have validation data too.
        quiet: Whether to hide progress.

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
        merged_options = merge_options(checked_trainer(target, "fit").options, options)
        shown = progress(quiet=quiet or bool(merged_options.get("across", ALONE).rank))
        planned = plan(data, shown.events, merged_options)
        started, short = start_run(target, planned), ShortTraceback()
        with (
            short,
            started as (loop, state, writer),
            graceful_stop(alone=planned.across.size == 1) as signals,
            shown(loop, state, writer) as show,
        ):
            link = link_of(loop, state, signals.asked)
            ports = Ports(writer, link, undisturbed=signals.undisturbed, watch=show.watch)
            stream = drive(loop, state, ports)
            del state  # otherwise this frame keeps the first parameters alive
            state = _follow(stream, show)  # MLX_FP_TRACEBACK=full shows the frames of the library
        return report_of(loop, state, ports)

    return run


@documented
def events(
    train: object, *, only: Iterable[str] = tuple(EVENTS), **options: Unpack[Options]
) -> Callable[[Trainer], Generator[Event, None, None]]:
    """Train as `fit` does, as a lazy stream of events.

    Nothing runs before the next event is requested. Closing the stream ends the run. Signals are unchanged.

    Args:
        train: Training data, as for `fit`.
        only: Names of the events to yield, for example `("after_step",)`. Hooks see an event before it is yielded. An
            event without listeners is not made. Default: all events.

    Returns:
        A function from a trainer to the stream.

    Raises:
        TypeError: For an unknown option or a value of a wrong type, with candidates.
        ValueError: For an unknown event, or a value out of range.

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
            moments = drive(loop, state, Ports(writer, link_of(loop, state)))
            del state
            yield from moments

    return stream


def evaluate(
    test: object,
    *,
    params: Params | Report,
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
    streams: int = 1,
    across: World = ALONE,
) -> Callable[[Trainer], dict[str, float]]:
    """Return the mean loss and the metrics of parameters on data, in evaluation mode.

    Args:
        test: A Dataset or a sequence of batches. Of `splits` the test split is read.
        params: The parameters, or a report, whose last parameters are taken.
        compile: Whether to compile the step, or a dict of options of `mx.compile`.
        dtype: Dtype in which the model computes, for example `mx.bfloat16`. None: that of the parameters.
        streams: Parts of a batch that are computed side by side.
        across: The processes that share each batch, `fp.world()`. All of them get the same figures.

    Returns:
        A function from a trainer to a dict of figures, for example `{"loss": 0.1, "accuracy": 0.9}`.

    Raises:
        ValueError: There is no batch, the splits have no test split, or the parameters are not those of the model.

    >>> from mlx_fp import nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> model = nn.linear(3, 1)
    >>> params = {"weight": mx.ones((1, 3)), "bias": mx.zeros((1,))}
    >>> evaluate([mx.ones((2, 3))], params=params)(trainer(model, lambda m, x: m(x).mean()))
    {'loss': 3.0}
    """
    data = as_test_data(test, "evaluate")
    weights = params_of(params)

    def evaluated_on(target: Trainer) -> dict[str, float]:
        task = checked_trainer(target, "evaluate").task
        check_given(target.model, weights)
        check_uncut(task, streams=streams, processes=across.size)
        step = eval_step(target.model, task.loss, metrics=task.metrics, compile=compile, dtype=dtype, streams=streams)
        batches, link = 0, Alone() if across.size == 1 else EvaluationLink(across)

        def count(part: EvaluatedBatch) -> None:
            nonlocal batches
            batches = part.number + 1

        with ShortTraceback(), _telling(link), located(split="test", batch=lambda: batches):
            means = _follow(evaluate_batches(step, weights, collated_for(data, task), kind="test", link=link), count)
        return {"loss": means.figures["loss"], **means.named()}

    return evaluated_on


@contextmanager
def _telling(link: Link) -> Iterator[None]:
    """Within, other processes are told of an error."""
    try:
        yield
    except Exception as error:
        link.leave(error)
        raise


def _follow(parts: Generator[T, None, R], each: Callable[[T], None]) -> R:
    """Run a generator to its end, call `each` with each of its values, and return its result.

    An error of `each` is raised in the generator.
    """
    while True:
        try:
            part = next(parts)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # the value of StopIteration is not typed
        try:
            each(part)
        except BaseException as error:
            parts.throw(error)
        del part  # otherwise this frame keeps the parameters of the event alive
