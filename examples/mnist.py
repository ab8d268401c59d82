"""Train on MNIST, or on other data in its format, from IDX files.

    python examples/mnist.py FOLDER

where FOLDER has train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
each plain or as .gz. Without a folder, it writes such files from scikit-learn's digits, 8 × 8 pixels, and reads them.
"""

import gzip
import struct
import sys
import tempfile
from math import prod
from pathlib import Path

import mlx.core as mx
import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 7
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file: two zero bytes, one for the type, one for the rank, big-endian lengths, and the values.

    Raises:
        ValueError: The file begins in another way, or its size differs from the size in its header.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        raw = file.read()
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in TYPES:
        raise ValueError(f"{path} is no IDX file: it begins with {raw[:4]!r}, not with two zeros and a type")
    dtype, rank = np.dtype(TYPES[raw[2]]), raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise ValueError(f"{path} ends within its header, after {len(raw)} of {start} bytes")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) != start + prod(shape) * dtype.itemsize:
        needed = start + prod(shape) * dtype.itemsize
        raise ValueError(f"{path} has {len(raw)} bytes; {dtype.name} of shape {shape} takes {needed}")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array of bytes as an IDX file, with gzip if the name ends in .gz."""
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(struct.pack(f">4B{values.ndim}I", 0, 0, 0x08, values.ndim, *values.shape))
        file.write(values.astype(np.uint8).tobytes())


def find(folder: Path, name: str) -> Path:
    """Return the path of a file, plain or gzipped."""
    paths = [path for path in (folder / name, folder / f"{name}.gz") if path.exists()]
    if not paths:
        raise FileNotFoundError(f"{folder} has no {name} and no {name}.gz")
    return paths[0]


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as the four files of MNIST, some plain and some gzipped."""
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(SEED).permutation(len(labels))
    for part, rows, suffix in (("train", order[:1437], ".gz"), ("t10k", order[1437:], "")):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images[rows].reshape(-1, 8, 8) * 15)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels[rows])


def digits(folder: Path, part: str) -> data.Dataset:
    """Return the images `(n, h, w)` and labels `(n,)` of a part of MNIST, both uint8."""
    images, labels = (read_idx(find(folder, f"{part}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    return data.arrays(x=images, y=labels)


def network(pixels: int):
    """Make a classifier of uint8 images: (n, h, w) -> (n, 10). The compiled step scales them, not the pipeline."""
    return nn.sequential(
        lambda x: x.astype(mx.float32).flatten(1) / 255,
        nn.linear(pixels, 128), nn.relu, nn.dropout(0.1), nn.linear(128, 10),
    )  # fmt: skip


def main(folder: str | None = None) -> fp.Report:
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            write_digits(Path(temporary))
            return main(temporary)
    train, test = (digits(Path(folder), part) for part in ("train", "t10k"))
    print(f"train {train}, test {test}")
    pixels = next(iter(train))["x"].size
    batch = 128 if len(train) > 10_000 else 32
    report = pipe(
        fp.trainer(network(pixels), fp.classification()),
        fp.with_optimizer(optim.adamw(2e-3)),
        fp.fit(pipe(train, data.shuffle(seed=SEED), data.batch(batch)), validation=data.batch(256)(test), epochs=6),
    )
    print(f"\n{report}\n\ntest accuracy {report.rows[-1].val_accuracy:.4f}")
    return report


if __name__ == "__main__":
    main(*sys.argv[1:])
