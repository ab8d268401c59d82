"""Draw the curves of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..core._files import create_new, write_whole
from ..core._user_path import user_path
from ..loop._report import Report
from ..loop._rows import scalars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

Point = tuple[int, float | None]
"""An epoch or a step, and the value of a figure there, if there is one."""


def curves(report: Report, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw the losses and the metrics of a report, and write the picture to a file.

    The horizontal axis counts epochs. It counts steps where the run logged steps, or validated within epochs.

    Args:
        report: The report of a run of at least one epoch, or of a part of an epoch.
        path: The file to write. Its suffix gives the format, for example `.png` or `.svg`; the default is `.png`. A
            leading `~` is the home folder of the user.
        title: The text above the picture; none by default.

    Returns:
        The path of the file.

    Raises:
        ImportError: matplotlib is missing. The error names the extra to install.
        ValueError: The report has no epochs.
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
    image_format = target.suffix.removeprefix(".")
    return write_whole(target, lambda path: _write_image(figure, path, image_format))


def _write_image(figure: Figure, path: Path, image_format: str) -> None:
    with create_new(path) as file:
        figure.savefig(file, dpi=120, format=image_format)


def _counts_steps(report: Report) -> bool:
    """Tell whether a run has figures between the ends of epochs."""
    epoch_ends = {row.steps for row in report.rows}
    return bool(report.steps) or any(evaluation.step not in epoch_ends for evaluation in report.evaluations)


def _over_epochs(report: Report) -> tuple[dict[str, list[Point]], dict[str, list[Point]], str]:
    """Return the losses, the metrics and the unit of the horizontal axis, with one point for each epoch."""
    rows = report.rows
    losses: dict[str, list[Point]] = {
        "train": [(row.epoch, row.epoch_loss) for row in rows],
        "validation": [(row.epoch, row.val_loss) for row in rows],
    }
    return losses, _by_name((row.epoch, scalars(row.named())) for row in rows), "epoch"


def _over_steps(report: Report) -> tuple[dict[str, list[Point]], dict[str, list[Point]], str]:
    """Return the losses, the metrics and the unit of the horizontal axis, with points at steps."""
    evaluations = report.evaluations
    train: list[Point] = [(row.step, row.loss) for row in report.steps]
    losses: dict[str, list[Point]] = {
        "train": train or [(row.steps, row.epoch_loss) for row in report.rows],
        "validation": [(evaluation.step, evaluation.val_loss) for evaluation in evaluations],
    }
    metrics = _by_name((row.steps, scalars(row.metrics)) for row in report.rows)
    val_metrics = _by_name((evaluation.step, scalars(evaluation.named())) for evaluation in evaluations)
    return losses, metrics | val_metrics, "step"


def _by_name(rows: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, list[Point]]:
    """Return the points of each figure by its name."""
    points: dict[str, list[Point]] = {}
    for position, figures in rows:
        for name, value in figures.items():
            points.setdefault(name, []).append((position, value))
    return points


def _figure(metrics: bool) -> tuple[Figure, list[Axes]]:
    """Make an empty picture with one pair of axes for the losses and, with `metrics`, a second pair."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mlx-fp[show]'") from error
    figure = Figure(figsize=(10 if metrics else 5, 4), layout="constrained")
    return figure, list(figure.subplots(1, 2 if metrics else 1, squeeze=False)[0])


def _draw(axes: Axes, unit: str, name: str, points: list[Point]) -> None:
    """Draw a line through the points that have a value. A partial epoch may have no validation loss."""
    complete = [(position, value) for position, value in points if value is not None]
    if complete:
        axes.plot(*zip(*complete, strict=True), marker="." if len(complete) < 50 else "", label=name)
    axes.set_xlabel(unit)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # the type of a locator lacks its options
    axes.grid(alpha=0.3)
    axes.legend()
