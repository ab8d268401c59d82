"""Compare the loop with a loop written by hand over the same step and batches, and with MLX's own eager idiom."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import pytest
from models import MLP, cross_entropy, deep, mlp, raw, tiny
from paired import note, paired
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

HERE = Path(__file__).parent
STEPS = 200
"""Steps of an epoch, and of a turn."""


def squared(output, y):
    return mlx.nn.losses.mse_loss(output, y, reduction="mean")


def regression():
    """A linear regression of 10 features on a batch of 32."""
    x = mx.random.normal((32, 10), key=mx.random.key(0))
    return (lambda: mlx.nn.Linear(10, 1)), (x, x.sum(axis=1, keepdims=True))


CASES = {
    "linear_regression": (regression, squared),
    "tiny_mlp": (tiny, cross_entropy),
    "mlp_784_256_10": (mlp, cross_entropy),
}
WITH_DEEP = {**CASES, "deep_mlp": (deep, cross_entropy)}


def by_hand(make, loss, batches):
    """Run an epoch of the compiled step, and wait for each step."""
    model = nn.lift(make)
    step = fp.train_step(model, lambda forward, x, y: loss(forward(x), y), optim.adamw(1e-3))
    state = list(step.init(0))

    def epoch():
        for batch in batches:
            state[0], state[1], logs = step(state[0], state[1], batch)
            mx.eval(state, logs)

    return epoch


def eager(make, loss, batches):
    """Run an epoch of MLX's eager idiom, as in its documentation."""
    module, optimizer = make(), mlx.optimizers.AdamW(1e-3)
    value_and_grad = mlx.nn.value_and_grad(module, lambda x, y: loss(module(x), y))

    def epoch():
        for x, y in batches:
            _, grads = value_and_grad(x, y)
            optimizer.update(module, grads)
            mx.eval(module.parameters(), optimizer.state)

    return epoch


def looped(make, loss, batches, *verbs, **options):
    """Run an epoch of `fit` through its stream, from the start of one epoch to the start of the next."""
    trainer = pipe(
        fp.trainer(nn.lift(make), lambda forward, x, y: loss(forward(x), y)),
        fp.with_optimizer(optim.adamw(1e-3)),
        *verbs,
    )
    stream = fp.events(batches, only=("before_epoch",), epochs=10**9, **options)(trainer)
    next(stream)
    return lambda: next(stream)


def by_mlx(make, loss, batches):
    """Run an epoch of MLX's compiled idiom on the first batch, and wait for each step."""
    run = raw(make, batches[0], loss)
    return lambda: [run() for _ in batches]


@pytest.mark.parametrize("name", CASES)
def test_loop(benchmark, name):
    case, loss = CASES[name]
    make, batch = case()
    mx.eval(batch)
    batches = [batch] * STEPS
    ways = {
        "hand": by_hand(make, loss, batches),
        "hand again": by_hand(make, loss, batches),
        "fit, sync step": looped(make, loss, batches, sync="step"),
        "fit": looped(make, loss, batches),
        "fit, 5 hooks": looped(make, loss, batches, *[fp.on("after_step", lambda event: None)] * 5),
        "eager": eager(make, loss, batches),
    }
    taken = paired(ways, turns=40, calls=1, warm_up=2)
    note(benchmark, taken, "hand")
    for more, less in (("fit, sync step", "hand"), ("fit, 5 hooks", "fit")):
        each = [(a - b) / STEPS * 1e6 for a, b in zip(taken[more], taken[less], strict=True)]
        benchmark.extra_info[f"{more} - {less}, us a step"] = round(median(each), 2)
        print(f"\n  {more} - {less}: {median(each):.2f} us a step", end="")
    benchmark.pedantic(ways["fit"], rounds=5)


