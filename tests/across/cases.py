"""Runs of which one process has something special: `cases.py MODE FOLDER` prints its results as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

MODE, FOLDER = sys.argv[1:] if __name__ == "__main__" else ("", "")
world = fp.world()
LAST = world.rank == world.size - 1

x = mx.random.normal((29, 4), key=mx.random.key(0))
y = x[:, :1] * 2


def fit(*verbs, task=None, rows=13, batch=5, **options):
    """Train on batches of 5 rows, of which the last has 4, and evaluate the first rows."""
    train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(5))
    held_out = pipe(data.arrays(x=x[:rows], y=y[:rows]), data.batch(batch))
    trainer = pipe(fp.trainer(nn.linear(4, 1), task or fp.regression(), optimizer=optim.sgd(0.05)), *verbs)
    options = {"epochs": 3, "validation": held_out, "quiet": True, "across": world, **options}
    report = pipe(trainer, fp.fit(train, **options))
    return {
        "losses": [float(loss) for loss in report.losses],
        "steps": [each.step for each in report.evaluations],
        "figures": [[each.val_loss, dict(each.val_metrics)] for each in report.evaluations],
        "files": [each.checkpoint and Path(each.checkpoint).name for each in report.evaluations],
    }


def accumulated_stop():
    """The hook of one process stops a run that accumulates."""
    return fit(
        fp.on("after_step", lambda event: fp.Stop("enough") if LAST and event.step == 3 else None),
        accumulate=2,
        epochs=9,
    )


def few_rows():
    """A validation set with fewer rows than there are processes."""
    return fit(rows=1)


def masked_rows():
    """A figure and a loss that count in no row of some processes, and not in the same ones."""

    def loss(forward, x, y):
        error = mx.square(forward(x) - y).mean(axis=1)
        return fp.mean(error, where=x[:, 0] > 0.45), {"other": fp.mean(error, where=x[:, 1] > 0.3)}

    return fit(task=fp.Task("masked", loss, (), "val_loss", collate={"x": "x", "y": "y"}), rows=9, batch=3)


def groups():
    """Calls of several steps, where the shares of one process have other sizes than those of the others."""
    return fit(steps_per_call=3, validate_every=4)


def kept_files():
    return fit(fp.checkpoints(f"{FOLDER}/{{epoch}}", best=True, keep_last=1), epochs=6)


def wide_memory():
    """A metric with numbers that float32 cannot hold."""
    total = fp.Metric(
        "total",
        init=lambda: mx.array(0, mx.int64),
        update=lambda memory, output, x, y: memory + y.shape[0] * mx.array(1_000_000_000_007, mx.int64),
        value=lambda memory: (memory % 1_000_003).astype(mx.float32),
        merge=lambda one, other: one + other,
    )
    return fit(task=fp.regression(metrics=[total]))


if __name__ == "__main__":
    print(json.dumps(globals()[MODE]()))
