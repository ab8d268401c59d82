"""Several runs on one page: a table in the order of the monitor, and their curves over each other."""

from __future__ import annotations

from collections.abc import Sequence

from ._panels import Line, panels, steps_axis
from ._runs import NAMING, Run, differing
from ._style import COLOURS
from ._svg import Drawn, chart
from ._tables import Column, chosen, number_column, table, text_column
from ._verdict import ending
from ._words import as_number, safe, setting_text

__all__ = ["overlay", "ranking", "run_lines"]

_MOST_POINTS = 3_000
"""About the largest number of points of all lines of a panel."""

_FEW = 4
"""The largest number of runs whose training and validation are both drawn."""

_MOST_SETTINGS = 8
"""The largest number of settings with a column of their own."""

_MOST_RUNS = 60
"""The largest number of runs whose curves are drawn: the best ones."""


def ranking(runs: Sequence[Run]) -> str:
    """Return the table of ranked runs: settings that differ, and the outcome of each run."""
    shown = chosen(len(runs))
    listed = [runs[index] for index in shown]
    monitor = runs[0].report.get("monitor_name", "value")
    names = differing(runs)
    told = names[:_MOST_SETTINGS] if len(names) > NAMING else []  # fewer settings are in the names of the runs
    rows = [run.listed("rows") for run in listed]
    columns = [
        Column("run", [f"{_swatch(index)}<bdi>{safe(runs[index].name)}</bdi>" for index in shown]),
        number_column(
            f"best {monitor}", [run.best if run.report.get("monitor_name") == monitor else None for run in listed]
        ),
        number_column("step", [as_number(run.report.get("best_step")) for run in listed]),
        number_column("last loss", [as_number(of[-1].get("loss")) if of else None for of in rows]),
        number_column("last val_loss", [as_number(of[-1].get("val_loss")) if of else None for of in rows]),
        number_column("epochs", [float(len(of)) for of in rows]),
        number_column("seconds", [sum(as_number(row.get("seconds")) or 0.0 for row in of) for of in rows], 2),
        *(text_column(name, [setting_text(run.settings.get(name)) for run in listed], "wide") for name in told),
        text_column("end", [": ".join(ending(run.report)) for run in listed]),
    ]
    better = "highest" if runs[0].report.get("monitor_mode") == "max" else "lowest"
    caption = f"Sorted by {monitor}, the {better} value first."
    filled = [column for column in columns if any(column.cells)]
    return table(caption, filled, marked={0: "marked"}, left_out=len(runs) - len(shown), kind="swatches")


def overlay(runs: Sequence[Run]) -> str:
    """Return the legend, and a figure for each panel with the curves of the best runs, given in the order of rank."""
    found = [(rank, run, panels(run)) for rank, run in enumerate(runs[:_MOST_RUNS])]
    across = steps_axis(panel for *_, of_run in found for panel in of_run)
    drawn: dict[str, list[Drawn]] = {}
    zeros = {panel.title for *_, of_run in found for panel in of_run if panel.zero}
    for rank, run, of_run in reversed(found):  # the best run is drawn last, above the others
        for panel in of_run:
            lines = drawn.setdefault(panel.title, [])
            lines += [_drawn_line(line, run.name, rank, len(runs)) for line in run_lines(panel.lines, len(runs))]
    parts = []
    for number, name in enumerate(sorted(drawn, key=[panel.title for *_, of_run in found for panel in of_run].index)):
        most = min(max(_MOST_POINTS // len(drawn[name]), 40), 500)
        svg = chart(name, drawn[name], key=f"chart-{number}", across=across, zero=name in zeros, most=most)
        parts.append(f"<figure><figcaption><h3><bdi>{safe(name)}</bdi></h3></figcaption>{svg}</figure>")
    return f'{_legend(runs)}<div class="charts">{"".join(parts)}</div>'


def run_lines(lines: Sequence[Line], runs: int) -> list[Line]:
    """Return the lines of a panel that are drawn among those of other runs: the means of epochs, not each step.

    The logged steps stay where the run has fewer than three epochs. Among many runs only validation is drawn, if any.
    """
    means = [line for line in lines if line.kind != "step"]
    validation = [line for line in means if line.kind == "validation"]
    if validation and runs > _FEW:
        return validation
    return means if any(len(line.steps) > 2 for line in means) else list(lines)


def _drawn_line(line: Line, run: str, rank: int, runs: int) -> Drawn:
    look = "thin" if line.kind == "step" else "dashed" if line.kind == "train" and runs <= _FEW else ""
    return Drawn(line, f"{run}, {line.name}", f"c{min(rank, COLOURS)}", look, values=rank < COLOURS)


def _legend(runs: Sequence[Run]) -> str:
    named = [
        f'<li class="key">{_swatch(rank)}<bdi>{safe(run.name)}</bdi></li>' for rank, run in enumerate(runs[:COLOURS])
    ]
    if len(runs) > COLOURS:
        rest = min(len(runs), _MOST_RUNS) - COLOURS
        named.append(f'<li class="key">{_swatch(COLOURS)}{rest} further runs</li>')
    if len(runs) <= _FEW:
        looks = (("validation", ""), ("train", "dashed"))
        named += [f'<li class="key">{_swatch(COLOURS, look)}{name}</li>' for name, look in looks]
    return f'<ul class="legend">{"".join(named)}</ul>'


def _swatch(rank: int, look: str = "") -> str:
    colour = f"c{min(rank, COLOURS)}"
    stroke = f'<path class="line {colour} {look}" d="M1 4H21"/>'
    return f'<svg class="swatch" viewBox="0 0 22 8" aria-hidden="true">{stroke}</svg>'