@pytest.mark.parametrize("name", ["tiny_mlp"])
def test_run_folder(benchmark, name, tmp_path):
    """Compare a run that logs each step with the same run in a run folder."""
    case, loss = CASES[name]
    make, batch = case()
    mx.eval(batch)
    batches = [batch] * (10 * STEPS)
    ways = {
        "logged": looped(make, loss, batches, log_every=1),
        "logged again": looped(make, loss, batches, log_every=1),
        "in a folder": looped(make, loss, batches, log_every=1, out=tmp_path / "run"),
        "not logged": looped(make, loss, batches),
    }
    note(benchmark, paired(ways, turns=30, calls=1, warm_up=2), "logged")
    benchmark.pedantic(ways["in a folder"], rounds=3)


@pytest.mark.parametrize("verb", [None, optim.clip_norm(1.0)], ids=["adamw", "clipped"])
@pytest.mark.parametrize("name", WITH_DEEP)
def test_steps_per_call(benchmark, name, verb):
    """Compare several steps in one compiled call with the same loop of single steps."""
    case, loss = WITH_DEEP[name]
    make, batch = case()
    mx.eval(batch)
    steps = STEPS // 8 if name == "deep_mlp" else STEPS
    verbs = [] if verb is None else [fp.with_optimizer(verb(optim.adamw(1e-3)))]
    ways = {
        f"{count} a call": looped(make, loss, [batch] * steps, *verbs, steps_per_call=count) for count in (1, 2, 4, 8)
    }
    note(benchmark, paired(ways, turns=20, calls=1, warm_up=2), "1 a call")
    benchmark.pedantic(ways["4 a call"], rounds=3)


@pytest.mark.parametrize("name", WITH_DEEP)
def test_one_core(benchmark, name):
    """Time the step, the loop, and several steps in one call, within `one_core` and outside it."""
    case, loss = WITH_DEEP[name]
    make, batch = case()
    mx.eval(batch)
    batches = [batch] * (STEPS // 8 if name == "deep_mlp" else STEPS)
    ways = {
        "raw": by_mlx(make, loss, batches),
        "raw again": by_mlx(make, loss, batches),
        "step": by_hand(make, loss, batches),
        "fit": looped(make, loss, batches),
        "fit, 8 a call": looped(make, loss, batches, steps_per_call=8),
    }
    shared = {f"{way}, one core": run for way, run in ways.items() if way != "raw again"}
    taken = paired(ways | shared, turns=30, calls=1, warm_up=2, within=dict.fromkeys(shared, fp.cpu.one_core))
    note(benchmark, taken, "raw")
    benchmark.pedantic(fp.cpu.one_core()(ways["fit"]), rounds=3)


def test_peak_memory_of_a_run(benchmark):
    """Measure a 20-million-parameter model with AdamW, each way in its own process; 1,000 steps take 7 minutes each."""
    peaks = {}

    def turn():
        peaks.update({way: _peak(way) for way in ("hand", "fit", "fit, no losses kept")})

    benchmark.pedantic(turn, rounds=1)
    benchmark.extra_info |= {f"{way}_mb": round(peak / 1e6, 1) for way, peak in peaks.items()}
    print(f"\n  peak memory: {benchmark.extra_info}", end="")


def _peak(way):
    command = [sys.executable, __file__, way]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=HERE)
    return json.loads(done.stdout.splitlines()[-1])


def measure(way):
    """Return the peak bytes of a run of BENCH_STEPS steps (50 by default), with the initial weights."""
    steps = int(os.environ.get("BENCH_STEPS", "50"))
    x = mx.random.normal((8, 1024), key=mx.random.key(0))
    batch = x, mx.random.randint(0, 10, (8,), key=mx.random.key(1))
    make, batches = (lambda: MLP(1024, 3072, 3072, 2304, 10)), [batch] * steps
    run = (
        by_hand(make, cross_entropy, batches)
        if way == "hand"
        else looped(make, cross_entropy, batches, keep_losses=way == "fit")
    )
    run()
    return mx.get_peak_memory()


if __name__ == "__main__":
    fp.cpu.blas()
    print(json.dumps(measure(sys.argv[1])))
