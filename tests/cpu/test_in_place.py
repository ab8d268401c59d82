"""The results of an update are kernels of their own, written in place: the same numbers in less memory."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
from helpers import assert_same_bits, mse, run_python
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.cpu import _in_place as module
from mlx_fp.cpu._in_place import separate_all, separate_large_models
from mlx_fp.cpu._thresholds import SEPARATE_ELEMENTS, WAIT_BYTES

MODEL = nn.sequential(nn.linear(512, 768), nn.relu, nn.linear(768, 512))
X = mx.random.normal((8, 512), key=mx.random.key(1))

PEAK = """
import json, sys
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.cpu import _in_place as module

if sys.argv[1] == "on":
    module.WAIT_BYTES = 0
model = nn.sequential(*[nn.linear(512, 512) for _ in range(4)])
step = fp.train_step(model, lambda f, x: nn.losses.mse_loss(f(x), x), optim.adamw(1e-4))
params, state = step.init(0)
x = mx.random.normal((8, 512))
for i in range(4):
    params, state, logs = step(params, state, x)
    mx.eval(params, state, logs)
    if i == 1:
        mx.reset_peak_memory()
print(json.dumps(mx.get_peak_memory() / sum(leaf.nbytes for leaf in fp.flat(params).values())))
"""


def loss(model, x):
    return mse(model, x, x)


@pytest.mark.parametrize("wrap", [(), (optim.clip_norm(1.0),), (optim.ema(0.9),)])
def test_the_bits_are_the_same(wrap, monkeypatch):
    after = []
    for threshold in (0, 1 << 40):
        monkeypatch.setattr(module, "WAIT_BYTES", threshold)
        step = fp.train_step(MODEL, loss, pipe(optim.adamw(1e-3), *wrap))
        state = step.init(0)
        for _ in range(4):
            *state, _ = step(*state, X)
        after.append(state)
    assert_same_bits(*after)


def test_small_leaves_stay_in_the_kernel():
    small, large = mx.ones((SEPARATE_ELEMENTS - 1,)), mx.ones((SEPARATE_ELEMENTS,))
    kept = separate_all({"small": small, "large": large, "step": mx.array(1)})
    assert kept["small"] is small
    assert kept["large"] is not large


def test_with_stock_kernels_only_large_models_are_written_in_place():
    state = {"large": mx.ones((SEPARATE_ELEMENTS,))}
    assert separate_large_models(state, WAIT_BYTES - 1) is state
    assert separate_large_models(state, WAIT_BYTES)["large"] is not state["large"]


def test_a_step_holds_less_than_its_state_twice():
    """Parameters and moments are 3 times the parameters. Fused, a large step holds 6 times; apart, 4."""
    peaks = {}
    for mode in ("on", "off"):
        peaks[mode] = json.loads(run_python(PEAK, mode))
    assert peaks["on"] < 0.8 * peaks["off"]
