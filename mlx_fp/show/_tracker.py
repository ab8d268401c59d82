"""The protocol of trackers: start, log, artifact, finish."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..core._frozen import FrozenDict, freeze_field

__all__ = ["TrackedRun", "Tracker", "flat_settings", "readable_time"]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The start of a run, for `Tracker.start`."""

    id: Any = None
    """The result of `start` in the process that began the run, from the checkpoint. None: the run is new."""
    name: str = "run"
    """The name of the run: the time at which it began."""
    step: int = 0
    """The number of steps before this start; 0 for a new run."""
    folder: str | None = None
    """The folder of the checkpoints; None without checkpoints."""
    settings: Mapping[str, object] = field(default_factory=FrozenDict)
    """The settings of the run as numbers, texts and flags by name, for example `settings["epochs"]`."""

    def __post_init__(self) -> None:
        freeze_field(self, "settings")

    @property
    def place(self) -> Path:
        """The folder for files of the run: that of its checkpoints, or else `runs/NAME`."""
        return Path("runs", self.name) if self.folder is None else Path(self.folder)


@runtime_checkable
class Tracker(Protocol):
    """A tracker of figures: an object with these four methods, for `track`.

    A run calls `start` once, then `log` and `artifact`, and `finish` at its end, also after an error. A method that
    raises an exception does not end the run.

    >>> class Lines:
    ...     def start(self, run):
    ...         print("run", run.settings["optimizer"])
    ...
    ...     def log(self, step, figures):
    ...         print(step, sorted(figures))
    ...
    ...     def artifact(self, path):
    ...         print("file", path)
    ...
    ...     def finish(self, reason):
    ...         print("end", reason)
    >>> from mlx_fp import fit, nn, show, trainer
    >>> tracked = pipe(trainer(nn.linear(3, 1), lambda m, x: m(x).mean()), show.track(Lines()))
    >>> report = fit([mx.ones((2, 3))], quiet=True)(tracked)
    run adamw(learning_rate=0.001)
    1 ['epoch', 'epoch_examples_per_second', 'epoch_loss', 'epoch_seconds']
    end None
    """

    def start(self, run: TrackedRun, /) -> object:
        """Open the tracker for a run.

        Args:
            run: The run: `id` is the earlier result of `start` for a resumed run, and None for a new one. `name`,
                `step`, the steps before this start, `folder` and `settings` describe the run.

        Returns:
            The identity of the run in the tracker, a plain value. Checkpoints keep it.
        """

    def log(self, step: int, figures: Mapping[str, float], /) -> object:
        """Log figures by name after a number of steps. A step may have several calls, with other figures each."""

    def artifact(self, path: str, /) -> object:
        """Keep a file of the run: a checkpoint or the bundle."""

    def finish(self, reason: str | BaseException | None, /) -> object:
        """Close the tracker.

        Args:
            reason: None after all epochs or steps; the reason of an early stop; or the exception that ended the run.
        """


def readable_time(run: str) -> str:
    """Return the name of a run, which counts nanoseconds, as a time in UTC. Other names are unchanged.

    >>> readable_time("1700000000123456789"), readable_time("mine")
    ('20231114-221320-123456', 'mine')
    """
    if not run.isdigit():
        return run
    seconds, rest = divmod(int(run), 10**9)
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds)) + f"-{rest // 1000:06d}"


def flat_settings(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return settings as numbers, texts and flags by dotted names. Settings that are None or empty are left out.

    >>> flat_settings({"model": "mlp", "options": {"epochs": 3, "steps": None}, "rates": {"lr": 0.1}, "sizes": [1, 2]})
    {'model': 'mlp', 'options.epochs': 3, 'rates.lr': 0.1, 'sizes': '[1, 2]'}
    """
    flat: dict[str, object] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}".removesuffix(".")  # a single validation set has the name ""
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{path}.")
        elif isinstance(value, (bool, int, float, str)):
            flat[path] = value
        elif value is not None and value not in ((), []):
            flat[path] = str(value)
    return flat
