"""Compare the update of bfloat16 parameters by AdamW with and without the wrappers for precision: time and peak."""

import mlx.core as mx
import pytest
from paired import note, paired

from mlx_fp import optim, pipe
from mlx_fp.core.backend import on_device

SIZE, LEAVES = 1 << 18, 8

WRAPPERS = {
    "plain": (),
    "master": (optim.master(),),
    "stochastic_rounding": (optim.stochastic_rounding(),),
    "state_dtype and stochastic_rounding": (optim.state_dtype(mx.bfloat16), optim.stochastic_rounding()),
}


def updates(*verbs):
    """Return a function that takes one compiled update, and the bytes of its peak above the state between updates."""
    optimizer = pipe(optim.adamw(1e-3), *verbs)
    params = {f"w{i}": mx.ones((SIZE,), mx.bfloat16) for i in range(LEAVES)}
    grads = {name: mx.full((SIZE,), 0.1, mx.bfloat16) for name in params}
    held = [(params, optimizer.init(params))]
    mx.eval(held, grads)
    update = mx.compile(on_device(optimizer.update))

    def step():
        params, state = held.pop()
        held.append(update(grads, state, params))
        del params, state
        mx.eval(held)

    step()
    mx.synchronize()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    step()
    return step, mx.get_peak_memory() - before


@pytest.mark.parametrize("name", list(WRAPPERS)[1:])
def test_update(benchmark, name):
    plain, plain_peak = updates()
    wrapped, peak = updates(*WRAPPERS[name])
    note(benchmark, paired({"plain": plain, "plain again": plain, "ours": wrapped}, turns=20, calls=2), "plain")
    benchmark.extra_info |= {"plain_peak_mb": round(plain_peak / 1e6, 1), "peak_mb": round(peak / 1e6, 1)}
    benchmark.pedantic(wrapped, rounds=3, iterations=2)
