"""An experiment as one record: override settings by path, sweep over them, keep the best in a bundle."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 5


def mlp(width: int = 32, dropout: float = 0.1):
    """A function of options: `model.width` and `model.dropout` are settings."""
    return nn.sequential(nn.linear(64, width), nn.relu, nn.dropout(dropout), nn.linear(width, 10))


def digits(batch_size: int = 64) -> data.Splits:
    raw = load_digits()
    rows = data.arrays(x=(raw.data / 16).astype(np.float32), y=raw.target.astype(np.int32))
    train, validation, test = pipe(rows, data.split((0.7, 0.15, 0.15), seed=SEED))
    train = data.shuffle(seed=SEED)(train)
    return data.splits(train=train, validation=validation, test=test, shared=data.batch(batch_size))


def clipped(learning_rate: float = 1e-3, max_norm: float = 1.0) -> optim.Optimizer:
    return pipe(optim.adamw(learning_rate), optim.clip_norm(max_norm))


experiment = fp.experiment(
    "digits",
    fp.early_stop(3),
    model=mlp,
    task=fp.classification(),
    optimizer=clipped,
    data=digits,
    epochs=3,
    seed=SEED,
)


def main() -> fp.Sweep:
    print("settings:", ", ".join(fp.settings(experiment)))
    found = fp.sweep({"optimizer.learning_rate": [1e-3, 1e-2], "model.width": [16, 64]}, quiet=True)(experiment)
    print(found)

    best = fp.override({**found.best.settings, "epochs": 8})(experiment)
    report = fp.run(quiet=True)(best)
    test = fp.evaluate(best.splits, params=report.params)(best.trainer)
    path = Path(tempfile.mkdtemp()) / "digits.json"
    fp.save_bundle(path, settings=fp.settings(best), user={"test": test})(report)
    print(f"\n{best}\ntest accuracy {fp.read_bundle(path)['user']['test']['accuracy']:.3f}; bundle in {path}")
    return found


if __name__ == "__main__":
    main()
