"""Measure in this process, once: `once.py first|memory raw|ours MODEL`; prints a number as JSON."""

import json
import sys
import time

import mlx.core as mx
from models import MLP, MODELS, ours, raw

import mlx_fp as fp


def first(idiom, name):
    """Return the seconds of the first call, in which MLX traces and compiles kernels."""
    make, batch = MODELS[name]()
    mx.eval(batch)
    run = {"raw": raw, "ours": ours}[idiom](make, batch)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory(idiom, _):
    """Return the peak bytes over some steps, with the initial weights."""
    x = mx.random.normal((64, 1024), key=mx.random.key(0))
    batch = x, mx.random.randint(0, 10, (64,), key=mx.random.key(1))
    run = {"raw": raw, "ours": ours}[idiom](lambda: MLP(1024, 3072, 3072, 2304, 10), batch)
    run()
    mx.reset_peak_memory()
    for _ in range(5):
        run()
    return mx.get_peak_memory()


if __name__ == "__main__":
    fp.cpu.blas()
    print(json.dumps({"first": first, "memory": memory}[sys.argv[1]](*sys.argv[2:])))
