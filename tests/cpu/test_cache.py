"""What MLX keeps of freed memory: more for large models, and what a program says stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_fp.core._mlx import on_cpu

ROOT = Path(__file__).parents[2]
DEFAULT = 32 << 20
HEAD = """
import os
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn, optim

def limit():
    now = mx.set_cache_limit(0)
    mx.set_cache_limit(now)
    return now

def init(width):
    model = nn.linear(width, width, bias=False)
    return fp.train_step(model, lambda f, x: f(x).mean(), optim.adamw(1e-3)).init(0)
"""


def run(code):
    """Run `HEAD` and `code` in a process of its own, whose limits nothing has touched; return the numbers it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


pytestmark = pytest.mark.skipif(not on_cpu(), reason="on a GPU MLX keeps all")
LARGE, LARGER = 4 * 2900**2, 4 * 3000**2
"""Bytes of two models of more than 32 MB."""


def test_init_of_a_large_model_lets_mlx_keep_three_times_its_parameters():
    found = run("print(limit()); init(100); print(limit()); init(3000); print(limit()); init(2900); print(limit())")
    assert found == [DEFAULT, DEFAULT, 3 * LARGER, 3 * LARGER]


@pytest.mark.parametrize("native", [False, True])
def test_that_of_a_smaller_one_is_written_anew_by_mlx_s_own_kernels_and_takes_more(native):
    code = f"from mlx_fp.cpu import _native; _native._engaged += ['here'] * {native}\n"
    found = run(code + "init(1440); print(limit()); init(1500); print(limit())")
    assert found == [DEFAULT, DEFAULT if native else 4 * 4 * 1500**2]


def test_a_larger_model_raises_it_again():
    assert run("init(2900); print(limit()); init(3000); print(limit())") == [3 * LARGE, 3 * LARGER]


@pytest.mark.parametrize("own", [0, 50 << 20, 1 << 30])
def test_what_the_program_has_set_stays(own):
    assert run(f"mx.set_cache_limit({own}); init(3000); print(limit())") == [own]
    assert run(f"init(2900); mx.set_cache_limit({own}); init(3000); print(limit())") == [own]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", ["", "import mlx_fp.step._train"])
def test_in_a_fork_of_a_process_that_has_used_mlx_init_does_not_wait_for_threads_that_are_not_there(before):
    code = f"""
{before}
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    init(3000)
    os._exit(7)
"""
    assert run(code) == [7]


def test_a_large_step_takes_no_more_memory_at_its_peak():
    code = """
model = nn.linear(3000, 3000, bias=False)
made = fp.train_step(model, lambda f, x: (f(x) ** 2).mean(), optim.adamw(1e-3))
params, opt_state = made.init(0)
for _ in range(3):
    params, opt_state, _ = made(params, opt_state, mx.ones((4, 3000)))
    mx.eval(params, opt_state)
print(mx.get_peak_memory(), mx.get_cache_memory())
"""
    peak, kept = run(code)
    assert peak <= 4.1 * LARGER
    assert kept <= 3 * LARGER


def test_what_was_kept_of_other_work_makes_room():
    work = "mx.eval(*(mx.zeros((1 << 20, i)) for i in range(1, 4))); print(mx.get_cache_memory())"
    before, after = run(f"{work}; init(3000); print(mx.get_cache_memory())")
    assert before > 20 << 20
    assert run("init(3000); print(mx.get_cache_memory())") == [after]
