"""Measure the time of each operation of a training step, in MLX and PyTorch; print tables, write JSON."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from . import inputs, results
from .measure import spread, turns, weights
from .ops import ops
from .options import options, parser
from .pool import Failed, Pool
from .tables import console
from .variants import Variant

VARIANTS = (
    Variant("raw", "MLX compiled", "ops_mlx", "raw"),
    Variant("ours", "mlx_fp", "ops_mlx", "ours"),
    Variant("native", "mlx_fp native", "ops_mlx", "ours", (("MLX_FP_JIT", "native"),)),
    Variant("torch", "PyTorch eager", "ops_torch", "eager"),
)


def main(arguments=None):
    asked = parser(__doc__)
    asked.set_defaults(seconds="0.8")
    asked.add_argument("--out", type=Path, default=results.FOLDER / "profile.json", help="where to write the JSON")
    given = asked.parse_args(arguments)
    wanted, given.variants = [name for name in given.variants.split(",") if name], ""
    shown = [variant for variant in VARIANTS if not wanted or variant.name in wanted]
    result = run(options(given), shown)
    results.write(given.out, result)
    for case in dict.fromkeys(row["case"] for row in result["rows"]):
        console.print(table(case, [row for row in result["rows"] if row["case"] == case], shown))
    reasons = {f"{name}: {reason}" for row in result["rows"] for name, reason in row["reasons"].items()}
    console.print(*sorted(reasons), f"written to {given.out}", sep="\n")
    return 0


def run(asked, shown):
    """Measure the operations of all cases; one that several share is measured once."""
    load, known, rows = results.load(), {}, []
    with tempfile.TemporaryDirectory() as folder, Pool(shown, folder, asked.threads) as pool:
        weights(folder, asked.cases, asked.threads)
        for case in (case for case in asked.cases if not case.paired):
            start, shapes = time.perf_counter(), [leaf.shape for leaf in inputs.read(folder, case.name)[0].values()]
            for op in merged(ops(case, shapes)):
                key = op.kind, op.sizes
                if key not in known:
                    known[key] = _measured(op, pool, asked)
                rows.append({"case": case.name, "op": op.title, "times": op.times, "inside": op.inside, **known[key]})
            console.print(f"{case.name} ({time.perf_counter() - start:.0f} s)", highlight=False)
    return results.gathered(rows, asked, pool.versions, load)


def merged(found):
    """The operations with those of one kind and size counted together."""
    times = {}
    for op in found:
        key = op.kind, op.sizes, op.inside
        times[key] = times.get(key, 0) + op.times
    return [type(found[0])(kind, sizes, count, inside) for (kind, sizes, inside), count in times.items()]


def _measured(op, pool, asked):
    """The quartiles of the seconds of an operation by variant, and the reasons of those that have none."""
    reasons, ready = {}, []
    for variant in pool.variants:
        try:
            pool.worker(variant).ask(do="prepare", op={"kind": op.kind, "sizes": op.sizes})
            ready.append(variant.name)
        except Failed as failed:
            reasons[variant.name] = str(failed)
    taken = turns(pool, ready, asked, reasons)
    return {"seconds": {name: spread(each) for name, each in taken.items()}, "reasons": reasons}


def table(case, rows, shown):
    """Return the time of each operation in a step of a case, with the longest distance to PyTorch first."""
    made = Table(title=f"{case}: milliseconds of a training step", caption="medians; (in another) is not in the sum")
    made.add_column("operation")
    for name in ("times", *(variant.label for variant in shown), "to PyTorch"):
        made.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -_distance(row, shown)):
        where = " (in another)" if row["inside"] else ""
        made.add_row(row["op"] + where, str(row["times"]), *_figures([row], shown), style="dim" if where else "")
    made.add_section()
    made.add_row("sum", "", *_figures([row for row in rows if not row["inside"]], shown))
    return made


def _figures(rows, shown):
    sums = [sum(_milliseconds(row, variant.name) for row in rows) for variant in shown]
    distance = sum(_distance(row, shown) for row in rows)
    return [*(f"{value:.3g}" for value in sums), f"{distance:+.3g}"]


def _milliseconds(row, name):
    return 1e3 * row["times"] * row["seconds"][name][1] if name in row["seconds"] else float("nan")


def _distance(row, shown):
    """Return the milliseconds in a step by which our last variant is behind PyTorch in an operation."""
    ours = [variant.name for variant in shown if variant.name != "torch" and variant.name in row["seconds"]]
    if not ours or "torch" not in row["seconds"]:
        return 0.0
    return _milliseconds(row, ours[-1]) - _milliseconds(row, "torch")


if __name__ == "__main__":
    sys.exit(main())
