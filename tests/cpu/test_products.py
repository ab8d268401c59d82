"""A matrix product in blocks: the right numbers for all shapes, layouts and threads, and the same bits each time."""

from __future__ import annotations

import signal
import threading
from itertools import product as combinations

import mlx.core as mx
import numpy as np
import pytest
from helpers import python_process

from mlx_fp.core._mlx import on_cpu
from mlx_fp.cpu import _products, blas
from mlx_fp.cpu._functions import functions

pytestmark = pytest.mark.skipif(
    not on_cpu() or not blas().bound or "its own threads" in blas().reason, reason="needs OpenBLAS and g++ on Linux"
)
SHAPES = [
    (1, 700, 9000),
    (9000, 700, 1),
    (2, 8192, 1024),
    (333, 257, 999),
    (1024, 256, 1024),
    (64, 30000, 48),
    (17, 5, 3),
]


def set_threads(count):
    functions()[0].mlx_fp_set_threads(count)


@pytest.fixture(autouse=True)
def threads_as_before():
    yield
    set_threads(blas().threads)


def _matrices(m, k, n, left, right):
    """Return A and B whose products are exact in float32, stored transposed where asked."""
    a, b = (np.random.default_rng(n).integers(-3, 4, (m, k)), np.random.default_rng(m).integers(-3, 4, (k, n)))
    stored = [mx.array((x.T if turned else x).astype(np.float32)) for x, turned in ((a, left), (b, right))]
    return a, b, *(x.T if turned else x for x, turned in zip(stored, (left, right), strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_is_exact(shape, count):
    set_threads(count)
    for left, right in combinations((False, True), repeat=2):
        a, b, x, y = _matrices(*shape, left, right)
        np.testing.assert_array_equal(np.array(x @ y), a.astype(np.float64) @ b)


def test_a_sum_is_added_to_each_block_once():
    set_threads(3)
    a, b, x, y = _matrices(500, 300, 400, False, True)
    c = mx.arange(500 * 400, dtype=mx.float32).reshape(500, 400)
    got = np.array(mx.addmm(c, x, y, alpha=2.0, beta=-3.0))
    np.testing.assert_array_equal(got, 2 * (a @ b) - 3 * np.array(c))


def test_the_bits_are_the_same_when_other_threads_compute():
    """While the helpers serve another stream, a thread computes its blocks alone."""
    x, y = mx.random.normal((600, 777), key=mx.random.key(0)), mx.random.normal((777, 500), key=mx.random.key(1))
    set_threads(2)
    mx.eval(x, y)
    alone, different = np.array(x @ y), []

    def compute():
        with mx.stream(mx.new_stream(mx.cpu)):
            different.extend(i for i in range(40) if not np.array_equal(np.array(x @ y), alone))

    workers = [threading.Thread(target=compute) for _ in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert not different


def test_helpers_leave_signals_to_the_program():
    python_process(
        """
import signal, threading, time
from pathlib import Path
import mlx.core as mx
from mlx_fp.cpu import blas
from mlx_fp.cpu._functions import functions
before = set(Path("/proc/self/task").iterdir())
blas()
functions()[0].mlx_fp_set_threads(3)
x = mx.random.normal((1000, 1000)); mx.eval(x @ x)
blocked = [int(line.split()[1], 16) for task in Path("/proc/self/task").iterdir() if task not in before
           for line in (task / "status").read_text().splitlines() if line.startswith("SigBlk")]
assert sum(mask >> (signal.SIGINT - 1) & 1 for mask in blocked) == 2, blocked
"""
    )
    assert signal.getsignal(signal.SIGINT) is not None


def test_the_environment_chooses_the_number_of_threads():
    code = "from mlx_fp.cpu import blas; print(blas().threads)"
    assert python_process(code, OPENBLAS_NUM_THREADS="1").stdout.strip() == "1"


def test_without_a_compiler_products_are_left_to_openblas(tmp_path):
    code = """
from mlx_fp.cpu import blas
print(blas())
assert blas().threads == 2
import mlx.core as mx
assert mx.array_equal(mx.ones((300, 300)) @ mx.ones((300, 300)), mx.full((300, 300), 300.0))
"""
    done = python_process(code, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), OPENBLAS_NUM_THREADS="2")
    assert "its own threads compute products, because MLX compiles nothing without g++" in done.stdout


def test_a_damaged_library_is_built_again(tmp_path):
    code = """
import mlx.core as mx
from mlx_fp.cpu import blas
print(blas())
assert (mx.ones((9, 9)) @ mx.ones((9, 9))).sum() == 729
"""
    python_process(code, XDG_CACHE_HOME=str(tmp_path))
    (library,) = tmp_path.rglob("functions-*.so")
    whole = library.read_bytes()
    library.write_bytes(whole[:4096])
    done = python_process(code, XDG_CACHE_HOME=str(tmp_path))
    assert "its own threads" not in done.stdout
    assert library.read_bytes() == whole


def test_a_blas_that_is_no_openblas_keeps_its_threads(monkeypatch):
    monkeypatch.setattr(_products, "_GET", ())
    assert _products.in_blocks(None, 42) == (42, None, "it is no OpenBLAS")


def test_helpers_that_are_started_on_one_core_may_use_all():
    code = """
import os, signal
from pathlib import Path
import mlx.core as mx
from mlx_fp import cpu
from mlx_fp.cpu._functions import functions
before, allowed = set(Path("/proc/self/task").iterdir()), os.sched_getaffinity(0)
cpu.blas()
functions()[0].mlx_fp_set_threads(3)
with cpu.one_core():
    x = mx.random.normal((1000, 1000)); mx.eval(x @ x)
    states = {int(task.name): (task / "status").read_text() for task in set(Path("/proc/self/task").iterdir()) - before}
    helpers = [task for task, text in states.items()
               if int(text.partition("SigBlk:")[2].split()[0], 16) >> (signal.SIGINT - 1) & 1]
    assert [os.sched_getaffinity(task) for task in helpers] == [allowed] * 2
"""
    python_process(code)
