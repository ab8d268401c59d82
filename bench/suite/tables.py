"""Results and verdicts as tables to read."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .cases import PAIRS
from .variants import NAMED, REFERENCE, VARIANTS

console = Console() if Console().is_terminal else Console(width=150)


def results(result):
    """A table of ratios to the reference, quartiles below each; the reference itself in milliseconds."""
    rows = {}
    for row in result["rows"]:
        rows.setdefault((row["case"], row["mode"]), {})[row["variant"]] = row
    shown = [v for v in VARIANTS if any(v.name in each for each in rows.values())]
    table = Table(
        title=_title(result),
        caption="ratios to MLX compiled in the same turns, and their quartiles; lower is faster. "
        f"{', '.join(case.name for case in PAIRS)}: ratios to a reference of their own",
    )
    table.add_column("model", no_wrap=True)
    for variant in shown:
        table.add_column(variant.label + (", ms" if variant.name == REFERENCE else ""), justify="right")
    for (case, mode), each in rows.items():
        best = min((r["ratio"][1] for r in each.values() if "ratio" in r), default=None)
        table.add_row(f"{case}\n  {mode}", *(_cell(each.get(v.name), best) for v in shown))
    return table


def failures(result):
    """A line for each reason why rows are missing."""
    found = {}
    for row in result["rows"]:
        if "reason" in row:
            found.setdefault((NAMED[row["variant"]].label, row["reason"]), []).append(f"{row['case']} {row['mode']}")
    whole = len({(row["case"], row["mode"]) for row in result["rows"]})
    return [
        f"{label}: {reason} ({'all' if len(where) == whole else ', '.join(where)})"
        for (label, reason), where in found.items()
    ]


def verdicts(found):
    """Make a table of the verdicts of the gate."""
    table = Table(
        title="ratio to MLX compiled, against the baseline", caption="quartiles; slower: lower quartile above the limit"
    )
    for name in ("model", "variant", "baseline", "now", "limit", "verdict"):
        table.add_column(name, justify="left" if name in ("model", "variant", "verdict") else "right")
    for v in found:
        style = {"slower": "bold red", "missing": "bold red", "faster": "green"}.get(v.verdict, "")
        text = f"{v.verdict}: {v.reason}" if v.reason else v.verdict
        limit = f"{v.limit:.3f}" if v.limit else ""
        table.add_row(
            f"{v.case} {v.mode}", v.variant, _quartiles(v.before), _quartiles(v.now), limit, text, style=style
        )
    return table


def line(case, mode, rows):
    """One case and mode in a line, for the progress of a run."""
    parts = [
        f"{row['variant']} {row['ratio'][1]:.2f}" for row in rows if "ratio" in row and row["variant"] != REFERENCE
    ]
    return f"{case.name} {mode}: {', '.join(parts) or 'nothing measured'}"


def _title(result):
    machine, threads = result["machine"], result["settings"]["threads"]
    return f"{machine['processor'] or machine['architecture']}, {threads} threads"


def _cell(row, best):
    if row is None:
        return ""
    if "ratio" not in row:
        return "–"
    if row["variant"] == REFERENCE:
        lower, median, upper = (f"{1e3 * s:.3g}" for s in row["seconds"])
    else:
        lower, median, upper = (f"{r:.2f}" for r in row["ratio"])
    median = f"[bold]{median}[/bold]" if row["ratio"][1] == best else median
    return f"{median}\n[dim]{lower}–{upper}[/dim]"


def _quartiles(ratio):
    return "–" if ratio is None else f"{ratio[1]:.3f} ({ratio[0]:.3f}–{ratio[2]:.3f})"
