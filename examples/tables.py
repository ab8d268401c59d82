"""Train on a table from a CSV file, from a .npz file, and from .npy files that stay on the disk.

    python examples/tables.py TABLE.csv

where the first line has names, the last column is the class, and the others are numbers. Without a file, the table is
scikit-learn's wines: 178 wines of three growers, with 13 measurements.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 7


def write_wines(path: Path) -> Path:
    """Write scikit-learn's wines as a CSV file; return its path."""
    measurements, growers = load_wine(return_X_y=True)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*(f"measurement {n}" for n in range(13)), "grower"])
        table.writerows([*row, f"grower {n}"] for row, n in zip(measurements, growers, strict=True))
    return path


def read_csv(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features `(n, columns)`, the numbers of the classes `(n,)`, and the names of the classes."""
    with open(path, newline="") as file:
        _, *rows = csv.reader(file)
    names = sorted({row[-1] for row in rows})
    x = np.array([row[:-1] for row in rows], np.float32)
    return x, np.array([names.index(row[-1]) for row in rows], np.int32), names


def evaluated(rows: data.Dataset, classes: int) -> float:
    """Train on 70 % of the rows, validate on 15 %, and return the accuracy on the other 15 %, the test split."""
    train, validation, test = pipe(rows, data.split((0.7, 0.15, 0.15), seed=SEED))
    features = next(iter(pipe(train, data.batch(len(train)))))["x"]  # all training rows as one batch
    mean, deviation = features.mean(axis=0), features.std(axis=0)

    plan = data.splits(
        train=pipe(train, data.shuffle(seed=SEED)),
        validation=validation,
        test=test,
        shared=[data.batch(16), data.map(lambda batch: {**batch, "x": (batch["x"] - mean) / deviation})],
    )
    model = nn.sequential(nn.linear(features.shape[1], 32), nn.tanh, nn.dropout(0.2), nn.linear(32, classes))
    trainer = fp.trainer(model, fp.classification(), optimizer=optim.adamw(5e-3))
    report = fp.fit(plan, epochs=15, quiet=True)(trainer)
    return fp.evaluate(plan, params=report.params)(trainer)["accuracy"]  # on the test split


def main(path: str | None = None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        x, y, names = read_csv(Path(path) if path else write_wines(folder / "wines.csv"))
        np.savez(folder / "table.npz", x=x, y=y)
        np.save(folder / "x.npy", x)
        np.save(folder / "y.npy", y)

        tables = {
            "csv": data.arrays(x=x, y=y),
            "npz": data.arrays(**np.load(folder / "table.npz")),
            "npy": data.arrays(x=np.load(folder / "x.npy", mmap_mode="r"), y=np.load(folder / "y.npy", mmap_mode="r")),
        }
        print(f"{tables['csv']}, classes {', '.join(names)}")
        accuracies = {kind: evaluated(rows, len(names)) for kind, rows in tables.items()}
    for kind, accuracy in accuracies.items():
        print(f"from {kind}: accuracy {accuracy:.3f} on the test split")
    return accuracies


if __name__ == "__main__":
    main(*sys.argv[1:])
