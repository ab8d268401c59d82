"""`mlx-fp new DIR`: a first project of one file that runs."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace

from ..core._files import write_whole
from ..core._user_path import user_path
from ._usage import UsageError

__all__ = ["write_project"]

_FILE = "train.py"

_TEXT = '''"""A first experiment: a classifier of points on three spirals.

Put your data and your model in their place. Commands:

    mlx-fp settings train.py
    mlx-fp check train.py
    mlx-fp run train.py
    mlx-fp run train.py model.width=128 epochs=30
    mlx-fp sweep train.py optimizer.learning_rate=1e-3,1e-2
"""

from functools import partial
from math import pi

import mlx.core as mx
import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

CLASSES = 3


def spirals(count, seed):
    """Draw points, of shape `(count, 2)`, and their labels, of shape `(count,)`."""
    keys = mx.random.split(mx.random.key(seed), 3)
    labels = mx.random.randint(0, CLASSES, (count,), key=keys[0])
    radius = mx.random.uniform(shape=(count,), key=keys[1])
    noise = 0.1 * mx.random.normal((count,), key=keys[2])
    angle = 5 * radius + labels * 2 * pi / CLASSES + noise
    return mx.stack([radius * mx.cos(angle), radius * mx.sin(angle)], axis=1), labels


def model(width: int = 64, dropout: float = 0.0):
    """The options of this function are settings: `model.width` and `model.dropout`."""
    return nn.sequential(
        nn.linear(2, width),
        nn.relu,
        nn.dropout(dropout),
        nn.linear(width, width),
        nn.relu,
        nn.linear(width, CLASSES),
    )


def splits(rows: int = 2_000, batch_size: int = 64, seed: int = 0):
    """Return the data for training and for validation."""
    x, y = spirals(rows, seed)
    train, validation = pipe(data.arrays(x=x, y=y), data.split((0.8, 0.2), seed=seed))
    train = data.shuffle(seed=seed)(train)
    return data.splits(train=train, validation=validation, shared=data.batch(batch_size))


def optimizer(learning_rate: float = 1e-2, max_norm: float = 1.0):
    return pipe(optim.adamw(learning_rate), optim.clip_norm(max_norm))


experiment = fp.experiment(
    NAME,
    partial(fp.early_stop, patience=5),
    partial(fp.with_options, log_every=10),
    model=model,
    task=fp.classification(),
    optimizer=optimizer,
    data=splits,
    epochs=15,
)

if __name__ == "__main__":
    print(fp.run()(experiment))
'''


def write_project(arguments: Namespace) -> int:
    """Write the file of a first project into a folder, and print the commands that use it.

    Args:
        arguments: `folder` of the command line.

    Returns:
        The exit status 0. A file that exists already is a `UsageError`.
    """
    folder = user_path(arguments.folder)
    file = folder / _FILE
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is a file, and a folder is expected")
    if file.exists():
        raise UsageError(f"{str(file)!r} exists already: give another folder")
    name = folder.resolve().name or "spirals"
    write_whole(file, _TEXT.replace("NAME", json.dumps(name, ensure_ascii=False), 1).encode())
    word = shlex.quote(str(file))
    print(f"{file} is written\n  mlx-fp check {word}\n  mlx-fp run {word}")
    return 0
