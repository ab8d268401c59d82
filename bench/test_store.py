"""Compare checkpoints with MLX's own files, which are not flushed, not checked, and not renamed into place."""

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from random import random
from statistics import median

import mlx.core as mx
import pytest
from paired import note, paired
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.loop._checkpointing import _save
from mlx_fp.loop._plan import plan
from mlx_fp.loop._rows import Evaluation, Row
from mlx_fp.loop._starting import start_run
from mlx_fp.loop._state import World


def model(millions, layers=10):
    """Make so many million parameters, in matrices, and evaluate them."""
    side = int((millions * 1e6 / layers) ** 0.5)
    params = {"layers": [{"weight": mx.random.normal((side, side))} for _ in range(layers)]}
    mx.eval(params)
    return params


def raw(tree):
    return sum(leaf.nbytes for leaf in fp.flat(tree).values())


def plain(path):
    """Load a file with MLX, and evaluate its arrays."""
    mx.eval(mx.load(str(path)))


def flushed(path, arrays):
    """Save a file with MLX, and flush it to disk."""
    mx.save_safetensors(str(path), arrays)
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_million_parameters_with_adam(benchmark, tmp_path, suffix):
    """Measure the size of the file relative to its arrays, and the milliseconds to save and to load it."""
    params = model(1)
    state = optim.adam(1e-3).init(params)
    mx.eval(state)
    path = tmp_path / f"a{suffix}"

    def save():
        fp.save(path, opt_state=state, metadata={"epoch": 3})(params)

    def load():
        fp.load(path)

    save()
    size = path.stat().st_size / raw([params, state])
    taken = paired({"save": save, "load": load}, turns=30, calls=1, warm_up=3)
    note(benchmark, taken, "save")
    benchmark.extra_info |= {"size/raw": round(size, 4)} | {f"{k}_ms": median(v) * 1e3 for k, v in taken.items()}
    print(f"\n  {suffix}: {raw([params, state]) / 1e6:.1f} MB, file by arrays {size:.4f}", end="")
    benchmark.pedantic(save, rounds=5)


def test_500_megabytes_saved(benchmark, tmp_path):
    """Compare with MLX's own writer, with and without a flush; the page cache is flushed before each turn."""
    params = model(125)
    arrays = fp.flat(params)
    ways = {
        "mlx": lambda: mx.save_safetensors(str(tmp_path / "plain.safetensors"), arrays),
        "mlx+flush": lambda: flushed(tmp_path / "flushed.safetensors", arrays),
        "ours": lambda: fp.save(tmp_path / "ours.safetensors")(params),
    }
    note(benchmark, alternating(ways), "mlx")
    benchmark.pedantic(ways["ours"], rounds=1)


def test_500_megabytes_loaded(benchmark, tmp_path):
    """Compare with MLX's own reader, with evaluation, for files in the page cache."""
    params = model(125)
    fp.save(tmp_path / "ours.safetensors")(params)
    mx.save_safetensors(str(tmp_path / "plain.safetensors"), fp.flat(params))
    del params
    ways = {
        "mlx": lambda: plain(tmp_path / "plain.safetensors"),
        "mlx of ours": lambda: plain(tmp_path / "ours.safetensors"),
        "ours": lambda: fp.load(tmp_path / "ours.safetensors"),
    }
    note(benchmark, alternating(ways), "mlx")
    benchmark.pedantic(ways["ours"], rounds=1)


def alternating(ways, turns=9):
    """Time functions that write much, as `paired` does: one call per turn, and a flush between two turns."""
    taken = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name in list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]:
            os.sync()
            start = time.perf_counter()
            ways[name]()
            if turn:  # the first turn is a warm-up
                taken[name].append(time.perf_counter() - start)
    return taken


def test_4_kilobytes_saved(benchmark, tmp_path):
    """Time a small file, which shows the cost of the protocol."""
    params = {"weight": mx.random.normal((32, 32))}
    mx.eval(params)
    ways = {
        "mlx": lambda: mx.save_safetensors(str(tmp_path / "plain.safetensors"), params),
        "mlx+flush": lambda: flushed(tmp_path / "flushed.safetensors", params),
        "ours": lambda: fp.save(tmp_path / "ours.safetensors")(params),
    }
    note(benchmark, paired(ways, turns=50, calls=4), "mlx")
    benchmark.pedantic(ways["ours"], rounds=20)


def epochs_on(runs, count, folder, keep_last=None):
    """Make a function that adds an epoch to a run with so many, and saves a checkpoint: a run without the training.

    `runs` is an ExitStack, which ends the run.
    """
    pair = (mx.zeros((4, 4)), mx.zeros((4,), mx.int32))
    trainer = pipe(
        fp.trainer(nn.linear(4, 2), fp.classification()),
        fp.with_optimizer(optim.adam(1e-3)),
        fp.checkpoints(folder / "{epoch}", keep_last=keep_last),
    )
    begun = start_run(trainer, plan([pair], (), {"validation": [pair], "epochs": 10**6}))
    loop, state, writer = runs.enter_context(begun)
    world = World(writer)

    def later(state):
        epoch, values = state.epoch, [random() for _ in range(6)]
        train, held = {"accuracy": values[0]}, {"accuracy": values[1]}
        row = Row(epoch, 4, 64, 4 * epoch + 4, values[2], train, values[3], held, 4, values[4], values[3])
        evaluation = Evaluation(epoch, 4 * epoch + 4, values[3], held, 4, values[3])
        rows, evaluations = (*state.rows, row), (*state.evaluations, evaluation)
        return replace(state, rows=rows, evaluations=evaluations, epoch=epoch + 1, epoch_start_step=4 * epoch + 4)

    for _ in range(count):
        state = later(state)

    def save():
        nonlocal state
        state = later(state)
        for moment in _save(loop, state, world):
            state = moment.state

    return save


@pytest.fixture
def runs():
    """Give a stack that ends the runs of a benchmark."""
    with ExitStack() as stack:
        yield stack


def test_a_checkpoint_late_in_a_run(benchmark, tmp_path, runs):
    """Compare a late checkpoint of a run with an early one: a file contains the rows of all epochs."""
    ways = {f"{count} rows": epochs_on(runs, count, tmp_path / str(count)) for count in (100, 2_000, 10_000)}
    note(benchmark, paired(ways, turns=30, calls=1, warm_up=3), "100 rows")
    benchmark.pedantic(ways["100 rows"], rounds=5)


def test_a_checkpoint_where_others_are_kept(benchmark, tmp_path, runs):
    """Time a checkpoint among 3,000 retained checkpoints, and in a folder with 50,000 other files."""
    ways = {"3 kept": epochs_on(runs, 3, tmp_path / "a", 3), "3,000 kept": epochs_on(runs, 3, tmp_path / "b", 3_000)}
    for _ in range(3_000):
        ways["3,000 kept"]()
    (tmp_path / "c").mkdir()
    for number in range(50_000):
        (tmp_path / "c" / f"other-{number}.npz").touch()
    ways["50,000 others"] = epochs_on(runs, 3, tmp_path / "c", 3)
    note(benchmark, paired(ways, turns=30, calls=1, warm_up=3), "3 kept")
    benchmark.pedantic(ways["3 kept"], rounds=5)
