"""Map batches to the arguments of a loss: by name, by selectors, by functions, from a registry, or from the loss."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED = 7


def rows() -> list[dict[str, Any]]:
    """Return scikit-learn's digits as nested records, with more fields than a loss needs."""
    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16).astype(np.float32)
    return [
        {"id": f"digit-{n}", "image": image, "meta": {"label": int(label), "source": "UCI"}}
        for n, (image, label) in enumerate(zip(scaled, labels, strict=True))
    ]


def noisy(batch: dict[str, Any], epoch: int, index: int, kind: str) -> np.ndarray:
    """Return the images; in training with noise, which becomes weaker with each epoch.

    The noise is a function of the epoch and the index of the batch, so each run draws the same.
    """
    image = batch["image"]
    noise = np.random.default_rng((SEED, epoch, index)).normal(size=image.shape).astype(np.float32)
    return image + 0.3 / (1 + epoch) * noise if kind == "train" else image


def loss(model, features, targets):
    """A loss whose arguments have other names than the fields of a row."""
    return nn.losses.cross_entropy(model(features), targets, reduction="mean")


collates = (
    fp.Registry("collate")
    .add("image", {"x": "image"})
    .add("labelled", {"y": ("meta", "label")}, extends="image")
    .add("noisy", {"x": noisy}, extends="labelled")  # the bases come first: x is replaced, y stays
)

checked = data.schema(x=("float32", (None, 64)), y=("int32", 1))

task, batch = fp.classification(), data.batch(64)
ways: dict[str, tuple[Any, list[Any]]] = {  # a task or a loss, and the operations between the rows and it
    "xy": (task, [data.map(lambda row: (row["image"], row["meta"]["label"])), batch, data.collate("xy")]),
    "selectors": (task, [batch, data.collate({"x": "image", "y": ("meta", "label")}), checked]),
    "function": (task, [batch, data.collate(lambda batch: {"x": batch["image"], "y": batch["meta"]["label"]})]),
    "registry": (task, [batch, data.collate(collates["noisy"]), checked]),
    "bind": (  # input fills features, and label fills targets; the loss has no argument for id
        loss,
        [batch, data.collate({"input": "image", "label": ("meta", "label"), "id": "id"}), data.bind(loss)],
    ),
}

model = nn.sequential(nn.linear(64, 64), nn.relu, nn.linear(64, 10))


def main() -> dict[str, float]:
    train, held_out = pipe(data.source(rows()), data.split((0.8, 0.2), seed=SEED))
    train = pipe(train, data.shuffle(seed=SEED))
    losses = {}
    for name, (task_or_loss, operations) in ways.items():
        report = pipe(
            fp.trainer(model, task_or_loss),
            fp.with_optimizer(optim.adam(5e-3)),
            fp.fit(pipe(train, *operations), validation=pipe(held_out, *operations), epochs=3, quiet=True),
        )
        losses[name] = report.rows[-1].figures()["val_loss"]
        print(f"{name:10} validation loss {losses[name]:.3f}")

    try:
        next(iter(pipe(held_out, data.batch(64), data.collate({"x": "picture"}))))
    except ValueError as error:
        print("\na wrong name:", error, *error.__notes__, sep="\n  ")
    return losses


if __name__ == "__main__":
    main()
