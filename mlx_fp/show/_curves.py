"""Curves of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core._user_path import user_path
from ..loop._report import Report
from ..loop._rows import scalars
from ..store._files import create_new, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

Point = tuple[int, float | None]


def curves(report: Report, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw the losses, and the metrics, of a report; write a picture and return its path.

    They stand over epochs; over steps where the run logged steps or validated within epochs.

    Args:
        report: of a run with one epoch or more, or a part of one.
        path: the file; its suffix gives the format, and a path without one gets `.png`. `~` is the home of the user.
        title: stands above the picture.

    Raises:
        ImportError: matplotlib is missing; the error names the extra.
        ValueError: the report has no epochs.
    """
    if not report.rows:
        raise ValueError("a report without epochs has no curves")
    losses, metrics, unit = _over_steps(report) if _counts_steps(report) else _over_epochs(report)
    figure, axes = _figure(bool(metrics))
    for name, points in losses.items():
        _draw(axes[0], unit, name, points)
    axes[0].set_ylabel("loss")
    for name, points in metrics.items():
        _draw(axes[-1], unit, name, points)
    figure.suptitle(title)
    target = user_path(path)
    target = target if target.suffix else target.with_name(target.name + ".png")
    kind = target.suffix.removeprefix(".")
    return write_whole(target, lambda new: _drawn(figure, new, kind))


def _drawn(figure: Figure, new: Path, kind: str) -> None:
    with create_new(new) as file:
        figure.savefig(file, dpi=120, format=kind)


def _counts_steps(report: Report) -> bool:
    ends = {row.steps for row in report.rows}
    return bool(report.steps) or any(each.step not in ends for each in report.evaluations)


def _over_epochs(report: Report) -> tuple[dict[str, list[Point]], dict[str, list[Point]], str]:
    rows = report.rows
    losses: dict[str, list[Point]] = {
        "train": [(row.epoch, row.epoch_loss) for row in rows],
        "validation": [(row.epoch, row.val_loss) for row in rows],
    }
    return losses, _by_name((row.epoch, scalars(row.named())) for row in rows), "epoch"


def _over_steps(report: Report) -> tuple[dict[str, list[Point]], dict[str, list[Point]], str]:
    evaluations = report.evaluations
    train: list[Point] = [(row.step, row.loss) for row in report.steps]
    losses: dict[str, list[Point]] = {
        "train": train or [(row.steps, row.epoch_loss) for row in report.rows],
        "validation": [(each.step, each.val_loss) for each in evaluations],
    }
    metrics = _by_name((row.steps, scalars(row.metrics)) for row in report.rows)
    return losses, metrics | _by_name((each.step, scalars(each.named())) for each in evaluations), "step"


def _by_name(rows: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, list[Point]]:
    """Return the points of each figure by its name."""
    points: dict[str, list[Point]] = {}
    for place, figures in rows:
        for name, value in figures.items():
            points.setdefault(name, []).append((place, value))
    return points


def _figure(metrics: bool) -> tuple[Any, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mlx-fp[show]'") from error
    figure = Figure(figsize=(10 if metrics else 5, 4), layout="constrained")
    return figure, list(figure.subplots(1, 2 if metrics else 1, squeeze=False)[0])


def _draw(axes: Axes, unit: str, name: str, points: list[Point]) -> None:
    """Draw a line where there are values: an epoch that was cut may have none of validation."""
    there = [(place, value) for place, value in points if value is not None]
    if there:
        axes.plot(*zip(*there, strict=True), marker="." if len(there) < 50 else "", label=name)
    axes.set_xlabel(unit)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.grid(alpha=0.3)
    axes.legend()
