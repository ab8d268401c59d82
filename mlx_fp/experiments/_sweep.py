"""Train one experiment under several settings, and compare the reports in one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Unpack, cast

from ..across._errors import is_lost
from ..loop._options import Options, documented
from ..loop._plan import plan
from ..loop._signals import SIGNALS
from ._cases import Grid, cases_of, check_grid
from ._experiment import Experiment, override
from ._found import Sweep, Trial, is_better
from ._run import options_of_run
from ._together import check_together
from ._trials import in_turn
from ._trials import together as trials_together
from ._with_policy import with_policy

__all__ = ["Sweep", "Trial", "sweep"]

_INTERRUPTS = {number.name for number in SIGNALS}
"""The stop reasons of a run that Ctrl-C or SIGTERM has ended."""


@documented
def sweep(
    grid: Grid, *, samples: int | None = None, together: bool = False, quiet: bool = False, **options: Unpack[Options]
) -> Callable[[Experiment], Sweep]:
    """Run an experiment for each combination of settings, for listed settings, or for random ones.

    Before the first run, every variant is built, so an unknown path or an invalid value is an error at once. Each trial
    has a folder for its files, `trial-1`, `trial-2` and so on, with its settings in a file. With `out` the folders are
    in that folder. A sweep of another grid finds the folder of a trial by these settings, and makes a new folder where
    there is none. Ctrl-C and SIGTERM end the sweep after the current step, with the trials so far. A trial whose loss
    is not finite stops and does not end the sweep. With `out` and `resume="latest"` the trials in the folder that are
    complete do not train again.

    Args:
        grid: Values by path, for example `{"optimizer.learning_rate": [0.1, 0.01]}`; see `override` for paths. Or a
            list with the settings of each trial, where a path that is missing has the value of the experiment.
        samples: The number of trials of a random sweep. Each trial draws a value for each path, from a list,
            `choices(…)`, `uniform(low, high)` or `log_uniform(low, high)`, by the option `seed`, 0 by default. None,
            the default, runs every combination.
        together: Whether the trials train as members of one compiled step, which is faster for small models; see
            `members`. Their settings are then numbers of the optimiser and seeds. The reports are those of trials that
            train in turn, to rounding. False by default.
        quiet: Whether to show no progress; False by default.

    Returns:
        A function from an experiment to a `Sweep`.

    Raises:
        TypeError: `grid` is neither a dict nor a list of dicts, or an option is unknown.
        ValueError: `samples` is no count, or is missing where values are drawn. With `together`: a setting or an option
            that trials cannot share, or a model that MLX cannot compute for several members.
        KeyError: The experiment has no setting with a path of `grid`; the message has candidates.

    >>> from functools import partial
    >>> from mlx_fp import nn, optim
    >>> from mlx_fp.experiments._experiment import experiment
    >>> from mlx_fp.task._task import regression
    >>> x = mx.random.normal((64, 3), key=mx.random.key(0))
    >>> batches, optimizer = [(x, x.sum(axis=1))] * 9, partial(optim.sgd, 0.1)
    >>> plain = experiment("sums", model=nn.linear(3, 1), task=regression(), optimizer=optimizer, data=batches)
    >>> result = sweep({"optimizer.learning_rate": [0.001, 0.1]}, quiet=True)(plain)
    >>> result.best.settings
    {'optimizer.learning_rate': 0.1}
    """
    check_grid(grid, samples)

    def run_trials(target: Experiment) -> Sweep:
        run_options = cast(Options, {"nonfinite": "stop", **options})
        cases = cases_of(target, grid, samples, _seed_of(run_options, samples))
        if samples is not None and "seed" in grid:
            run_options.pop("seed", None)
        variants = [override(case)(target) for case in cases]
        for variant in variants:
            _ = with_policy(variant, lambda policy: policy.inside("trial")).trainer
            plan(variant.splits, (), options_of_run(variant, run_options))
        if together:
            check_together(cases, run_options)
        run_all = trials_together if together else in_turn
        outcomes = run_all(cases, variants, quiet, run_options)
        trials: list[Trial] = []
        best: Trial | None = None
        for number, case in enumerate(cases, 1):
            try:
                outcome = next(outcomes)
            except KeyboardInterrupt:  # raised outside the run, for example while the trial was built
                if not trials:
                    raise
                break
            if isinstance(outcome, Exception):
                if not trials or is_lost(outcome):
                    raise outcome
                trials.append(_failed_trial(case, outcome, number))
            else:
                best = Trial(case, outcome) if best is None or is_better(outcome, best.report) else best
                trials.append(Trial(case, replace(outcome, params={}, opt_state={})))
                if outcome.stop_reason in _INTERRUPTS and not together:
                    break
            del outcome  # otherwise this frame keeps the parameters of the trial, or its traceback
        return Sweep(target.name, tuple(trials), best)

    return run_trials


def _seed_of(options: Options, samples: int | None) -> int:
    """Return the seed of the draws of a random sweep."""
    seed = options.get("seed", 0)
    if samples is not None and not isinstance(seed, int):
        raise TypeError(f"the seed of a random sweep is an int; got {type(seed).__name__}")
    return seed if isinstance(seed, int) else 0


def _failed_trial(case: Mapping[str, object], error: Exception, number: int) -> Trial:
    """Return a trial with the text of an error; the error itself would keep the trial's parameters in its traceback."""
    message = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    warnings.warn(f"trial {number} ended with {message}", RuntimeWarning, stacklevel=3)
    return Trial(case, None, message)
