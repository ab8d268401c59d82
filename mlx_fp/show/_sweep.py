"""Draw the outcome of a sweep: a heat map of two settings, or parallel coordinates of more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import log10, nan
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

from ..experiments._sweep import Sweep, Trial
from ..page._axes import axis
from ..page._words import as_number, figure_text, setting_text
from ._picture import figure_of_size, label, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["sweep"]

_COLOURS = "viridis"
_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
"""The frame of a label, so that lines do not cross its text."""


class _Scale(NamedTuple):
    """An axis of parallel coordinates: places from 0 to 1, by the text of a value."""

    name: str
    places: dict[str, float]


@overload
def sweep(found: Sweep, path: None = None, *, title: str = "") -> Figure: ...
@overload
def sweep(found: Sweep, path: str | os.PathLike[str], *, title: str = "") -> Path: ...
def sweep(found: Sweep, path: str | os.PathLike[str] | None = None, *, title: str = "") -> Path | Figure:
    """Draw the best value of the monitor of each trial by its settings.

    A sweep over two settings is a heat map of the grid. Another sweep is drawn as parallel coordinates: an axis for
    each setting and one for the monitor, and a line for each trial. Trials without a value are left out.

    Args:
        found: The result of `fp.sweep`.
        path: The file to write, see `curves`. None: the figure is returned, and a notebook displays it.
        title: The text above the picture. By default it is the name of the experiment.

    Returns:
        The path of the file, or the figure of matplotlib without a path.

    Raises:
        ImportError: matplotlib is missing. The error names the extra to install.
        TypeError: `found` is not a Sweep.
        ValueError: No trial has a value of the monitor.
    """
    if not isinstance(found, Sweep):
        raise TypeError(f"sweep draws a Sweep, the result of fp.sweep; got {type(found).__name__}")
    scored = [(trial, value) for trial in found.trials if (value := _value(trial)) is not None]
    if not scored:
        raise ValueError(f"no trial of the sweep {found.name!r} has a value of the monitor")
    names = [name for name in found.trials[0].settings if len({_setting(trial, name) for trial in found.trials}) > 1]
    monitor = next(trial.report.monitor_name for trial, _ in scored if trial.report)
    figure = figure_of_size(max(5.5, 1.9 * len(names) + 2) if len(names) != 2 else 6, 4.2)
    axes = figure.subplots()
    draw = _draw_grid if len(names) == 2 else _draw_parallel
    draw(figure, axes, scored, names, monitor)
    axes.set_title(label(title or found.name))
    return written(figure, path)


def _value(trial: Trial) -> float | None:
    """Return the best value of a trial; None where it has none, or one that is not finite."""
    value = None if trial.report is None else as_number(trial.report.best_value)
    return None if value is None or value != value or abs(value) == float("inf") else value


def _setting(trial: Trial, name: str) -> str:
    return setting_text(trial.settings[name])


def _draw_grid(
    figure: Figure, axes: Axes, scored: Sequence[tuple[Trial, float]], names: Sequence[str], monitor: str
) -> None:
    """Draw a heat map: the first setting downwards, the second one across."""
    from matplotlib import colormaps

    down, across = names
    rows, columns = ([*dict.fromkeys(_setting(trial, name) for trial, _ in scored)] for name in (down, across))
    cells = {(_setting(trial, down), _setting(trial, across)): value for trial, value in scored}
    image = axes.imshow(
        [[cells.get((row, column), nan) for column in columns] for row in rows], _COLOURS, aspect="auto"
    )
    for (row, column), value in cells.items():
        red, green, blue, _ = colormaps[_COLOURS](_fraction(value, list(cells.values())))
        colour = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        place = columns.index(column), rows.index(row)
        axes.text(*place, figure_text(value), ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(columns)), [label(text) for text in columns])
    axes.set_yticks(range(len(rows)), [label(text) for text in rows])
    axes.set(xlabel=label(across), ylabel=label(down))
    figure.colorbar(image, ax=axes, label=label(f"best {monitor}"))


def _draw_parallel(
    figure: Figure, axes: Axes, scored: Sequence[tuple[Trial, float]], names: Sequence[str], monitor: str
) -> None:
    """Draw parallel coordinates: an axis for each setting, and a line for each trial from its settings to its value."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scales = [_scale(name, [trial.settings[name] for trial, _ in scored]) for name in names]
    values = [value for _, value in scored]
    scales.append(_scale(f"best {monitor}", values))
    colours = ScalarMappable(Normalize(min(values), max(values)), colormaps[_COLOURS])
    for trial, value in scored:
        texts = [*(_setting(trial, name) for name in names), setting_text(value)]
        heights = [scale.places[text] for scale, text in zip(scales, texts, strict=True)]
        axes.plot(
            range(len(scales)), heights, color=colormaps[_COLOURS](_fraction(value, values)), alpha=0.8, linewidth=1.4
        )
    for place, scale in enumerate(scales):
        axes.axvline(place, color="0.6", linewidth=0.8)
        for text, height in scale.places.items() if place < len(names) else ():
            axes.annotate(
                label(text), (place, height), (4, 2), textcoords="offset points", fontsize="small", bbox=_BEHIND
            )
    axes.set_xticks(range(len(scales)), [label(scale.name.rpartition(".")[2]) for scale in scales])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label=label(f"best {monitor}"))


def _fraction(value: float, values: Sequence[float]) -> float:
    """Return the place of a value between the least value and the largest, from 0 to 1."""
    return (value - min(values)) / (max(values) - min(values) or 1.0)


def _scale(name: str, values: Sequence[object]) -> _Scale:
    """Return the axis of a setting: by number, on a logarithmic scale where it fits, or in the order of the values."""
    numbers = [as_number(value) for value in values]
    places = [number for number in numbers if number is not None]
    if len(places) < len(values):
        texts = [*dict.fromkeys(map(setting_text, values))]
        return _Scale(name, {text: i / max(len(texts) - 1, 1) for i, text in enumerate(texts)})
    if axis(places).log or (min(places) > 0 and max(places) >= 10 * min(places)):
        places = [log10(place) for place in places]
    low, span = min(places), max(places) - min(places) or 1.0
    return _Scale(name, {setting_text(v): (p - low) / span for v, p in zip(values, places, strict=True)})
