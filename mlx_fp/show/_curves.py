"""Curves of a run as a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolz import merge

from ..loop._report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves"]


def curves(report: Report, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draw the losses, and the metrics, of a report over its epochs; write a picture and return where it is.

    The ending of `path` says the format. ImportError naming the extra where matplotlib is missing; ValueError for a
    report without epochs.
    """
    if not report.rows:
        raise ValueError("a report without epochs has no curves")
    named = [row.named() for row in report.rows]
    figure, axes = _figure(any(named))
    epochs = [row.epoch for row in report.rows]
    _draw(axes[0], epochs, "train", [row.epoch_loss for row in report.rows])
    _draw(axes[0], epochs, "validation", [row.val_loss for row in report.rows])
    axes[0].set_ylabel("loss")
    for name in merge(named):
        _draw(axes[-1], epochs, name, [figures.get(name) for figures in named])
    figure.suptitle(title)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    return target


def _figure(metrics: bool) -> tuple[Any, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mlx-fp[show]'") from error
    figure = Figure(figsize=(10 if metrics else 5, 4), layout="constrained")
    return figure, list(figure.subplots(1, 2 if metrics else 1, squeeze=False)[0])


def _draw(axes: Axes, epochs: list[int], name: str, values: list[float | None]) -> None:
    """Draw a line where there are values: an epoch that was cut has none of validation."""
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    if points:
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.grid(alpha=0.3)
    axes.legend()
