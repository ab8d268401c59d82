"""Call the command line in this process or in one of its own, on a small experiment."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from helpers import child_env

from mlx_fp.command._main import main

EXPERIMENT = """
from functools import partial

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((64, 3), key=mx.random.key(0))
Y = X.sum(axis=1)


def network(width: int = 4, dropout=0.0, activation="relu", sizes: tuple[int, ...] | None = None):
    return nn.sequential(nn.linear(3, width), getattr(nn, activation), nn.dropout(dropout), nn.linear(width, 1))


def batches(batch_size: int = 16, shuffle: bool = True):
    order = [data.shuffle(seed=1)] if shuffle else []
    train = (data.arrays(x=X, y=Y), *order, data.batch(batch_size))
    return data.splits(train=train, validation=[(X[:8], Y[:8])])


sums = fp.experiment(
    "sums",
    partial(fp.early_stop, patience=50),
    partial(fp.with_options, log_every=2),
    model=network,
    task=fp.regression(),
    optimizer=partial(optim.sgd, 0.1),
    data=batches,
    epochs=2,
)
"""
"""An experiment of four steps an epoch, which logs each second step."""


class Ended(NamedTuple):
    """The exit status of a command, and the lines of its output and of its errors."""

    status: int
    lines: list[str]
    errors: list[str]

    def row(self, first):
        """Return the cells of the row of a table that begins with `first`."""
        return next(line for line in self.lines if line.split()[:1] == [first]).split()


def write_experiment(folder, name="train.py", text=EXPERIMENT, more=""):
    """Write the file of an experiment."""
    (folder / name).write_text(text + more, encoding="utf-8")


def called(*words):
    """Call the command line in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            status = main(list(map(str, words)))
        except SystemExit as end:
            status = end.code
    return Ended(status, out.getvalue().splitlines(), errors.getvalue().splitlines())


def refused(*words):
    """Return the one line of a command that is refused with status 2, without the name of the program."""
    ended = called(*words)
    assert (ended.status, ended.lines, len(ended.errors)) == (2, [], 1), ended
    assert ended.errors[0].startswith("mlx-fp: ")
    return ended.errors[0].removeprefix("mlx-fp: ")


def started(folder, *words, **options):
    """Start the command line in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "mlx_fp", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=child_env(), text=True, **{**pipes, **options})


def train(out, *words):
    """Run the experiment of `train.py` into a folder."""
    assert called("run", "train.py", "-q", "--out", out, *words).status == 0
