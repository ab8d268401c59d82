"""Draw a confusion matrix as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..loop._report import Report
from ..page._matrix import is_square, shown_row
from ..page._runs import runs_of
from ._html import bundles_of
from ._picture import figure_of_size, label, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..core._types import Array

__all__ = ["confusion"]

_MOST_NUMBERS = 25
"""The largest number of classes whose counts are written into the cells."""


@overload
def confusion(
    report: Report | Mapping[str, Any] | Sequence[Sequence[float]] | Array, path: None = None, *, title: str = ""
) -> Figure: ...
@overload
def confusion(
    report: Report | Mapping[str, Any] | Sequence[Sequence[float]] | Array,
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> Path: ...
def confusion(
    report: Report | Mapping[str, Any] | Sequence[Sequence[float]] | Array,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str = "",
) -> Path | Figure:
    """Draw a confusion matrix: rows are labels, columns are predictions, the shade is the share of the label.

    Args:
        report: A Report or the dict of `read_bundle`, of which the matrix of the best epoch is drawn, that of
            validation if there is one. Or a matrix `(classes, classes)` of counts.
        path: The file to write, see `curves`. None: the figure is returned, and a notebook displays it.
        title: The text above the picture. By default it is the name of the metric.

    Returns:
        The path of the file, or the figure of matplotlib without a path.

    Raises:
        ImportError: matplotlib is missing. The error names the extra to install.
        ValueError: The report has no confusion matrix, or the matrix is not square.

    >>> confusion([[3, 1], [0, 4]]).axes[0].get_xlabel()
    'predicted class'
    """
    name, counts = _matrix_of(report)
    size = max(3.5, min(0.5 * len(counts) + 2, 14))
    figure = figure_of_size(size + 0.8, size)
    axes = figure.subplots()
    shares = [[count / (sum(row) or 1.0) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the label", shrink=0.8)
    for i, row in enumerate(counts if len(counts) <= _MOST_NUMBERS else ()):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{count:,.6g}", ha="center", va="center", color=colour, fontsize="small")
    axes.set(xlabel="predicted class", ylabel="label", title=label(title or name))
    if len(counts) <= _MOST_NUMBERS:
        axes.set(xticks=range(len(counts)), yticks=range(len(counts)))
    return written(figure, path)


def _matrix_of(report: object) -> tuple[str, list[list[float]]]:
    """Return the name and the counts of the matrix to draw."""
    if isinstance(report, (Report, Mapping)):
        row = shown_row(runs_of(bundles_of(report, "confusion"))[0])
        matrices = {name: value for name, value in row.items() if is_square(value)}
        if not matrices:
            remedy = "fp.with_metrics(fp.metrics.confusion(classes)) measures one"
            raise ValueError(f"the report has no confusion matrix: {remedy}; its figures: {', '.join(row) or 'none'}")
        name = min(matrices, key=lambda name: not name.startswith("val_"))
        return name, _numbers(matrices[name])
    matrix = report.tolist() if hasattr(report, "tolist") else report
    if not is_square(matrix):
        raise ValueError(f"confusion takes a Report, or a matrix (classes, classes) of counts; got {report!r:.80}")
    return "", _numbers(matrix)


def _numbers(matrix: Any) -> list[list[float]]:
    return [[float(count) for count in row] for row in matrix]
