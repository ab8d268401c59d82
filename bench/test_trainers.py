"""Compare the training of language models with mlx-lm's own trainer, on the same rows, with LoRA.

The suite compares packed rows with it: `python -m suite --cases packed`.
"""

import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

import pytest
from trainers import llama, loss_of_mlx, rows_of, their_batches, train_ours, train_theirs

from mlx_fp import nn

HERE = Path(__file__).parent
SIZES = {"llama 128x2, 4x65 tokens": {"dims": 128, "layers": 2}, "llama 256x4, 4x65 tokens": {"dims": 256, "layers": 4}}
TURNS, STEPS = 7, 40


def quartiles(values):
    return [round(value, 3) for value in quantiles(values, n=4)]


def seconds_of_ours(layer, params, batches, **options):
    """The seconds of the second of two epochs: in the first all kernels are made."""
    report = train_ours(layer, params, batches, epochs=2, **options)
    return report, report.rows[-1].seconds


@pytest.mark.parametrize("model", SIZES)
def test_a_step(benchmark, model):
    """Compare the seconds of a step on rows of one length, turn by turn. The losses have the same bits."""
    sizes, rows = SIZES[model], rows_of([64] * 64)
    batches = their_batches(rows, STEPS, length=65)
    ratios = []
    for _ in range(TURNS):
        theirs = train_theirs(rows, STEPS, length=65, **sizes)
        report, seconds = seconds_of_ours(*nn.split(llama(**sizes)), batches)
        ratios.append(seconds / STEPS / median(theirs.seconds[5:]))
    assert report.losses[:STEPS] == pytest.approx(theirs.losses, rel=1e-5)
    exact = train_ours(*nn.split(llama(**sizes)), batches, loss=loss_of_mlx)
    assert list(exact.losses) == theirs.losses
    benchmark.extra_info |= {"ours/mlx_lm": quartiles(ratios), "ms": round(seconds / STEPS * 1e3, 2)}
    print(f"\n  {model}: {benchmark.extra_info}", end="")
    benchmark.pedantic(lambda: None, rounds=1)


def test_peak_memory(benchmark):
    """Compare the peak memory for a vocabulary of 32,768, 8 blocks of 256, 4 x 512 tokens, each in its own process."""
    peaks = {}
    for way in ("mlx_lm", "mlx_lm_checkpoint", "ours_plain", "ours"):
        done = subprocess.run([sys.executable, HERE / "trainers.py", "peak", way], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[way] = int(done.stdout.split()[-2])
    benchmark.extra_info |= {f"{way}_MB": round(peak / 1e6) for way, peak in peaks.items()}
    benchmark.extra_info["ours/mlx_lm"] = round(peaks["ours"] / peaks["mlx_lm"], 3)
    print(f"\n  {benchmark.extra_info}", end="")
    benchmark.pedantic(lambda: None, rounds=1)


def test_time_of_less_memory(benchmark):
    """Compare the time of a step with recomputed blocks and the loss without logits, with that of the plain step."""
    sizes = {"vocabulary": 32_768, "dims": 256, "layers": 4}
    batches = their_batches(rows_of([512] * 16, sizes["vocabulary"]), 4, length=513)
    layer, params = nn.split(llama(**sizes))
    ways = {"plain": (layer, None), "less memory": (nn.remat("model.layers")(layer), "lm_head")}
    taken = {name: [] for name in ways}
    for _ in range(5):
        for name, (each, head) in ways.items():
            taken[name].append(seconds_of_ours(each, params, batches, head=head)[1])
    ratios = [a / b for a, b in zip(taken["less memory"], taken["plain"], strict=True)]
    benchmark.extra_info |= {"less memory/plain": quartiles(ratios), "plain_s": round(median(taken["plain"]), 2)}
    print(f"\n  {benchmark.extra_info}", end="")
    benchmark.pedantic(lambda: None, rounds=1)
