"""Classify handwritten digits: real images, a residual convolutional net, one compiled step.

The data are the 1,797 scanned digits of the UCI repository (8 × 8 pixels, values 0 to 16) that scikit-learn carries.
It writes `report.json`, `curves.png` and the page `report.html` into `runs/digits`, or into the folder that the
command line names.
"""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe, show

SEED, EPOCHS, BATCH = 7, 20, 64


def digits(held_out: float = 0.2):
    """Return (images, labels) for training and (images, labels) held out; images are (n, 8, 8, 1) in [0, 1]."""
    pixels, digits = load_digits(return_X_y=True)
    images, labels = (pixels.reshape(-1, 8, 8, 1) / 16).astype(np.float32), digits.astype(np.int32)
    order = np.random.default_rng(SEED).permutation(len(images))
    cut = int(len(order) * (1 - held_out))
    train, rest = order[:cut], order[cut:]
    return (images[train], labels[train]), (images[rest], labels[rest])


def block(channels: int):
    """Make a residual block: (n, h, w, c) -> (n, h, w, c)."""
    return nn.residual(
        nn.conv2d(channels, channels, 3, padding=1), nn.batch_norm(channels), nn.relu,
        nn.conv2d(channels, channels, 3, padding=1), nn.batch_norm(channels),
    )  # fmt: skip


model = nn.sequential(
    stem=nn.sequential(nn.conv2d(1, 32, 3, padding=1), nn.batch_norm(32), nn.relu),
    body=nn.sequential(block(32), nn.relu, nn.max_pool2d(2, 2), nn.dropout(0.1)),
    head=nn.sequential(lambda x: x.flatten(1), nn.linear(4 * 4 * 32, 64), nn.relu, nn.dropout(0.3), nn.linear(64, 10)),
)

steps = EPOCHS * 23  # 1,437 images in batches of 64
optimizer = pipe(
    optim.groups(
        (fp.under("stem"), optim.sgd(2e-2, momentum=0.9)),
        (fp.everything, optim.adamw(optim.cosine_decay(2e-3, steps))),
    ),
    optim.clip_norm(1.0),
)


def main(folder: str = "runs/digits") -> fp.Report:
    (images, labels), (held_images, held_labels) = digits()
    train = pipe(data.arrays(x=images, y=labels), data.shuffle(seed=SEED), data.batch(BATCH))
    held_out = pipe(data.arrays(x=held_images, y=held_labels), data.batch(BATCH))

    print(nn.summary(model), end="\n\n")
    report = pipe(
        fp.trainer(model, fp.classification()),
        fp.with_optimizer(optimizer),
        fp.fit(train, validation=held_out, epochs=EPOCHS, seed=SEED),
    )
    print(f"\n{report}")

    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(report.to_json())
    picture = show.curves(report, out / "curves.png", title="UCI digits")
    page = show.html(report, out / "report.html", title="UCI digits")

    predict = pipe(model, nn.predictor(report.params))  # a plain function of arrays, which you can call anywhere
    guesses = mx.argmax(predict(held_images[:10]), axis=-1)
    print(f"\nheld out: {held_labels[:10].tolist()}\npredicted: {guesses.tolist()}")
    print(f"held-out accuracy {report.rows[-1].val_accuracy:.4f}; wrote {out / 'report.json'}, {picture} and {page}")
    return report


if __name__ == "__main__":
    main(*sys.argv[1:])
