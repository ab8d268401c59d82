"""Learn which two halves of a handwritten digit belong together: two towers, and a temperature that is learned."""

import math

import numpy as np
from sklearn.datasets import load_digits

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe


def tower(dims: int = 32):
    """Make the encoder of half an image: (n, 32) -> (n, 32)."""
    return nn.sequential(nn.linear(32, 128), nn.relu, nn.linear(128, dims))


def main() -> list[float]:
    pixels, _ = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32)
    upper, lower = images[:, :32], images[:, 32:]
    train = pipe(data.arrays(upper=upper[:1500], lower=lower[:1500]), data.shuffle(seed=1), data.batch(125))
    held_out = pipe(data.arrays(upper=upper[1500:], lower=lower[1500:]), data.batch(99))  # batches of one size

    model = nn.define(
        lambda m, upper, lower: (m.upper(upper), m.lower(lower)),
        upper=tower(),
        lower=tower(),
        log_scale=nn.param((), init=math.log(1 / 0.07)),
    )
    report = pipe(
        fp.trainer(model, fp.contrastive(towers=("upper", "lower"), temperature="log_scale")),
        fp.with_optimizer(optim.adamw(2e-3)),
        fp.fit(train, validation=held_out, epochs=30, quiet=True),
    )
    first, last = report.rows[0], report.rows[-1]
    print(
        f"the right half of 99: {first.val_accuracy:.2f} after 1 epoch, {last.val_accuracy:.2f} after 30 (chance: 0.01)"
    )
    print(f"temperature: {last.temperature:.3f}")
    return [first.val_accuracy, last.val_accuracy]


if __name__ == "__main__":
    main()
