"""Measure models across frameworks, print a table, write JSON and a picture; `--check` compares with the baseline."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

from rich.progress import Progress, TextColumn, TimeElapsedColumn

from . import gate, picture, results, tables
from .measure import measure, weights
from .options import options, parser
from .pool import Pool
from .tables import console
from .variants import CONTROL, REFERENCE


def main(arguments=None):
    asked = parser(__doc__)
    asked.add_argument("--out", type=Path, default=results.FOLDER / "latest.json", help="where to write the JSON")
    asked.add_argument("--check", type=Path, metavar="JSON", help="compare with this result; status 1 if slower")
    asked.add_argument("--tolerance", type=float, default=gate.TOLERANCE, help="of --check: how much worse is allowed")
    given = asked.parse_args(arguments)
    if given.check:
        given.variants = given.variants or f"{REFERENCE},{CONTROL},ours"
        return check(options(given), given)
    result = run(options(given))
    results.write(given.out, result)
    picture.draw(result, given.out.with_suffix(".png"))
    console.print(tables.results(result), *tables.failures(result), sep="\n")
    console.print(f"written to {given.out} and {given.out.with_suffix('.png').name}")
    return 0


def check(asked, given):
    """Measure the reference and ours, compare them with a baseline, repeat failed rows; return the exit status."""
    baseline = results.read(given.check)
    now = run(asked)
    found = {(v.case, v.mode, v.variant): v for v in gate.compare(baseline, now, given.tolerance)}
    if failed := {v.case for v in found.values() if v.failed}:
        console.print(f"again, in new processes: {', '.join(sorted(failed))}")
        again = run(replace(asked, cases=tuple(case for case in asked.cases if case.name in failed)))
        second = {(v.case, v.mode, v.variant): v for v in gate.compare(baseline, again, given.tolerance)}
        found |= {key: v for key, v in second.items() if found[key].failed}
    results.write(results.FOLDER / "check.json", now)
    console.print(tables.verdicts(found.values()))
    for name in ("machine", "versions", "settings"):
        if baseline[name] != now[name] and (odd := _differences(baseline[name], now[name])):
            console.print(f"{name}, baseline and now: {odd}")
    return int(any(v.failed for v in found.values()))


def run(asked):
    """Measure all selected cases and modes, and print a line for each."""
    rows, load = [], results.load()
    if load is not None and load > 0.3:
        console.print(f"the load average is {load}: other programs disturb the measurement, PyTorch's threads most")
    with tempfile.TemporaryDirectory() as folder, Pool(asked.variants, folder, asked.threads) as pool, _bar() as bar:
        places = [(case, mode) for case, mode in product(asked.cases, asked.modes) if mode in case.modes]
        task = bar.add_task("", total=len(places))
        weights(folder, asked.cases, asked.threads)
        for case, mode in places:
            bar.update(task, description=f"{case.name} {mode}")
            start = time.perf_counter()
            found = measure(case, mode, pool, asked)
            rows += found
            bar.advance(task)
            seconds = f"({time.perf_counter() - start:.0f} s)"
            bar.console.print(tables.line(case, mode, found), seconds, highlight=False, soft_wrap=True)
    return results.gathered(rows, asked, pool.versions, load)


def _bar():
    columns = (*Progress.get_default_columns()[:2], TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _differences(before, now):
    keys = [key for key in {**before, **now} if key in before and key in now and before[key] != now[key]]
    return ", ".join(f"{key} {before[key]} and {now[key]}" for key in keys)


if __name__ == "__main__":
    sys.exit(main())
