"""Time a program on a quiet and on a busy machine, in turns: `python bench/busy.py [--turns 5] [PROGRAM ARGUMENT...]`.

The machine is busy with one program per core that computes without end. By default the program is the digits demo.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

DEMO = Path(__file__).resolve().parents[1] / "examples" / "digits.py"


@contextmanager
def neighbours(count):
    """Run programs that never rest, until the context ends."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def timed(command):
    """Run a command; return its seconds, and its seconds of CPU time."""
    start, before = time.perf_counter(), cpu_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(turns, count, command):
    timed(command)  # kernels are compiled, files are read
    quiet, busy = [], []
    for _ in range(turns):
        quiet.append(timed(command))
        with neighbours(count):
            busy.append(timed(command))
    for name, times in (("quiet", quiet), ("busy", busy)):
        seconds, used = (sorted(column) for column in zip(*times, strict=True))
        print(f"{name}: {median(seconds):.1f} s [{seconds[0]:.1f}, {seconds[-1]:.1f}], {median(used):.1f} s of CPU")
    ratios = sorted(b[0] / q[0] for q, b in zip(quiet, busy, strict=True))
    print(f"busy to quiet: {median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="turns, of which each times both")
    parser.add_argument("--neighbours", type=int, default=os.cpu_count(), help="programs that keep a core busy")
    parser.add_argument("command", nargs="*", help="a program of Python and its arguments")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(asked.turns, asked.neighbours, [sys.executable, *(asked.command or [str(DEMO), folder])])
