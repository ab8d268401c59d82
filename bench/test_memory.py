"""Compare the peak memory and the time of a stack of 16 blocks: plain, with `mx.checkpoint`, and with `nn.remat`."""

from statistics import median

import mlx.core as mx
import pytest
from paired import note, paired

import mlx_fp as fp
from mlx_fp import nn, optim

BLOCKS, ROWS, WIDTH, HIDDEN = 16, 1024, 128, 2048
"""One array of a block has 8.4 MB; the parameters have 34 MB."""

TURNS = 5


def wave(h):
    return mx.tanh(mx.sin(h) * h + mx.cos(h))


def stack(wrap=lambda layer: layer):
    block = nn.residual(nn.linear(WIDTH, HIDDEN, bias=False), wave, nn.linear(HIDDEN, WIDTH, bias=False))
    return nn.repeat(BLOCKS, wrap(block))


def checkpointed(layer):
    """Return the layer under `mx.checkpoint`, which has no order."""

    def run(params, xs, kw, train):
        return mx.checkpoint(lambda params, x: layer.apply.run(params, (x,), kw, train)[0])(params, *xs), params

    return nn.layer(layer.init, run)


def loss(model, x):
    return model(x).square().mean()


LAYERS = {"plain": stack(), "mx.checkpoint": stack(checkpointed), "nn.remat": stack(nn.remat)}


@pytest.mark.parametrize("compile", [True, False], ids=["compiled", "eager"])
def test_gradients(benchmark, compile):
    """Measure the gradients, without an update."""
    x, functions = mx.random.normal((ROWS, WIDTH), key=mx.random.key(0)), {}
    for name, layer in LAYERS.items():
        step = fp.train_step(layer, loss, optim.sgd(0.0), compile=compile)
        state = step.init(0)
        functions[name] = lambda step=step, state=state: mx.eval(step.gradients(*state, x).grads)
    measured(benchmark, functions)


def test_step(benchmark):
    """Measure steps with AdamW, whose new parameters and memory take the place of the old ones."""
    x, functions = mx.random.normal((ROWS, WIDTH), key=mx.random.key(0)), {}
    for name, layer, update in (
        ("plain", "plain", "at_end"),
        ("nn.remat", "nn.remat", "at_end"),
        ("in_backward", "nn.remat", "in_backward"),
    ):
        step = fp.train_step(LAYERS[layer], loss, optim.adamw(1e-4), update=update)
        functions[name] = stepping(step, list(step.init(0)), x)
    measured(benchmark, functions)


def stepping(step, state, x):
    """Return a function that takes a step, and holds no state but the newest."""

    def run():
        opt_state, params = state.pop(), state.pop()
        params, opt_state, _ = step(params, opt_state, x)
        state.extend((params, opt_state))
        mx.eval(state)

    return run


def measured(benchmark, functions):
    """Note the times and the peaks, in MB above the memory before a call."""
    peaks = {name: [] for name in functions}

    def with_peak(name):
        def run():
            mx.synchronize()
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            functions[name]()
            peaks[name].append((mx.get_peak_memory() - before) / 1e6)

        return run

    with fp.cpu.tuned():
        note(benchmark, paired({name: with_peak(name) for name in functions}, turns=TURNS, calls=1, warm_up=1), "plain")
        benchmark.pedantic(functions["nn.remat"], rounds=1)
    benchmark.extra_info |= {f"{name}_mb": round(median(values)) for name, values in peaks.items()}
    lines = (f"{name} {median(v):.0f} [{min(v):.0f}, {max(v):.0f}]" for name, v in peaks.items())
    print(f"\n  peak in MB: {'; '.join(lines)}", end="")
