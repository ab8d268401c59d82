"""The ratios of a run as a picture: a panel for each mode, a group of bars for each model."""

from __future__ import annotations

from .cases import MODES
from .variants import CONTROL, REFERENCE, VARIANTS


def draw(result, path):
    """Write the picture of a result as a PNG; error bars are quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in result["rows"] if "ratio" in row]
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    figure, panels = pyplot.subplots(len(modes) or 1, 1, figsize=(15, 5 * (len(modes) or 1)), squeeze=False)
    for mode, (panel,) in zip(modes, panels, strict=False):
        _panel(panel, mode, [row for row in rows if row["mode"] == mode])
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel, mode, rows):
    cases = list(dict.fromkeys(row["case"] for row in rows))
    shown = [v for v in VARIANTS if v.name not in (REFERENCE, CONTROL) and any(r["variant"] == v.name for r in rows)]
    width = 0.85 / max(1, len(shown))
    for place, variant in enumerate(shown):
        mine = [row for row in rows if row["variant"] == variant.name]
        at = [cases.index(row["case"]) + (place - (len(shown) - 1) / 2) * width for row in mine]
        ratios = [row["ratio"] for row in mine]
        errors = [[m - lower for lower, m, _ in ratios], [upper - m for _, m, upper in ratios]]
        colour = f"C{VARIANTS.index(variant)}"
        panel.bar(at, [m - 1 for _, m, _ in ratios], width, bottom=1, yerr=errors, label=variant.label, color=colour)
    panel.axhline(1, color="black", linewidth=1)
    panel.set_yscale("log")
    panel.set_yticks(ticks := (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10), [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    medians = [row["ratio"][1] for row in rows]
    panel.set_ylim(min(0.4, 0.7 * min(medians)), max(2.5, 2 * max(medians)))  # the longest error bars are cut
    panel.set_xticks(range(len(cases)), [case.replace("_", "\n", 1) for case in cases])
    panel.set_ylabel(f"{mode}: time, ratio to MLX compiled\n(lower is faster)")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(ncols=len(shown) or 1, fontsize=8, loc="upper center")
