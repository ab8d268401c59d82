"""Time a product through MLX with the fast BLAS, and the effect of the binding on torch in the same process.

Run with `pytest bench/test_blas.py`. Nothing here asserts a time: read the ratios, and the control beside them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mlx_fp.cpu import _blas as blas

ROOT = Path(__file__).resolve().parents[1]
N, TURNS, PROCESSES = 1024, 60, 8


def test_product_against_numpy(benchmark: Any) -> None:
    """Time a product of 1024 x 1024 float32 matrices through MLX and through numpy, in turns of random order."""
    mx = pytest.importorskip("mlx.core")
    found = blas.bind()
    np = pytest.importorskip("numpy")  # import it after the binding, so that its threads have the same timeout
    a, b = (np.random.default_rng(seed).normal(size=(N, N)).astype("float32") for seed in (0, 1))
    x, y = mx.array(a), mx.array(b)

    def ours() -> None:
        mx.eval(mx.matmul(x, y, stream=mx.cpu))

    times = in_turns({"mlx": ours, "mlx again": ours, "numpy": lambda: a @ b})
    report = {name: spread(each) for name, each in times.items()}
    report["gflops"] = {name: round(2e-9 * N**3 / statistics.median(each)) for name, each in times.items()}
    report["mlx to numpy"] = spread_of_ratio(times["mlx"], times["numpy"])
    report["control, mlx to mlx"] = spread_of_ratio(times["mlx"], times["mlx again"])
    benchmark.extra_info.update(report, blas=str(found))
    print("", found, *(f"{name}: {value}" for name, value in report.items()), sep="\n")
    benchmark.pedantic(ours, rounds=20, warmup_rounds=2)


def test_torch_is_as_fast_beside_it(benchmark: Any) -> None:
    """Time torch's product in processes with and without the binding, in turns, with MLX products in between."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: nothing to compare")
    medians: dict[str, list[float]] = {"bound": [], "off": [], "off again": []}
    for _ in range(PROCESSES):
        for mode in random.sample(list(medians), len(medians)):
            medians[mode].append(torch_process("" if mode == "bound" else "off"))
    report = {name: spread(each) for name, each in medians.items()}
    report["bound to off"] = spread_of_ratio(medians["bound"], medians["off"])
    report["control, off to off"] = spread_of_ratio(medians["off"], medians["off again"])
    benchmark.extra_info.update(report)
    print("", *(f"{name}: {value}" for name, value in report.items()), sep="\n")
    benchmark.pedantic(torch_process, args=("",), rounds=1)


TORCH = """
import json, statistics, time
import torch, mlx.core as mx
from mlx_fp.cpu import _blas as blas
found = blas.bind()
a, b = torch.randn(512, 512), torch.randn(512, 512)
x = mx.random.normal((256, 256))
times = []
for _ in range(60):
    mx.eval(mx.matmul(x, x, stream=mx.cpu))
    start = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - start)
print(json.dumps([len(found.bound), statistics.median(times[10:])]))
"""


def torch_process(choice: str) -> float:
    """Return the median seconds of torch's product in a process of its own, with MLX_FP_BLAS set to `choice`."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "MLX_FP_BLAS": choice}
    env.pop("OPENBLAS_THREAD_TIMEOUT", None)
    done = subprocess.run([sys.executable, "-c", TORCH], env=env, capture_output=True, text=True, check=True)
    bound, median = json.loads(done.stdout)
    assert bool(bound) == (choice != "off"), done.stderr
    return float(median)


def in_turns(runs: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the seconds of each run: TURNS turns, each in a new random order."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS + 3):
        for name in random.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name]()
            times[name] += [time.perf_counter() - start] * (turn >= 3)
    return times


def spread(seconds: list[float]) -> str:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{1e3 * middle:.2f} ms [{1e3 * low:.2f}, {1e3 * high:.2f}]"


def spread_of_ratio(mine: list[float], theirs: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(mine, theirs, strict=True)], n=4)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"
