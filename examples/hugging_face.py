"""Train on a `datasets.Dataset` of Hugging Face, and read a buffer of mlx-data if that is installed.

Both have a length and rows by index, so `data.source` takes them directly.
"""

from importlib import import_module
from importlib.util import find_spec

import datasets
import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 7


def digits() -> dict[str, np.ndarray]:
    """Return scikit-learn's digits by column: images (n, 8, 8) and labels (n,)."""
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    return {"image": (images.reshape(-1, 8, 8) / 16).astype(np.float32), "label": labels.astype(np.int32)}


def buffer_batches() -> list[dict[str, np.ndarray]] | None:
    """Return the digits in shuffled batches from a buffer of mlx-data, None if mlx-data is not installed."""
    if find_spec("mlx.data") is None:
        return None
    columns = digits()
    rows = [{"image": image, "label": label} for image, label in zip(*columns.values(), strict=True)]
    buffer = import_module("mlx.data").buffer_from_vector(rows).key_transform("image", lambda image: image * 2 - 1)
    return list(pipe(data.source(buffer), data.shuffle(seed=SEED), data.batch(64)))


model = nn.sequential(lambda x: x.flatten(1), nn.linear(64, 64), nn.relu, nn.linear(64, 10))


def main() -> fp.Report:
    table = datasets.Dataset.from_dict(digits()).with_format("numpy")
    train, held_out = pipe(data.source(table), data.split((0.8, 0.2), seed=SEED))
    to_xy = data.collate({"x": "image", "y": "label"})
    train = pipe(train, data.shuffle(seed=SEED), data.batch(64), to_xy)
    print(train, end="\n\n")

    report = pipe(
        fp.trainer(model, fp.classification()),
        fp.with_optimizer(optim.adam(5e-3)),
        fp.fit(train, validation=pipe(held_out, data.batch(64), to_xy), epochs=6, quiet=True),
    )
    print(report)

    batches = buffer_batches()
    message = "not installed" if batches is None else f"{len(batches)} batches, the first {batches[0]['image'].shape}"
    print(f"\nmlx-data: {message}")
    return report


if __name__ == "__main__":
    main()
