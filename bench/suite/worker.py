"""One process that runs one variant when it is told to: `python -m suite.worker MODULE WAY FOLDER`.

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
"""The seconds, one call at least, that a turn begins with."""

CHECKED = 6
"""Steps whose losses, and numbers of a forward pass, that are compared with those of the reference."""


def main(module, way, folder):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes with the errors
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
    case, mode = order["case"], order["mode"]
    run = runner.prepare(way, named(case), mode, *read(folder, case))
    if mode == "train":
        return run, [_floats(run())[0] for _ in range(CHECKED)]
    found = _floats(run())
    return run, [*found[:CHECKED], sum(map(abs, found)) / len(found)]


def _floats(result):
    import numpy as np

    return np.asarray(result).ravel().astype("float64").tolist()


def _timed(run, calls):
    """The seconds of a call, after some that wake up threads and fill the processor's caches again."""
    start = time.perf_counter()
    while time.perf_counter() - start < WARM:
        run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    main(*sys.argv[1:])
