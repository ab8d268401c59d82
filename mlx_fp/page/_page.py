"""The report page: one HTML text from the plain values of a run, or of several runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._details import (
    checkpoints_table,
    environment_table,
    epochs_table,
    evaluations_table,
    model_table,
    settings_table,
)
from ._matrix import figures_of_row, shown_row
from ._overview import overlay, ranking
from ._panels import Panel, best_point, panels, steps_axis
from ._runs import Run, ranked, runs_of
from ._style import COLOURS, STYLE
from ._svg import Best, Drawn, chart
from ._verdict import facts, verdict
from ._words import as_number, safe

__all__ = ["page"]

_LOOKS = {"step": "faint", "train": "", "validation": ""}
"""The stroke of each kind of line."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser refuses every script and every request."""


def page(bundles: Sequence[Mapping[str, Any]], *, title: str = "") -> str:
    """Return the report page of a run, or of several runs, as one HTML text without scripts and requests.

    Args:
        bundles: The dicts of `bundle` or `read_bundle`, or of `Report.to_dict()`.
        title: The title of the page. By default it says how many runs the page has.

    Raises:
        ValueError: There is no run.

    >>> text = page([{"rows": [], "monitor_name": "</script>"}], title="<a run>")
    >>> "&lt;a run&gt;" in text, "<script" in text
    (True, False)
    """
    runs = runs_of(bundles)
    heading = title or ("Report of a run" if len(runs) == 1 else f"Comparison of {len(runs)} runs")
    body = "".join(_of_one(runs[0])) if len(runs) == 1 else "".join(_of_several(runs))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{safe(heading)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{safe(_POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f'<style>{STYLE}</style></head>\n<body><main><h1 dir="auto">{safe(heading)}</h1>{body}'
        f"<footer>{_footer(runs)}</footer></main></body></html>\n"
    )


def _of_one(run: Run) -> Iterator[str]:
    yield verdict(run)
    yield facts(run)
    yield _section("Curves", _charts(run))
    yield from _tables(run)
    yield _section("Settings", settings_table(run))
    yield _section("Environment", environment_table(run))


def _of_several(runs: Sequence[Run]) -> Iterator[str]:
    best, *_ = order = ranked(runs)
    yield _section("Runs", ranking(order))
    yield _section("Curves", overlay(order))
    yield f"<h2>The best run: <bdi>{safe(best.name)}</bdi></h2>"
    yield verdict(best)
    yield facts(best)
    yield from _tables(best)
    yield _section("Settings of the best run", settings_table(best))
    yield _section("Environment of the best run", environment_table(best))


def _tables(run: Run) -> Iterator[str]:
    row = shown_row(run)
    matrices = figures_of_row(row)
    epoch = as_number(row.get("epoch"))
    yield _section(f"Figures of epoch {epoch:.0f}" if epoch is not None else "Figures", matrices)
    yield _section("Epochs", epochs_table(run) if run.listed("rows") else "<p>The run has no epochs.</p>")
    yield _section("Evaluations", evaluations_table(run))
    yield _section("Checkpoints", checkpoints_table(run))
    yield _section("Model", model_table(run.report.get("model") or {}))


def _section(name: str, content: str) -> str:
    return f"<section><h2>{safe(name)}</h2>{content}</section>" if content else ""


def _charts(run: Run) -> str:
    """Return a figure for each panel of a run."""
    best, found, parts = best_point(run), panels(run), []
    across = steps_axis(found)
    for number, panel in enumerate(found):
        means = max((len(line.steps) for line in panel.lines if line.kind == "train"), default=0)
        drawn = []
        for line in panel.lines:
            colour = f"c{1 + line.number % (COLOURS - 1)}" if line.kind == "validation" else "c0"
            alone = line.kind == "step" and means < 3
            drawn.append(Drawn(line, line.name, colour, "thin" if alone else _LOOKS[line.kind]))
        mark = _mark(panel, best)
        svg = chart(panel.title, drawn, key=f"chart-{number}", across=across, zero=panel.zero, best=mark)
        keys = "".join(_legend_key(each) for each in drawn) if len(drawn) > 1 else ""
        parts.append(f"<figure><figcaption><h3><bdi>{safe(panel.title)}</bdi></h3>{keys}</figcaption>{svg}</figure>")
    return f'<div class="charts">{"".join(parts)}</div>' if parts else ""


def _mark(panel: Panel, best: tuple[str, str, float, float] | None) -> Best | None:
    """Return the mark of the best evaluation where a line of the panel has its point."""
    if best is None or panel.name != best[0]:
        return None
    points = (
        point for line in panel.lines if line.name == best[1] for point in zip(line.steps, line.values, strict=True)
    )
    return Best(*best[2:]) if best[2:] in points else None


def _legend_key(drawn: Drawn) -> str:
    swatch = (
        f'<svg viewBox="0 0 22 8" aria-hidden="true"><path class="line {drawn.colour} {drawn.look}" d="M1 4H21"/></svg>'
    )
    return f'<span class="key">{swatch}<bdi>{safe(drawn.title)}</bdi></span>'


def _footer(runs: Sequence[Run]) -> str:
    version = runs[0].environment.get("mlx_fp")
    written = f"Written by mlx_fp {safe(version)}." if version else "Written by mlx_fp."
    return f"{written} A long curve shows the minimum and the maximum of each part. Point at a curve to read a value."
