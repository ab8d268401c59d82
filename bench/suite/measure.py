"""Measure a case in a mode: every variant prepares, its numbers are compared, then they take turns in random order."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from statistics import quantiles

from .pool import Failed, environment
from .variants import REFERENCE

TOLERANCE = 2e-4
"""The tolerated difference of losses and outputs from the reference's, relative for numbers above 1."""

TURN, SETTLE, FEWEST, MOST = 0.04, 0.003, 7, 60
"""The least seconds of a turn, the seconds of rest before one, and the bounds of the number of turns."""


def weights(folder, cases, threads):
    """Write the weights of the cases into a folder, in a process of its own."""
    names = [case.name for case in cases if not case.paired]
    command = [sys.executable, "-m", "suite.inputs", str(folder), *names]
    subprocess.run(command, check=True, env=environment(threads))


def measure(case, mode, pool, options):
    """The rows of a case in a mode, one a variant: seconds and ratios to the reference, or the reason for none."""
    variants = [variant for variant in pool.variants if variant.pairs or not case.paired]
    reasons, numbers = {}, _prepared(case, mode, pool, variants)
    tolerance = 0.0 if case.exact else TOLERANCE
    for name, found in numbers.items():
        if isinstance(found, Failed):
            reasons[name] = str(found)
        elif isinstance(numbers[REFERENCE], Failed):
            reasons[name] = "no reference"
        elif (apart := distance(found, numbers[REFERENCE])) > tolerance:
            reasons[name] = f"other numbers than the reference, by {apart:.1e}"
    taken = turns(pool, [v.name for v in variants if v.name not in reasons], options, reasons)
    return [_row(case, mode, v.name, taken, reasons.get(v.name)) for v in variants]


def distance(numbers, reference):
    """The largest difference of two lists of numbers, relative where the numbers are above 1."""
    if len(numbers) != len(reference):
        return float("inf")
    apart = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(numbers, reference, strict=True)]
    return max(a if a == a else float("inf") for a in apart)


def spread(values):
    """The quartiles of some numbers: (lower, median, upper)."""
    return tuple(quantiles(values, n=4)) if len(values) > 1 else (values[0],) * 3


def _prepared(case, mode, pool, variants):
    """Make all workers prepare at the same time; return the first numbers of each, or the reason for none."""
    asked, found = {}, {}
    for variant in variants:
        try:
            asked[variant.name] = pool.worker(variant)
            asked[variant.name].send(do="prepare", case=case.name, mode=mode)
        except Failed as failed:
            asked.pop(variant.name, None)
            found[variant.name] = failed
    for name, worker in asked.items():
        try:
            found[name] = worker.receive()["numbers"]
        except Failed as failed:
            found[name] = failed
    return found


def turns(pool, names, options, reasons):
    """Return the seconds of a call by variant, one figure per turn. A worker that fails is dropped, with its reason."""
    taken = {name: [] for name in names}

    def turn(name, calls):
        time.sleep(SETTLE)  # wait until the threads of the previous worker sleep
        try:
            return pool.worker(pool.named[name]).ask(do="run", calls=calls)["seconds"]
        except Failed as failed:
            taken.pop(name, None)
            reasons.setdefault(name, str(failed))
            return TURN

    pace = {name: min(turn(name, 1), turn(name, 2)) for name in names}  # these turns are also a warm-up
    calls = {name: max(1, round(TURN / seconds)) for name, seconds in pace.items()}
    for _ in range(_count(sum(calls[name] * pace[name] + SETTLE for name in names), options)):
        for name in random.sample(list(taken), len(taken)):
            seconds = turn(name, calls[name])
            if name in taken:
                taken[name].append(seconds)
    return taken


def _count(seconds, options):
    """Return the number of turns, from the seconds that one turn of all variants takes."""
    return options.turns or max(FEWEST, min(MOST, round(options.seconds / max(seconds, 1e-9))))


def _row(case, mode, name, taken, reason):
    row = {"case": case.name, "mode": mode, "variant": name}
    if name not in taken or REFERENCE not in taken:
        return {**row, "reason": reason or "no reference"}
    ratios = [a / b for a, b in zip(taken[name], taken[REFERENCE], strict=True)]
    return {**row, "seconds": spread(taken[name]), "ratio": spread(ratios), "turns": len(ratios)}
