"""Classify two interleaved spirals with a small perceptron: the shortest complete run."""

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe


def spirals(count: int = 600):
    """Return points (n, 2) and labels (n,) of two spirals with some noise."""
    t = mx.linspace(0.3, 3.0, count)
    label = mx.arange(count) % 2
    angle = 2.2 * t + mx.pi * label
    noise = mx.random.normal((count, 2), scale=0.05, key=mx.random.key(1))
    return mx.stack([t * mx.cos(angle), t * mx.sin(angle)], axis=1) + noise, label.astype(mx.int32)


hidden = nn.stack(2, lambda i: nn.sequential(nn.linear(64 if i else 2, 64), nn.silu))
model = nn.sequential(hidden, nn.linear(64, 2))


def main() -> fp.Report:
    points, labels = spirals()
    train = pipe(data.arrays(points, labels), data.shuffle(seed=0), data.batch(50))
    report = pipe(
        fp.trainer(model, fp.classification()),
        fp.with_optimizer(optim.adam(5e-3)),
        fp.on("after_epoch", lambda e: fp.Stop("good enough") if e.accuracy > 0.99 else None),
        fp.fit(train, epochs=60, quiet=True),
    )
    print(f"{report.epochs_ran} epochs, accuracy {report.rows[-1].accuracy:.3f}, stopped: {report.stop_reason}")
    return report


if __name__ == "__main__":
    main()
