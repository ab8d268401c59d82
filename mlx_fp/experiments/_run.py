"""Train an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack, cast

from ..across._world import ALONE
from ..checkpointing._policy import Policy
from ..checkpointing._run_folder import policy_in
from ..core._errors import noted_on
from ..core._user_path import user_path
from ..loop._fit import fit
from ..loop._options import Options, documented
from ..loop._plan import merge_options
from ..loop._report import Report
from ..store._bundle import add_settings
from ._experiment import Experiment, settings

__all__ = ["run", "version_of"]


@documented
def run(*, quiet: bool = False, **options: Unpack[Options]) -> Callable[[Experiment], Report]:
    """Train an experiment for its epochs or steps, from its seed, and return a report.

    An option in this call takes precedence over the value in the experiment. For example, `run(epochs=3)` trains for
    three epochs. The bundle of the run, if it writes one, has the settings of the experiment.

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
        defaults: Options = {"seed": target.seed}
        if not {"epochs", "steps"} & options.keys():
            defaults |= {"steps": target.steps} if target.steps is not None else {"epochs": target.epochs}
        trainer, given = target.trainer, cast(Options, {**defaults, **options})
        with _settings_added(target, merge_options(trainer.options, given), trainer.policy):
            return fit(target.splits, quiet=quiet, **given)(trainer)

    return train


@contextmanager
def _settings_added(target: Experiment, options: Mapping[str, Any], policy: Policy | None) -> Iterator[None]:
    """Within, a run of the experiment writes its bundle, if it has one. At the end the bundle gets the settings."""
    out, world = options.get("out"), options.get("across", ALONE)
    policy = policy if out is None else policy_in(user_path(out), policy)
    file = None if policy is None or world.rank else policy.bundle_path
    before = version_of(file)

    def add() -> None:
        if file is not None and version_of(file) != before:
            add_settings(file, settings(target))

    try:
        yield
    except BaseException as error:  # such a run has a bundle, too
        with noted_on(error, "the bundle has no settings"):
            add()
        raise
    add()


def version_of(file: Path | None) -> tuple[int, int] | None:
    """Return numbers that change when a file is written anew; None where there is no file.

    >>> version_of(Path("no such file")) is None
    True
    """
    if file is None or not file.exists():
        return None
    status = file.stat()
    return status.st_ino, status.st_mtime_ns
