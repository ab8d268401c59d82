"""Test runs in several processes under faults. `python bench/faults.py --runs 20`.

Each fault is caused N times in runs of two processes on the loopback: an error of one process in its data, its loss or
a hook; SIGTERM and SIGKILL; a loss that is not finite. Then a run of 200 steps is killed in two processes, killed again
in one, and ended in three. Each fault prints a line of figures. The exit status is 1 if a process hung, or did not end
as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from processes import finish, start, wait_until_ready  # noqa: E402  # the path above leads to it

PROGRAM = TESTS / "across" / "program.py"
ENDLESS = {"pause": 0.01, "steps": 5000}


def pair(folder, options, act=None):
    """Run two processes; call `act(processes)` when both have taken some steps. Return the results, and seconds."""
    started = start(PROGRAM, 2, folder, json.dumps(options))
    if act is not None:
        wait_until_ready(folder, started)
        act(started)
    begun = time.perf_counter()
    outputs = [(status, json.loads(out) if out else None) for status, out, _ in finish(started)]
    return outputs, time.perf_counter() - begun


def failed(text):
    """Return a check: the second process has the error, and the first knows it."""
    expected = [
        (0, {"error": "PeerError", "text": f"process 1 has failed: ValueError: {text}"}),
        (0, {"error": "ValueError", "text": text}),
    ]
    return lambda outputs: outputs == expected


def equal(outputs):
    """Tell whether both processes ended well, with the same bits after the same step."""
    (one, first), (other, second) = outputs
    return one == other == 0 and "error" not in first and first["checksums"] == second["checksums"]


def lost(outputs):
    """Tell whether the first process ended with the error of the transport, and the second by SIGKILL."""
    (status, first), (killed, _) = outputs
    return status == 0 and first["error"] == "RuntimeError" and killed == -signal.SIGKILL


def both_raise(outputs):
    """Tell whether both processes raised the error of a loss that is not finite."""
    return all(status == 0 and result.get("error") == "FloatingPointError" for status, result in outputs)


FAULTS = {
    "error in the data": ({"data_fails_at": 7}, None, failed("a bad row")),
    "error in the loss": ({"loss_fails": True}, None, failed("a bad loss")),
    "error in a hook": ({"hook": "raise", "at": 6}, None, failed("a bad hook")),
    "SIGTERM": (ENDLESS, lambda started: started[1].send_signal(signal.SIGTERM), equal),
    "SIGINT to both": (ENDLESS, lambda started: [each.send_signal(signal.SIGINT) for each in started], equal),
    "SIGKILL": (ENDLESS, lambda started: os.kill(started[1].pid, signal.SIGKILL), lost),
    "not finite, raise": ({"infinite_at": 6, "nonfinite": "raise"}, None, both_raise),
    "not finite, stop": ({"infinite_at": 6, "nonfinite": "stop"}, None, equal),
    "not finite, skip": ({"infinite_at": 6, "nonfinite": "skip"}, None, equal),
    "not finite, keep": ({"infinite_at": 6, "nonfinite": "keep"}, None, equal),
}


def cause(name, runs):
    """Cause a fault in some runs, print a line, and return whether all ended as promised."""
    options, act, check = FAULTS[name]
    hung, wrong, seconds = 0, [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            place = {"folder": f"{folder}/run", **({"ready": folder} if act else {})}
            try:
                outputs, spent = pair(Path(folder), {**options, **place}, act)
            except subprocess.TimeoutExpired:
                hung += 1
                continue
            seconds.append(spent)
            if not check(outputs):
                wrong.append(outputs)
    middle = f"{median(seconds):.1f} s, at most {max(seconds):.1f} s" if seconds else ""
    print(f"{name:20} runs {runs}, hung {hung}, wrong {len(wrong)}  {middle}", flush=True)
    for outputs in wrong[:2]:
        print("   ", outputs)
    return not hung and not wrong


def resume_with_other_numbers():
    """Kill a run of 200 steps in two processes and in one, end it in three, and compare it with one process."""
    options = {"steps": 200, "accumulate": 2, "patience": 30}
    with tempfile.TemporaryDirectory() as folder:
        for ranks, at in ((2, 70), (1, 140)):
            killed = {**options, "folder": f"{folder}/run", "ready": folder, "ready_at": at}
            started = start(PROGRAM, ranks, Path(folder), json.dumps({**killed, "resume": "latest"}))
            wait_until_ready(Path(folder), started)
            for each in started:
                each.kill()
            finish(started)
            for path in Path(folder).glob("ready-*"):
                path.unlink()
        resumed = {**options, "folder": f"{folder}/run", "resume": "latest"}
        three = [json.loads(out) for _, out, _ in finish(start(PROGRAM, 3, Path(folder), json.dumps(resumed)))]
        ((_, out, _),) = finish(start(PROGRAM, 1, Path(folder), json.dumps(options)))
    one = json.loads(out)
    apart = max(
        abs(a - b) for path in one["params"] for a, b in zip(one["params"][path], three[0]["params"][path], strict=True)
    )
    same = all(each["checksums"] == three[0]["checksums"] for each in three)
    print(
        f"200 steps, 2 -> 1 -> 3 processes: parameters at most {apart:.1e} from one process, replicas equal: {same}, "
        f"losses {three[0]['losses'][0]:.7f} {three[0]['losses'][-1]:.7f} and {one['losses'][0]:.7f} "
        f"{one['losses'][-1]:.7f}, steps {three[0]['row']['steps']} and {one['row']['steps']}"
    )
    return same and apart < 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", choices=[*FAULTS, "resume"], action="append")
    arguments = parser.parse_args()
    names = arguments.only or [*FAULTS, "resume"]
    kept = [cause(name, arguments.runs) for name in names if name != "resume"]
    kept += [resume_with_other_numbers()] if "resume" in names else []
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
