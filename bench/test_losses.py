"""Compare cross entropy of whole logits with the loss without logits: time and peak memory of value and gradients."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from paired import note, paired

from mlx_fp.core.backend import on_device
from mlx_fp.nn import losses

HERE = Path(__file__).parent
CLASSES, ROWS = 32_768, 2_048


def step_of(name, width):
    """Return a compiled function without arguments that evaluates the loss and its gradients."""
    hidden, weight = mx.random.normal((ROWS, width)), mx.random.normal((CLASSES, width)) * 0.05
    labels = mx.random.randint(0, CLASSES, (ROWS,))
    mx.eval(hidden, weight, labels)

    def of_rows(reduction):
        return lambda h, w: losses.linear_cross_entropy(h, w, labels, reduction=reduction).mean()

    loss = {
        "mlx": lambda h, w: mlx_nn.losses.cross_entropy(h @ w.T, labels, reduction="mean"),
        "library": lambda h, w: losses.cross_entropy(h @ w.T, labels, reduction="mean"),
        "without logits, none": of_rows("none"),
        "without logits, mean": of_rows("mean"),
    }[name]
    step = mx.compile(on_device(mx.value_and_grad(loss, argnums=(0, 1))))
    return lambda: mx.eval(step(hidden, weight))


NAMES = ("mlx", "library", "without logits, none", "without logits, mean")


@pytest.mark.parametrize("width", [128, 512])
def test_time(benchmark, width):
    functions = {name: step_of(name, width) for name in NAMES}
    note(benchmark, paired(functions, turns=7, calls=1, warm_up=1), "mlx")
    benchmark.pedantic(functions["without logits, mean"], rounds=1)


@pytest.mark.parametrize("width", [128, 512])
def test_peak_memory(benchmark, width):
    """Measure the peak above the inputs, each loss in a process of its own."""

    def measure():
        for name in NAMES:
            code = f"import test_losses; print(test_losses.peak({name!r}, {width}))"
            run = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
            benchmark.extra_info[f"{name}_MB"] = round(float(run.stdout) / 1e6, 1)
            print(f"\n  {name:22} {benchmark.extra_info[f'{name}_MB']:8.1f} MB", end="")

    benchmark.pedantic(measure, rounds=1)


def peak(name, width):
    """Return the peak of memory in bytes above the inputs, in the second call of a loss."""
    step = step_of(name, width)
    step()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    step()
    return mx.get_peak_memory() - before
