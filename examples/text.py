"""Train a small language model of bytes; the text is Python's standard library."""

import sysconfig
from pathlib import Path

import mlx.core as mx
import numpy as np
from toolz import compose_left

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

SEED, STEPS = 7, 100


def corpus(size: int = 1_000_000) -> np.ndarray:
    """Return the first bytes of the standard library's modules, one after another: (size,) of uint8."""
    folder = Path(sysconfig.get_path("stdlib"))
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return np.frombuffer(text[:size], np.uint8)


def shifted(batch):
    """Return the inputs and the targets, which are one byte further on: (b, 65) -> two arrays of (b, 64)."""
    (tokens,) = batch
    return tokens[:, :-1], tokens[:, 1:]


windows = data.window(65, step=64)  # windows share one byte, so that each byte is a target once
batches = compose_left(data.batch(16), data.map(shifted))

# Each byte sees itself and the seven bytes before it. With nn.gru(32, 32) in place of the residual part, the model
# learns more, and takes longer.
causal = nn.sequential(lambda x: mx.pad(x, [(0, 0), (7, 0), (0, 0)]), nn.conv1d(32, 32, 8), nn.gelu)
model = nn.sequential(nn.embedding(256, 32), nn.residual(causal), nn.linear(32, 128), nn.relu, nn.linear(128, 256))


def main() -> tuple[float, float]:
    tokens = corpus()
    cut = len(tokens) * 9 // 10
    train = pipe(data.arrays(tokens[:cut]), windows, data.shuffle(seed=SEED), data.take(16 * STEPS), batches)
    held_out = pipe(data.arrays(tokens[cut:]), windows, data.take(16 * 10), batches)
    print(train)

    trainer = fp.trainer(model, fp.language_modeling(), optimizer=optim.adam(1e-2))
    start = nn.init(SEED)(model)
    before = fp.evaluate(held_out, params=start)(trainer)
    report = fp.fit(train, validation=held_out, params=start)(trainer)
    after = report.rows[-1]
    print(f"perplexity {before['perplexity']:.1f} before, {after.val_perplexity:.1f} after {STEPS} steps;", end=" ")
    print(f"{after.val_token_accuracy:.0%} of the next bytes guessed right")
    return before["loss"], after.figures()["val_loss"]


if __name__ == "__main__":
    main()
