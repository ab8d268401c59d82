"""Train an experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from ..loop._fit import fit
from ..loop._options import Options, documented
from ..loop._report import Report
from ._experiment import Experiment

__all__ = ["run"]


@documented
def run(*, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], Report]:
    """Train an experiment for its epochs or steps, from its seed, and report.

    An option that is given takes the place of that of the experiment.

    Args:
        quiet: Whether to show no progress.

    Returns:
        A function from an experiment to a report.

    >>> from mlx_fp import data, nn, regression
    >>> from mlx_fp.experiments._experiment import experiment
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), data=[(x, x.sum(axis=1))] * 9)
    >>> run(epochs=3, quiet=True)(plain).rows[-1].steps
    27
    """

    def ran(target: Experiment) -> Report:
        if not isinstance(target, Experiment):
            raise TypeError(
                f"run takes an experiment; got {type(target).__name__}: fit(data)(trainer) trains a trainer"
            )
        own = {"steps": target.steps} if target.steps is not None else {"epochs": target.epochs}
        length = {} if {"epochs", "steps"} & options.keys() else own
        given: Any = {**length, "seed": target.seed, **options}
        return fit(target.splits, quiet=quiet, **given)(target.trainer)

    return ran
