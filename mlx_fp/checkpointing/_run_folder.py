"""The folder of a run, `fit(out=…)`: beside the checkpoints it has the logged steps, the run bundle and the page."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core._errors import named_error
from ..core._files import write_whole
from ..store._steps_file import StepsFile, read_steps
from ._policy import BUNDLE, Policy

__all__ = ["PAGE", "STEPS", "RunFolder", "policy_in", "with_all_steps"]

STEPS = "steps.jsonl"
"""The name of the file of the logged steps."""

PAGE = "report.html"
"""The name of the file of the report page."""

_LOG = logging.getLogger("mlx_fp.loop")


class RunFolder:
    """Write the files of a run folder that are no checkpoints. The writer of the checkpoints has the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = StepsFile(path / STEPS)

    def begin(self, *, resumes: bool) -> None:
        """Begin a run at its first step. An earlier run in the folder raises FileExistsError.

        With `resumes`, the run was to continue from a checkpoint, and there is none: the rows of an earlier run go.
        """
        if not resumes:
            self._refuse_earlier_run()
        self.steps.open(0)

    def continue_from(self, checkpoint: Path | None, step: int) -> None:
        """Continue a run after a step. Later rows go.

        An earlier run in the folder raises FileExistsError if the checkpoint is no file of this folder.
        """
        if checkpoint is None or not _is_within(checkpoint, self.path):
            self._refuse_earlier_run()
        self.steps.open(step)

    def log(self, row: Callable[[], Mapping[str, object]]) -> None:
        """Write the row of a logged step, which a function returns."""
        self.steps.append(row)

    def write_page(self, bundle: Mapping[str, Any]) -> None:
        """Write the report page of a run, with all logged steps of the folder. A failure is logged.

        `bundle` has the values of `fp.bundle(report)`, with the logged steps of this process only.
        """
        self.steps.flush()
        try:
            from ..page._page import page  # a late import: a run without a folder writes no page

            write_whole(self.path / PAGE, page([with_all_steps(bundle, self.path)]).encode())
        except Exception as error:  # a run must not lose its report because of its page
            _LOG.warning("the page of the run, %s, could not be written: %s", self.path / PAGE, named_error(error))

    def close(self) -> None:
        """Close the files."""
        self.steps.close()

    def _refuse_earlier_run(self) -> None:
        """Raise FileExistsError where the folder has files of a run."""
        for name in (BUNDLE, STEPS):
            file = self.path / name
            if file.exists() and file.stat().st_size:
                remedy = 'resume="latest" continues that run; a new run needs another folder'
                raise FileExistsError(errno.EEXIST, f"the folder has a run already: {remedy}", os.fspath(self.path))


def policy_in(folder: Path | None, policy: Policy | None) -> Policy | None:
    """Return the policy of a run in a folder: the given policy with its files in this folder, and with a bundle.

    Without a policy the last two states and the best one stay. Without a folder the policy stays as it is. A path
    function raises ValueError.

    >>> policy_in(Path("a"), Policy("runs/{monitor_name}/ep-{epoch}")).path
    'a/{monitor_name}/ep-{epoch}'
    >>> policy_in(Path("a"), None).path
    'a/step-{step}'
    """
    if folder is None:
        return policy
    literal = os.fspath(folder).replace("{", "{{").replace("}", "}}")  # a brace in the name of the folder is no field
    if policy is None:
        return Policy(str(Path(literal, "step-{step}")), best=True, keep_last=2, bundle=True)
    if not isinstance(policy.path, str):
        raise ValueError(f"out={os.fspath(folder)!r} moves the checkpoints there: give a template, not a function")
    inner = Path(policy.path).parts[len(policy.folder.parts) :]
    return replace(policy, path=str(Path(literal, *inner)), bundle=True)


def with_all_steps(bundle: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the bundle of a run with all logged steps of its folder. A report has those of its last start only."""
    return {**bundle, "report": {**bundle["report"], "steps": read_steps(folder / STEPS)}}


def _is_within(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
