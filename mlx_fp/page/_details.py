"""The tables of one run: epochs, evaluations, checkpoints, settings, environment, and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._runs import Run
from ._tables import Column, chosen, number_column, table, tag, text_column
from ._verdict import is_cut
from ._words import as_number, safe, setting_text

__all__ = [
    "checkpoints_table",
    "environment_table",
    "epochs_table",
    "evaluations_table",
    "model_table",
    "settings_table",
]

_OF_ROWS = frozenset(
    [
        "epoch",
        "batches",
        "steps",
        "step",
        "epoch_loss",
        "validation_batches",
        "monitor_value",
        "improved",
        "stale",
        "checkpoint",
        "timed",
        "seconds",
        "examples",
        "examples_per_second",
    ]
)
"""The entries of a row that have columns of their own, or none."""


def epochs_table(run: Run) -> str:
    """Return the table of the epochs; the best epoch and an epoch that was cut are marked."""
    rows = run.listed("rows")
    best = [index for index, row in enumerate(rows) if row.get("epoch") == run.report.get("best_epoch")]
    shown = chosen(len(rows), best)
    listed = [rows[index] for index in shown]
    cut = len(rows) - 1 if is_cut(run) else None
    columns = [
        number_column("epoch", _column(listed, "epoch")),
        Column("", [" ".join(_tags(index in best, index == cut)) for index in shown]),
        number_column("steps", _column(listed, "steps")),
        *_figure_columns(listed),
        number_column("seconds", _column(listed, "seconds"), 2),
        number_column("examples/s", [_rounded(value) for value in _column(listed, "examples_per_second")]),
    ]
    marked = {place: "marked" for place, index in enumerate(shown) if index in best}
    return table("Epochs count from 0.", _filled(columns), marked=marked, left_out=len(rows) - len(shown))


def evaluations_table(run: Run) -> str:
    """Return the table of the evaluations with the verdict of the monitor on each."""
    rows = [row for row in run.listed("evaluations") if row.get("batches") or row.get("monitor_value") is not None]
    if not rows:
        return ""
    step = run.report.get("best_step")
    best = [index for index, row in enumerate(rows) if row.get("step") == step and row.get("improved")][-1:]
    shown = chosen(len(rows), best)
    listed = [rows[index] for index in shown]
    columns = [
        number_column("step", _column(listed, "step")),
        number_column("epoch", _column(listed, "epoch")),
        *_figure_columns(listed),
        Column("verdict", [_judged(rows[index], index in best) for index in shown]),
        text_column("checkpoint", [row.get("checkpoint") for row in listed], "wide"),
    ]
    caption = f"Each evaluation, and the verdict of the monitor {run.report.get('monitor_name', '')}."
    marked = {place: "marked" for place, index in enumerate(shown) if index in best}
    return table(caption, _filled(columns), marked=marked, left_out=len(rows) - len(shown))


def checkpoints_table(run: Run) -> str:
    """Return the table of the present checkpoints, with the place of each in the run."""
    files = [str(file) for file in run.report.get("checkpoints") or ()]
    if not files:
        return ""
    rows = {row.get("checkpoint"): (row.get("steps"), row.get("epoch")) for row in run.listed("rows")}
    places = {row.get("checkpoint"): (row.get("step"), row.get("epoch")) for row in run.listed("evaluations")} | rows
    best = run.report.get("best_step")
    found = [places.get(file, (None, None)) for file in files]
    columns = [
        text_column("file", files, "wide"),
        number_column("step", [as_number(step) for step, _ in found]),
        number_column("after epoch", [as_number(epoch) for _, epoch in found]),
        Column("", [tag("best", "good") if best is not None and step == best else "" for step, _ in found]),
    ]
    stamp = run.checkpoint.get("sha256")
    note = f" SHA-256 of the file of the bundle: {stamp}" if stamp else ""
    return table(f"Files at the end of the run, the newest last.{note}", _filled(columns))


def settings_table(run: Run) -> str:
    """Return the table of the settings, in which those that differ from their defaults are marked."""
    names = list(run.settings)
    if not names:
        return ""
    columns = [
        text_column("setting", names),
        text_column("value", [setting_text(run.settings[name]) for name in names], "wide"),
        Column("", [tag("changed") if name in run.changed else "" for name in names]),
    ]
    marked = {index: "marked" for index, name in enumerate(names) if name in run.changed}
    caption = "Settings that differ from their defaults are marked." if run.changed else "Settings of the run."
    return table(caption, _filled(columns), marked=marked)


def environment_table(run: Run) -> str:
    """Return the table of the software, the machine, and the values of the user."""
    told = {name: value for name, value in run.environment.items() if value is not None} | {
        f"user: {name}": value for name, value in run.user.items()
    }
    if not told:
        return ""
    values = [setting_text(value) for value in told.values()]
    return table(
        "Software and machine of the process that wrote the report.",
        [text_column("name", list(told)), text_column("value", values, "wide")],
    )


def model_table(model: Mapping[str, Any]) -> str:
    """Return the table of the layers of a model, with the totals in the last row."""
    rows: Sequence[Mapping[str, Any]] = model.get("rows") or ()
    if not rows:
        return ""
    shown = chosen(len(rows))
    listed = [rows[index] for index in shown]
    columns = [
        Column("path", [safe(row.get("path") or ".") for row in listed] + ["total"]),
        Column("layer", [safe(row.get("name", "")) for row in listed] + [""]),
        Column("arrays", [safe(_shapes_text(row.get("shapes") or {})) for row in listed] + [""], "wide"),
        number_column("elements", [as_number(row.get("count")) for row in listed] + [as_number(model.get("count"))]),
        number_column(
            "trainable", [as_number(row.get("trainable")) for row in listed] + [as_number(model.get("trainable"))]
        ),
    ]
    return table(
        "Layers with arrays or without parts.", columns, marked={len(listed): "total"}, left_out=len(rows) - len(shown)
    )


def _shapes_text(shapes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, shape)) or '()'}" for name, shape in shapes.items())


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    return [as_number(row.get(name)) for row in rows]


def _figure_columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return a column for each loss and each metric that is a number, those of validation last."""
    found = dict.fromkeys(name for row in rows for name in row if name not in _OF_ROWS)
    names = sorted(found, key=lambda name: (name.startswith("val_"), name != "loss"))
    columns = [(name, _column(rows, name)) for name in names]
    return [number_column(name, values) for name, values in columns if any(value is not None for value in values)]


def _filled(columns: Sequence[Column]) -> list[Column]:
    """Return the columns in which a cell has content."""
    return [column for column in columns if any(column.cells)]


def _judged(row: Mapping[str, Any], is_best: bool) -> str:
    if is_best:
        return tag("best", "good")
    if row.get("improved"):
        return "better"
    stale = as_number(row.get("stale"))
    return f"{stale:.0f} since the best" if stale else ""


def _tags(is_best: bool, is_cut: bool) -> list[str]:
    return ([tag("best", "good")] if is_best else []) + ([tag("cut", "bad")] if is_cut else [])


def _rounded(value: float | None) -> float | None:
    return value if value is None or value != value or abs(value) == float("inf") else float(round(value))
