"""Train on files that are read as a stream. A function opens the files in each epoch, for training and validation."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 7


def write_shards(folder: Path) -> None:
    """Write scikit-learn's digits as files of up to 200 images, into the folders `train` and `validation`."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    for kind, rows in {"train": order[:1437], "validation": order[1437:]}.items():
        (folder / kind).mkdir()
        for n, part in enumerate(np.array_split(rows, len(rows) // 200 + 1)):
            x, y = (images[part] / 16).astype(np.float32), labels[part].astype(np.int32)
            np.savez(folder / kind / f"{n:03}.npz", x=x, y=y)


def digits(folder: Path, epoch: int, kind: str) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of all files of a kind, with one file in memory. In training each epoch starts at another file."""
    paths = sorted((folder / kind).glob("*.npz"))
    start = epoch % len(paths) if kind == "train" else 0
    for path in paths[start:] + paths[:start]:
        with np.load(path) as shard:
            x, y = shard["x"], shard["y"]
        yield from ({"x": image, "y": label} for image, label in zip(x, y, strict=True))


model = nn.sequential(nn.linear(64, 128), nn.relu, nn.dropout(0.1), nn.linear(128, 10))


def main() -> fp.Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder)
        rows = data.stream(lambda epoch, kind: digits(folder, epoch, kind))
        train = pipe(
            rows,
            data.shuffle(seed=SEED, window=400),  # draws from 400 buffered rows: a stream has no indices to shuffle
            data.batch(64, drop_last=True),
            data.prefetch(2),  # a thread reads and stacks two batches ahead
        )
        held_out = pipe(rows, data.batch(64), data.prefetch(2))  # `fit` reads it as kind="validation"

        report = pipe(
            fp.trainer(model, fp.classification()),
            fp.with_optimizer(optim.adamw(3e-3)),
            fp.fit(train, validation=held_out, epochs=8, quiet=True),
        )
        print(f"{train}\n\n{report}")

        batches = train.open(
            data.Cursor(epoch=5, index=20)
        )  # reads the files up to that batch, which has the same rows
        print(f"\nlabels of batch 20 of epoch 5: {next(batches)['y'][:12].tolist()} …")
        batches.close()
    return report


if __name__ == "__main__":
    main()
