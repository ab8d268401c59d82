"""Distil a large classifier of handwritten digits into a small one, on images without labels."""

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe


def classifier(width: int):
    """Make the model: (n, 64) -> (n, 10)."""
    return nn.sequential(nn.linear(64, width), nn.relu, nn.linear(width, 10))


def train(model, task, batches, *, epochs: int):
    trainer = pipe(fp.trainer(model, task), fp.with_optimizer(optim.adamw(3e-3)))
    return pipe(trainer, fp.fit(batches, epochs=epochs, quiet=True)).params


def main() -> dict[str, float]:
    pixels, labels = load_digits(return_X_y=True)
    x, y = (pixels / 16).astype(np.float32), labels.astype(np.int32)
    labelled = pipe(data.arrays(x=x[:700], y=y[:700]), data.shuffle(seed=1), data.batch(50))
    images = pipe(data.arrays(x=x[700:1400]), data.shuffle(seed=2), data.batch(50))
    held_out = pipe(data.arrays(x=x[1400:], y=y[1400:]), data.batch(100))

    large, small = classifier(128), classifier(16)
    teacher = train(large, fp.classification(), labelled, epochs=10)

    pair = nn.with_frozen(teacher=(large, teacher))(small)  # runs `small`; the loss also calls `forward.teacher(x)`
    imitated = train(pair, fp.distillation(alpha=0.0, temperature=3.0), images, epochs=20)
    student = {name: tree for name, tree in imitated.items() if name != "teacher"}

    accuracies = {}
    for name, model, params in (("teacher", large, teacher), ("student", small, student)):
        accuracies[name] = fp.evaluate(held_out, params=params)(fp.trainer(model, fp.classification()))["accuracy"]
        print(f"{name}: {fp.size(params):,} parameters, accuracy {accuracies[name]:.3f}")
    return accuracies


if __name__ == "__main__":
    main()
