"""The verdict on a run: how it ended, its best value, and its key figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core._bytes import bytes_text
from ._runs import Run
from ._words import as_number, count_text, duration, figure_text, safe

__all__ = ["ending", "facts", "is_cut", "verdict"]

_SIGNALS = {"SIGINT": "Ctrl-C (SIGINT)", "SIGTERM": "SIGTERM"}


def is_cut(run: Run) -> bool:
    """Tell whether the last epoch of a run was cut before its end."""
    return len(run.listed("rows")) > int(as_number(run.report.get("epochs_completed")) or 0)


def ending(report: Mapping[str, Any]) -> tuple[str, str]:
    """Return one word for the end of a run and the reason, as texts.

    >>> ending({"stopped_early": True, "stop_reason": "good enough"})
    ('Stopped', 'good enough')
    >>> ending({"epochs_target": 3, "epochs_completed": 3}), ending({"epochs_target": 3, "epochs_completed": 1})
    (('Complete', '3 of 3 epochs'), ('Not complete', '1 of 3 epochs'))
    """
    reason = report.get("stop_reason")
    if reason in _SIGNALS:
        return "Cut", f"by {_SIGNALS[reason]} after {_length(report)}"
    if report.get("stopped_early"):
        return "Stopped", str(reason or "without a reason")
    target, steps = as_number(report.get("steps_target")), _steps(report)
    if target is not None:
        return "Complete" if steps >= target else "Not complete", f"{count_text(steps)} of {count_text(target)} steps"
    target, completed = as_number(report.get("epochs_target")), as_number(report.get("epochs_completed")) or 0
    if target is None:
        return "Complete", _length(report)
    return (
        "Complete" if completed >= target else "Not complete",
        f"{count_text(completed)} of {count_text(target)} epochs",
    )


def verdict(run: Run) -> str:
    """Return the verdict as paragraphs of HTML."""
    report = run.report
    word, reason = ending(report)
    look = {"Complete": "good", "Cut": "bad", "Not complete": "bad"}.get(word, "")
    length = f" after {_length(report)}" if word == "Stopped" else ""
    lines = [
        f'<p class="verdict"><b class="{look}">{word}</b>{length}: <bdi>{safe(reason)}</bdi>.</p>',
        _best_text(run),
    ]
    if is_cut(run):
        lines.append(
            '<p class="soft">The last epoch was cut before its end: its figures are of a part of the data.</p>'
        )
    return "".join(lines) + _origin_text(report)


def facts(run: Run) -> str:
    """Return the key figures as a list of terms."""
    report, rows = run.report, run.listed("rows")
    last = rows[-1] if rows else {}
    found = [_best_fact(report), ("last loss", _figure(last.get("loss")), _last_validation(last)) if last else None]
    found.append(("steps", count_text(_steps(report)), f"in {_epochs(len(rows))}"))
    seconds = sum(as_number(row.get("seconds")) or 0.0 for row in rows)
    found.append(("training time", duration(seconds), "without validation"))
    speeds = sorted(value for row in rows if (value := as_number(row.get("examples_per_second"))) is not None)
    if speeds:
        found.append(("examples/s", f"{speeds[len(speeds) // 2]:,.0f}", "median epoch"))
    memory = max((as_number(row.get("peak_memory")) or 0.0 for row in run.listed("steps")), default=0.0)
    if memory:
        found.append(("peak memory", bytes_text(memory), "of MLX"))
    model = report.get("model") or {}
    if model.get("count") is not None:
        found.append(("parameters", count_text(model["count"]), f"{count_text(model.get('trainable'))} train"))
    return f'<dl class="facts">{"".join(_fact(*each) for each in found if each)}</dl>'


def _fact(name: str, value: str, remark: str) -> str:
    note = f"<small><bdi>{safe(remark)}</bdi></small>" if remark else ""
    return f"<div><dt><bdi>{safe(name)}</bdi></dt><dd>{safe(value)}{note}</dd></div>"


def _best_fact(report: Mapping[str, Any]) -> tuple[str, str, str] | None:
    if (value := as_number(report.get("best_value"))) is None:
        return None
    return f"best {report.get('monitor_name', 'value')}", figure_text(value), _best_place(report)


def _best_text(run: Run) -> str:
    report = run.report
    name, value = report.get("monitor_name"), as_number(report.get("best_value"))
    if not name:
        return ""
    if value is None:
        return f'<p class="verdict">No evaluation has a best value of <bdi>{safe(name)}</bdi>.</p>'
    better = "higher" if report.get("monitor_mode") == "max" else "lower"
    file = next((e.get("checkpoint") for e in reversed(run.listed("evaluations")) if _is_best(e, report)), None)
    kept = f" Its checkpoint is <code><bdi>{safe(file)}</bdi></code>." if file else ""
    return (
        f'<p class="verdict">Best <bdi>{safe(name)}</bdi> <b>{figure_text(value)}</b> at {_best_place(report)} '
        f'<span class="soft">({better} is better)</span>.{kept}</p>'
    )


def _is_best(evaluation: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    return bool(
        evaluation.get("step") == report.get("best_step")
        and evaluation.get("improved")
        and evaluation.get("checkpoint")
    )


def _origin_text(report: Mapping[str, Any]) -> str:
    """Return where a resumed run went on, with the reasons why it is not exact."""
    source = report.get("resume_from")
    if source is None:
        return ""
    setup = report.get("setup") or {}
    kind = "exactly" if setup.get("resume_kind") == "exact" else "not exactly"
    reasons = "".join(f'<li dir="auto">{safe(each)}</li>' for each in setup.get("differences") or ())
    epoch = report.get("resumed_from_epoch")
    where = "" if epoch is None else f" in epoch {count_text(epoch)}"
    text = f"Resumed {kind} from <code><bdi>{safe(source)}</bdi></code>{where}."
    return f'<p class="soft">{text}</p>' + (f'<ul class="soft">{reasons}</ul>' if reasons else "")


def _last_validation(row: Mapping[str, Any]) -> str:
    value = as_number(row.get("val_loss"))
    return "of the last epoch" if value is None else f"validation {figure_text(value)}"


def _best_place(report: Mapping[str, Any]) -> str:
    return f"epoch {count_text(report.get('best_epoch'))}, step {count_text(report.get('best_step'))}"


def _length(report: Mapping[str, Any]) -> str:
    return f"{count_text(_steps(report))} steps in {_epochs(len(report.get('rows') or ()))}"


def _epochs(count: int) -> str:
    return f"{count:,} epoch{'' if count == 1 else 's'}"


def _steps(report: Mapping[str, Any]) -> float:
    rows = report.get("rows") or ()
    return (as_number(rows[-1].get("steps")) if rows else 0) or 0.0


def _figure(value: object) -> str:
    return figure_text(as_number(value))
