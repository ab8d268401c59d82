"""Compare the compiled step with MLX's documented idiom: time per step, time of the first call, peak memory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from models import MODELS, check, ours, raw
from paired import note, paired

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", MODELS)
def test_step(benchmark, name):
    make, batch = MODELS[name]()
    check(make, batch)
    calls = {"tiny_mlp": 30, "mlp_784_256_10": 5, "transformer_lm": 1}[name]
    functions = {"raw": raw(make, batch), "raw again": raw(make, batch), "ours": ours(make, batch)}
    note(benchmark, paired(functions, turns=200, calls=calls), "raw")
    benchmark.pedantic(functions["ours"], rounds=20, iterations=calls)


@pytest.mark.parametrize("name", MODELS)
def test_first_call(benchmark, name):
    """Time tracing and kernel compilation; each turn has new processes with an empty kernel cache."""
    taken = {"raw": [], "ours": []}

    def turn():
        for idiom, times in taken.items():
            with tempfile.TemporaryDirectory() as cache:
                times.append(_subprocess("first", idiom, name, TMPDIR=cache))

    benchmark.pedantic(turn, rounds=5)
    note(benchmark, taken, "raw")


def test_peak_memory(benchmark):
    """Measure the peak memory of a 20-million-parameter model with AdamW, each idiom in a process of its own."""
    peaks = {}

    def turn():
        peaks.update({idiom: _subprocess("memory", idiom, "") for idiom in ("raw", "ours")})

    benchmark.pedantic(turn, rounds=1)
    benchmark.extra_info |= {f"{idiom}_mb": round(peak / 1e6, 1) for idiom, peak in peaks.items()}
    benchmark.extra_info["ours/raw"] = round(peaks["ours"] / peaks["raw"], 4)
    print(f"\n  peak memory: {benchmark.extra_info}", end="")


def _subprocess(*args, **env):
    command = [sys.executable, str(HERE / "once.py"), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **env}, cwd=HERE)
    return json.loads(done.stdout.splitlines()[-1])
