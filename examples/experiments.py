"""An experiment as one record: override settings by path, sweep over them, and save the best run in a bundle."""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 5


def mlp(width: int = 32, dropout: float = 0.1):
    """Make the model. The options of this function are settings: `model.width` and `model.dropout`."""
    return nn.sequential(nn.linear(64, width), nn.relu, nn.dropout(dropout), nn.linear(width, 10))


def digits(batch_size: int = 64) -> data.Splits:
    """Return the splits; `data.batch_size` is a setting."""
    images, labels = load_digits(return_X_y=True)
    rows = data.arrays(x=(images / 16).astype(np.float32), y=labels.astype(np.int32))
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
    sweep = fp.sweep({"optimizer.learning_rate": [1e-3, 1e-2], "model.width": [16, 64]}, quiet=True)(experiment)
    print(sweep)
    assert sweep.best is not None  # None only for a sweep without a trial

    best = fp.override({**sweep.best.settings, "epochs": 8})(experiment)
    report = fp.run(quiet=True)(best)
    test = fp.evaluate(best.splits, params=report.params)(best.trainer)
    path = Path(tempfile.mkdtemp()) / "digits.json"
    fp.save_bundle(path, settings=fp.settings(best), user={"test": test})(report)
    print(f"\n{best}\ntest accuracy {fp.read_bundle(path)['user']['test']['accuracy']:.3f}; bundle in {path}")
    return sweep


if __name__ == "__main__":
    main()
