"""The runs of a page: their plain values under one shape, and the names that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..core._frozen import FrozenDict, freeze_field
from ._words import as_number, plain, setting_text

__all__ = ["NAMING", "Run", "differing", "ranked", "runs_of"]

_LONGEST_NAME = 60

NAMING = 3
"""The largest number of settings that are in the name of a run."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a page, as plain values."""

    name: str
    """The name among the runs of the page, for example `1 · learning_rate=0.1`."""
    report: Mapping[str, Any]
    settings: Mapping[str, object]
    """The settings of the experiment by path, the data, the optimiser, and the options of the run."""
    changed: frozenset[str]
    """The names of the settings that differ from their defaults."""
    environment: Mapping[str, object]
    user: Mapping[str, object]
    checkpoint: Mapping[str, object]
    """The path and the SHA-256 of the checkpoint of the bundle, if it has one."""

    def __post_init__(self) -> None:
        freeze_field(self, "report", "settings", "environment", "user", "checkpoint")

    @property
    def best(self) -> float | None:
        """The best value of the monitor."""
        return as_number(self.report.get("best_value"))

    def listed(self, name: str) -> list[Mapping[str, Any]]:
        """Return a list of the report: "rows", "evaluations" or "steps"."""
        return [row for row in self.report.get(name) or () if isinstance(row, Mapping)]


def runs_of(bundles: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Return the runs of bundles, or of the dicts of reports, with names where there are several.

    Raises:
        ValueError: There is no run.

    >>> [run.name for run in runs_of([{"rows": []}, {"rows": []}])]
    ['run 1', 'run 2']
    """
    if not bundles:
        raise ValueError("a page needs one run or more; got none")
    runs = [_run_of(bundle) for bundle in bundles]
    if len(runs) == 1:
        return runs
    folders = [PurePath(str(bundle.get("folder") or "")).name for bundle in bundles]
    return [_renamed(run, name) for run, name in zip(runs, _names(runs, folders), strict=True)]


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the names of the settings that are not the same in all runs.

    >>> differing(runs_of([{"report": {}, "settings": {"rate": rate, "seed": 0}} for rate in (0.1, 0.2)]))
    ['rate']
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    missing = object()
    return [
        name
        for name in names
        if any(run.settings.get(name, missing) != runs[0].settings.get(name, missing) for run in runs)
    ]


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, the best value of the monitor first; runs with another monitor or without a value are last."""
    name, best_first = runs[0].report.get("monitor_name"), runs[0].report.get("monitor_mode") == "max"

    def key(run: Run) -> tuple[bool, float]:
        value = run.best
        lacks = value is None or value != value or run.report.get("monitor_name") != name
        return lacks, 0.0 if lacks or value is None else -value if best_first else value

    return sorted(runs, key=key)


def _run_of(bundle: Mapping[str, Any]) -> Run:
    report = bundle["report"] if isinstance(bundle.get("report"), Mapping) else bundle
    setup: Mapping[str, Any] = report.get("setup") or {}
    told = {name: setup[name] for name in ("optimizer", "train") if setup.get(name) is not None}
    validation = setup.get("validation") or {}
    told |= {f"validation {name}".strip(): data for name, data in validation.items()}
    told |= {name: setup[name] for name in ("monitor_metric", "min_delta") if setup.get(name)}
    changed = frozenset(setup.get("changed") or ())
    options = dict(sorted((setup.get("options") or {}).items(), key=lambda item: item[0] not in changed))
    policy = {f"checkpoints.{name}": value for name, value in (report.get("policy") or {}).items() if value is not None}
    return Run(
        name="",
        report=FrozenDict(report),
        settings=FrozenDict({**(bundle.get("settings") or {}), **told, **options, **policy}),
        changed=changed,
        environment=FrozenDict(bundle.get("environment") or {}),
        user=FrozenDict(bundle.get("user") or {}),
        checkpoint=FrozenDict(bundle.get("checkpoint") or {}),
    )


def _renamed(run: Run, name: str) -> Run:
    return Run(name, run.report, run.settings, run.changed, run.environment, run.user, run.checkpoint)


def _names(runs: Sequence[Run], folders: Sequence[str]) -> list[str]:
    """Return names that tell runs apart: by a few settings, else by the folders, else by numbers."""
    told = [name for name in differing(runs) if not name.startswith("checkpoints.")]
    if told and len(told) <= NAMING:
        heads = _short_names(told)
        texts = [
            " ".join(f"{head}={setting_text(run.settings.get(name))}" for name, head in zip(told, heads, strict=True))
            for run in runs
        ]
        return [_cut(f"{number} · {text}") for number, text in enumerate(texts, 1)]
    if all(folders) and len(set(folders)) == len(folders):
        return [_cut(folder) for folder in folders]
    return [f"run {number}" for number in range(1, len(runs) + 1)]


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or the paths where two of these parts are equal."""
    last = [path.rpartition(".")[2] for path in paths]
    return last if len(set(last)) == len(last) else list(paths)


def _cut(name: str) -> str:
    text = plain(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
