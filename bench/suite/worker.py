"""One process that runs one variant on orders: `python -m suite.worker MODULE WAY FOLDER`.

It reads a JSON line per command from standard input and answers each with one: `prepare` a case in a mode and give its
first numbers, or an operation; `run` so many calls and give the seconds of one. Between commands it sleeps in a read.
"""

import gc
import importlib
import json
import os
import sys
import time
import traceback

from .cases import named
from .inputs import read

WARM = 0.02
"""The seconds of warm-up at the start of a turn; it is at least one call."""

CHECKED = 6
"""The number of steps, and of numbers of an output, that are compared with the reference's."""


def main(module, way, folder):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of a library goes to the errors
    runner, run = importlib.import_module(f".{module}", __package__), None
    print(json.dumps({"versions": runner.versions()}), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "prepare":
                run = None
                gc.collect()
                run, numbers = _prepared(runner, way, folder, order)
                answer = {"numbers": numbers}
            else:
                answer = {"seconds": _timed(run, order["calls"])}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
        print(json.dumps(answer), file=answers)


def _prepared(runner, way, folder, order):
    if "op" in order:
        run = runner.prepare(way, **order["op"])
        run()
        return run, []
    case, mode = named(order["case"]), order["mode"]
    if case.paired:
        run = importlib.import_module(".pairs", __package__).prepare(way, case)
        return run, [number for _ in range(getattr(run, "checked", CHECKED)) for number in _floats(run())]
    run = runner.prepare(way, case, mode, *read(folder, case.name))
    if mode == "train":
        return run, [_floats(run())[0] for _ in range(CHECKED)]
    found = _floats(run())
    return run, [*found[:CHECKED], sum(map(abs, found)) / len(found)]


def _floats(result):
    import numpy as np

    return np.asarray(result).ravel().astype("float64").tolist()


def _timed(run, calls):
    """Return the seconds of a call, after calls that wake up threads and fill the processor's caches.

    A trainer that reports its own seconds is called once.
    """
    if hasattr(run, "seconds"):
        run()
        return run.seconds
    start = time.perf_counter()
    while time.perf_counter() - start < WARM:
        run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    main(*sys.argv[1:])
