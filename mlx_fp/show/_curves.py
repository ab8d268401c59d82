"""Draw the curves of one run, or of several runs, as a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..page._axes import axis
from ..page._overview import run_lines
from ..page._panels import Line, Panel, best_point, panels
from ..page._runs import Run, ranked, runs_of
from ..page._thin import is_drawn, thin
from ..page._words import figure_text
from ._html import Reported, bundles_of
from ._picture import figure_of_size, label, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves"]

_MOST_POINTS = 2_000
_COLOURED_RUNS = 10


@overload
def curves(report: Reported | Iterable[Reported], path: None = None, *, title: str = "") -> Figure: ...
@overload
def curves(report: Reported | Iterable[Reported], path: str | os.PathLike[str], *, title: str = "") -> Path: ...
def curves(
    report: Reported | Iterable[Reported], path: str | os.PathLike[str] | None = None, *, title: str = ""
) -> Path | Figure:
    """Draw the curves of a run, or of several runs: a pair of axes for each figure.

    The losses are first, then the metrics, then the learning rate, the norm of the gradients, throughput and memory
    where the run logged them. Axes hold the lines of training and of validation, and mark the best evaluation. Positive
    figures over more than two decades have a logarithmic axis. The horizontal axis counts epochs. It counts steps where
    a run logged steps, or validated within epochs. The lines of several runs are over each other, the best run first in
    the legend; training is dashed.

    Args:
        report: A Report, the dict of `read_bundle`, a Sweep, or a list of these, each with an epoch or a part of one.
        path: The file to write. Its suffix gives the format, for example `.png` or `.svg`; the default is `.png`. A
            leading `~` is the home folder of the user. None: the figure is returned, and a notebook displays it.
        title: The text above the picture; none by default.

    Returns:
        The path of the file, or the figure of matplotlib without a path.

    Raises:
        ImportError: matplotlib is missing. The error names the extra to install.
        TypeError: A report is of another type.
        ValueError: A report has no epochs, or there is no report.
    """
    runs = ranked(runs_of(bundles_of(report, "curves")))
    if not all(run.listed("rows") for run in runs):
        raise ValueError("a report without epochs has no curves")
    over_steps = any(_counts_steps(run) for run in runs)
    found = [_shown(panels(run), over_steps) for run in runs]
    names = list(dict.fromkeys(panel.title for of_run in found for panel in of_run))
    columns = min(len(names), 2)
    rows = -(-len(names) // columns)
    figure = figure_of_size(5 * columns, 4 if rows == 1 else 3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for name, axes in zip(names, grid, strict=False):
        chosen = [
            (run, panel) for run, of_run in zip(runs, found, strict=True) for panel in of_run if panel.title == name
        ]
        _draw_panel(axes, chosen, over_steps=over_steps, several=len(runs) > 1)
    for axes in list(grid)[len(names) :]:
        axes.set_visible(False)
    if len(runs) > 1:
        _legend_of_runs(figure, runs)
    figure.suptitle(label(title).strip())
    return written(figure, path)


def _counts_steps(run: Run) -> bool:
    """Tell whether a run has figures between the ends of epochs."""
    epoch_ends = {row.get("steps") for row in run.listed("rows")}
    return bool(run.listed("steps")) or any(row.get("step") not in epoch_ends for row in run.listed("evaluations"))


def _shown(found: Sequence[Panel], over_steps: bool) -> list[Panel]:
    """Return the panels of a picture. Throughput needs logged steps, and lines over epochs leave each step out."""
    kept = [panel for panel in found if panel.name != "rows per second" or any(x.kind == "step" for x in panel.lines)]
    if over_steps:
        return kept
    lines = [tuple(line for line in panel.lines if line.kind != "step") for panel in kept]
    return [
        Panel(panel.name, of_panel, panel.unit, panel.zero)
        for panel, of_panel in zip(kept, lines, strict=True)
        if of_panel
    ]


def _draw_panel(axes: Axes, chosen: Sequence[tuple[Run, Panel]], *, over_steps: bool, several: bool) -> None:
    """Draw one figure of one run or of several runs."""
    values = []
    for rank, (run, panel) in reversed(list(enumerate(chosen))):  # the best run is above the others
        for line in run_lines(panel.lines, len(chosen)) if several else panel.lines:
            xs, ys = _points(line, over_steps)
            look = _look_among_runs(line, panel, rank) if several else _look(line, panel)
            axes.plot(xs, ys, marker="." if len(xs) < 50 and line.kind != "step" and not several else "", **look)
            values += [y for y in ys if is_drawn(y)]
        if not several:
            _mark_best(axes, run, panel, over_steps)
    if values and axis(values).log:
        axes.set_yscale("log")
    elif chosen[0][1].zero:
        axes.set_ylim(bottom=0)
    axes.set_title(label(chosen[0][1].title), fontsize="medium", loc="left")
    axes.set_xlabel("step" if over_steps else "epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]  # the type of a locator lacks its options
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if not several and len(chosen[0][1].lines) > 1:
        axes.legend(frameon=False, fontsize="small")


def _points(line: Line, over_steps: bool) -> tuple[list[float], list[float]]:
    """Return the places and the values of a line: NaN for gaps, and no point where an evaluation has no figure."""
    places = line.steps if over_steps else line.epochs
    kept = [i for i in thin(line.values, _MOST_POINTS) if line.values[i] is not None and places[i] is not None]
    values = [line.values[i] if is_drawn(line.values[i]) else nan for i in kept]
    return [float(places[i] or 0) for i in kept], [nan if value is None else value for value in values]


def _look(line: Line, panel: Panel) -> dict[str, Any]:
    faint = line.kind == "step" and len(panel.lines) > 1
    width, alpha = (0.8, 0.4) if faint else (1.6, 1.0)
    colour = _colour(1 + line.number) if line.kind == "validation" else _colour(0)
    return {"color": colour, "linewidth": width, "alpha": alpha, "label": label(line.name)}


def _look_among_runs(line: Line, panel: Panel, rank: int) -> dict[str, Any]:
    dashed = line.kind == "train" and any(each.kind == "validation" for each in panel.lines)
    return {"color": _colour(rank), "linewidth": 1.3, "linestyle": "--" if dashed else "-"}


def _colour(rank: int) -> str:
    return f"C{rank}" if rank < _COLOURED_RUNS else "0.75"


def _mark_best(axes: Axes, run: Run, panel: Panel, over_steps: bool) -> None:
    """Mark the best evaluation with a ring and its value, on the line that has it."""
    best = best_point(run)
    for line in panel.lines if best and best[0] == panel.name else ():
        for step, value, epoch in zip(line.steps, line.values, line.epochs, strict=True):
            if (
                value is not None
                and best
                and (line.name, step, value) == best[1:]
                and (over_steps or epoch is not None)
            ):
                place = step if over_steps else float(epoch or 0)
                axes.plot([place], [value], "o", ms=10, mfc="none", mec="black", label=f"best {figure_text(value)}")
                return


def _legend_of_runs(figure: Figure, runs: Sequence[Run]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_colour(rank), label=label(run.name)) for rank, run in enumerate(runs)]
    if (rest := len(runs) - _COLOURED_RUNS) > 0:
        handles[_COLOURED_RUNS:] = [Line2D([], [], color=_colour(len(runs)), label=f"{rest} further runs")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
