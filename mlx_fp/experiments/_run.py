"""Train an experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack, cast

from ..data import Splits
from ..loop._fit import fit
from ..loop._options import Options, documented
from ..loop._report import Report
from ._experiment import Experiment

__all__ = ["options_of_run", "run", "run_on"]


@documented
def run(*, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], Report]:
    """Train an experiment for its epochs or steps, from its seed, and return a report.

    An option in this call takes precedence over the value in the experiment. For example, `run(epochs=3)` trains for
    three epochs.

    Args:
        quiet: Whether to show no progress; False by default.

    Returns:
        A function from an experiment to a report.

    Raises:
        TypeError: The argument of the function is not an experiment, or an option is unknown.

    >>> from mlx_fp import data, nn, regression
    >>> from mlx_fp.experiments._experiment import experiment
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), data=[(x, x.sum(axis=1))] * 9)
    >>> run(epochs=3, quiet=True)(plain).rows[-1].steps
    27
    """

    def train(target: Experiment) -> Report:
        if not isinstance(target, Experiment):
            raise TypeError(
                f"run takes an experiment; got {type(target).__name__}: fit(data)(trainer) trains a trainer"
            )
        return run_on(target, target.splits, quiet, options)

    return train


def run_on(target: Experiment, splits: Splits, quiet: bool, options: Options) -> Report:
    """Train an experiment on data, with its own seed and length where the options have none."""
    return fit(splits, quiet=quiet, **options_of_run(target, options))(target.trainer)


def options_of_run(target: Experiment, options: Options) -> Options:
    """Return the options of a run of an experiment, with its seed and its length where `options` have none."""
    defaults: Options = {"seed": target.seed}
    if not {"epochs", "steps"} & options.keys():
        defaults |= {"steps": target.steps} if target.steps is not None else {"epochs": target.epochs}
    return cast(Options, {**defaults, **options})
