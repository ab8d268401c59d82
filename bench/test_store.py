"""Checkpoints against MLX's own files, which are neither flushed, nor checked, nor put in place at once."""

import os
import time
from statistics import median

import mlx.core as mx
import pytest
from paired import note, paired

import mlx_fp as fp
from mlx_fp import optim


def model(millions, layers=10):
    """Evaluated parameters, so many millions, in matrices."""
    side = int((millions * 1e6 / layers) ** 0.5)
    params = {"layers": [{"weight": mx.random.normal((side, side))} for _ in range(layers)]}
    mx.eval(params)
    return params


def raw(tree):
    return sum(leaf.nbytes for leaf in fp.flat(tree).values())


def plain(path):
    """What MLX reads from a file, evaluated."""
    mx.eval(mx.load(str(path)))


def flushed(path, arrays):
    """MLX's own file, brought to disk."""
    mx.save_safetensors(str(path), arrays)
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_million_parameters_with_adam(benchmark, tmp_path, suffix):
    """Size of the file by that of the arrays, and milliseconds to save and to load."""
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
    """Against MLX's own writer, and the same with a flush; the page cache is made clean before each."""
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
    """Against MLX's own reader, evaluated, from files in the page cache."""
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
    """`paired` for what writes much: one call a turn, and nothing of one left for the next to flush."""
    taken = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name in list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]:
            os.sync()
            start = time.perf_counter()
            ways[name]()
            if turn:  # the first one is to warm up
                taken[name].append(time.perf_counter() - start)
    return taken


def test_4_kilobytes_saved(benchmark, tmp_path):
    """A small file: what the protocol costs."""
    params = {"weight": mx.random.normal((32, 32))}
    mx.eval(params)
    ways = {
        "mlx": lambda: mx.save_safetensors(str(tmp_path / "plain.safetensors"), params),
        "mlx+flush": lambda: flushed(tmp_path / "flushed.safetensors", params),
        "ours": lambda: fp.save(tmp_path / "ours.safetensors")(params),
    }
    note(benchmark, paired(ways, turns=50, calls=4), "mlx")
    benchmark.pedantic(ways["ours"], rounds=20)
