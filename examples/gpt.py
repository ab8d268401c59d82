"""Train a small GPT-2-style language model on the bytes of the standard library, and let it write some bytes."""

import sysconfig
from pathlib import Path

import mlx.core as mx
import mlx.nn
import numpy as np

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

LENGTH, BATCH, STEPS, SEED = 64, 16, 200, 1


def text(size: int = 1_000_000) -> np.ndarray:
    """Return the first bytes of the standard library's modules, one after another: (size,) of uint8."""
    folder = Path(sysconfig.get_path("stdlib"))
    return np.frombuffer(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:size], np.uint8)


def gpt(vocabulary: int = 256, *, dims: int = 64, heads: int = 4, depth: int = 2, length: int = LENGTH):
    """Make the model: (b, length) -> (b, length, vocabulary). Learned positions, causal attention, a tied head."""

    def forward(m, tokens):
        x = m.tokens(tokens) + m.positions[: tokens.shape[1]]
        return m.tokens.as_linear(m.blocks(x, "causal"))

    return nn.define(
        forward,
        tokens=nn.embedding(vocabulary, dims),
        positions=nn.param((length, dims), init=nn.initializers.normal(0.0, 0.02)),
        blocks=nn.transformer_encoder(
            depth, dims, heads, mlp_dims=4 * dims, norm_first=True, activation=mlx.nn.gelu_approx
        ),
    )


def sample(predict, prompt: list[int], count: int, *, temperature: float = 0.7) -> bytes:
    """Sample `count` bytes after a prompt of at least `LENGTH` bytes, each from the model's logits at `temperature`."""
    tokens = list(prompt)
    for i in range(count):
        logits = predict(mx.array([tokens[-LENGTH:]]))[0, -1] / temperature
        tokens.append(int(mx.random.categorical(logits, key=mx.random.key(SEED + i))))
    return bytes(tokens[len(prompt) :])


def main(steps: int = STEPS) -> tuple[float, str]:
    tokens = text()
    cut = len(tokens) * 9 // 10
    windows = (data.window(LENGTH + 1, step=LENGTH), data.shuffle(seed=SEED), data.batch(BATCH))
    batches = data.map(
        lambda columns: columns[0]
    )  # the loss shifts the tokens: the target of each token is the next one
    train = pipe(data.arrays(tokens[:cut]), *windows, data.take(steps), batches)
    held_out = pipe(data.arrays(tokens[cut:]), *windows, data.take(10), batches)

    model = gpt()
    rate = optim.join_schedules([optim.linear_schedule(0.0, 3e-3, 20), optim.cosine_decay(3e-3, steps)], [20])
    report = pipe(
        fp.trainer(model, fp.language_modeling()),
        fp.with_optimizer(pipe(optim.adamw(rate, weight_decay=0.1), optim.clip_norm(1.0))),
        fp.fit(train, validation=held_out, seed=SEED),
    )
    predict = pipe(model, nn.predictor(report.params))
    prompt = tokens[cut : cut + LENGTH].tolist()
    written = sample(predict, prompt, 160).decode("utf-8", "replace")
    print(f"perplexity {report.rows[-1].val_perplexity:.1f}\n--- the prompt:\n{bytes(prompt).decode()}")
    print(f"--- the model continues:\n{written}")
    return report.rows[-1].val_perplexity, written


if __name__ == "__main__":
    main()
