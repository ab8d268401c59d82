"""Run the trials of a sweep, in turn or together, each with its files in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from ..across._world import ALONE
from ..checkpointing._policy import Policy
from ..core._user_path import user_path
from ..loop._options import Options
from ..loop._report import Report
from ._cases import Case
from ._experiment import Experiment
from ._folders import Folders, identity
from ._run import run
from ._together import Variant, train_together
from ._with_policy import with_policy

__all__ = ["in_turn", "together"]


def in_turn(
    cases: Sequence[Case], variants: Sequence[Experiment], quiet: bool, options: Options
) -> Iterator[Report | Exception]:
    """Run each variant after the one before, and yield its report, or the error that ended it."""
    world = options.get("across", ALONE)
    folders = Folders(world)
    for number, (case, variant) in enumerate(zip(cases, variants, strict=True), 1):
        if not quiet and not world.rank:
            print(f"trial {number}/{len(cases)}: {', '.join(f'{k}={v!r}' for k, v in case.items())}", flush=True)
        yield _outcome(case, variant, folders, number, quiet, options)


def together(
    cases: Sequence[Case], variants: Sequence[Experiment], quiet: bool, options: Options
) -> Iterator[Report | Exception]:
    """Run all variants as members of one compiled step, and yield the report of each, or the error that ended it."""
    if not quiet:
        print(f"{len(cases)} trials train together", flush=True)
    folders = Folders()
    members = [
        Variant(case, *_in_folder(variant, _named(folders, number, variant, case), options))
        for number, (case, variant) in enumerate(zip(cases, variants, strict=True), 1)
    ]
    yield from train_together(members)[1]


def _outcome(
    case: Case, variant: Experiment, folders: Folders, number: int, quiet: bool, options: Options
) -> Report | Exception:
    """Return the report of a trial, or the error that ended it."""
    try:
        target, own_options = _in_folder(variant, _named(folders, number, variant, case), options)
        return run(quiet=quiet, **own_options)(target)
    except Exception as error:
        return error


def _named(folders: Folders, number: int, variant: Experiment, case: Case) -> Callable[[Path], str]:
    """Return `name(root)`, the name of the folder of a trial in the folder of the sweep."""
    return partial(folders.name, number=number, trial_identity=identity(variant, case))


def _in_folder(variant: Experiment, name: Callable[[Path], str], options: Options) -> tuple[Experiment, Options]:
    """Return a trial with its files in a folder of its own. `name(root)` returns the name of that folder in `root`."""
    out = options.get("out")
    if out is not None:
        folder = user_path(out)
        return variant, cast(Options, {**options, "out": folder / name(folder)})

    def in_folder(policy: Policy) -> Policy:
        return policy.inside(name(policy.inside("trial").folder.parent))

    return with_policy(variant, in_folder), options
