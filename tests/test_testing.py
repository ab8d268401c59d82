"""`fp.testing.benchmark_step`, with the real fixture of pytest-benchmark."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from helpers import ROOT, bits, child_env, mse, run_python
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.testing import benchmark_step

BATCH = {"x": mx.ones((16, 4)), "y": mx.zeros((16, 2))}


def made(**options):
    model = nn.sequential(nn.linear(4, 8), nn.relu, nn.linear(8, 2))
    return fp.train_step(model, mse, optim.adamw(1e-2), **options)


def test_it_notes_rates_and_traces_and_gives_the_last_state(benchmark):
    step = made()
    params, opt_state = step.init(0)
    before = bits(params)
    after, state, logs = fp.testing.benchmark_step(benchmark, step, params, opt_state, BATCH, rounds=5)
    info = benchmark.extra_info
    assert bits(params) == before  # the caller's own arrays can still be read, and are the same
    assert bits(after) != before
    assert state["optimizer"]["step"].item() == 3 + (5 if benchmark.enabled else 1)
    assert logs["loss"].item() > 0
    assert info["traces"] == step.traces == 1
    if benchmark.enabled:
        assert info["steps_per_second"] == pytest.approx(1 / benchmark.stats["median"], rel=1e-3)
        assert info["examples_per_second"] == pytest.approx(16 * info["steps_per_second"], rel=1e-3)
    assert info["peak_memory_mb"] > 0
    again = step(after, state, BATCH)
    assert again[2]["loss"].item() < logs["loss"].item()


def test_it_calibrates_without_rounds(benchmark):
    benchmark._max_time, benchmark._min_time = 0.02, 1e-5
    step = made()
    benchmark_step(benchmark, step, *step.init(0), BATCH)
    assert step.traces == 1


def test_any_function_of_params_state_and_batch_will_do(benchmark):
    """A step of one's own, on a batch with constants and a numpy array in it, has no traces to tell."""

    @mx.compile
    def taken(params, count, x):
        return params - 0.1 * x.mean(), count + 1

    def step(params, count, batch):
        params, count = taken(params, count, mx.array(batch["x"]))
        return params, count, params

    batch = {"name": "half", "scale": 0.5, "x": np.ones((6, 2), "float32")}
    _, count, _ = benchmark_step(benchmark, step, mx.array(1.0), mx.array(0), batch, rounds=4, warm_up=2)
    assert count.item() == 2 + (4 if benchmark.enabled else 1)
    assert "traces" not in benchmark.extra_info
    if benchmark.enabled:
        ratio = benchmark.extra_info["examples_per_second"] / benchmark.extra_info["steps_per_second"]
        assert ratio == pytest.approx(6, rel=1e-3)


class Counted:
    """A fixture that runs once, and counts the traces that it sees."""

    def __init__(self, step):
        self.step, self.stats, self.extra_info, self.seen = step, None, {}, []

    def __call__(self, function):
        self.seen.append(self.step.traces)
        function()
        self.seen.append(self.step.traces)


def test_compilation_comes_before_the_clock():
    step = made()
    fixture = Counted(step)
    benchmark_step(fixture, step, *step.init(0), BATCH, warm_up=1)
    assert fixture.seen == [1, 1]
    assert set(fixture.extra_info) == {"traces", "peak_memory_mb"}  # no rates where nothing was timed


def test_old_states_are_let_go_so_that_memory_is_used_again():
    """Three states of 4 MB live at the peak: the caller's, the one before and gradients; not one for each call."""
    model = nn.define(lambda m: m.weight.square().sum(), weight=nn.param((1024, 1024)))
    step = fp.train_step(model, lambda model: model(), pipe(optim.sgd(0.1)))

    def peak(calls):
        class Many(Counted):
            def __call__(self, function):
                for _ in range(calls):
                    function()

        fixture = Many(step)
        benchmark_step(fixture, step, *step.init(0), {})
        return fixture.extra_info["peak_memory_mb"]

    one = peak(1)
    assert peak(20) <= one + 0.5


def test_without_a_warm_up_there_is_nothing_to_time():
    step = made()
    with pytest.raises(ValueError, match="warm_up is 1 at least"):
        benchmark_step(Counted(step), step, *step.init(0), BATCH, warm_up=0)


def test_it_is_imported_without_pytest_benchmark():
    code = "import sys; sys.modules['pytest_benchmark'] = sys.modules['pytest'] = None; import mlx_fp; mlx_fp.testing"
    run_python(code)


def test_the_example_of_the_page_is_a_benchmark(tmp_path):
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    snippet = re.search(r"^```python\n(# test_speed.py\n.*?)^```", page, re.S | re.M).group(1)
    (tmp_path / "test_speed.py").write_text(snippet, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
        "--benchmark-json",
        "found.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=child_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    assert row["extra_info"]["traces"] == 1
    assert row["extra_info"]["examples_per_second"] > row["extra_info"]["steps_per_second"] > 0
