"""Three models, each as MLX's documented idiom (`raw`) and as this library's compiled step (`ours`), on the same batch.

Both start from the same weights and compute the same losses; `check` says so.
"""

from itertools import pairwise

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import mlx.utils

import mlx_fp as fp
from mlx_fp import nn, optim


class MLP(mlx.nn.Module):
    def __init__(self, *dims):
        super().__init__()
        self.layers = [mlx.nn.Linear(a, b) for a, b in pairwise(dims)]

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = mlx.nn.relu(layer(x))
        return self.layers[-1](x)


class LM(mlx.nn.Module):
    """A GPT-2-style decoder over tokens (n, length)."""

    def __init__(self, vocabulary=512, dims=64, heads=4, depth=2):
        super().__init__()
        self.embed = mlx.nn.Embedding(vocabulary, dims)
        self.body = mlx.nn.TransformerEncoder(depth, dims, heads, mlp_dims=4 * dims, norm_first=True)
        self.head = mlx.nn.Linear(dims, vocabulary)

    def __call__(self, x):
        mask = mlx.nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])
        return self.head(self.body(self.embed(x), mask))


def cross_entropy(logits, y):
    return mlx.nn.losses.cross_entropy(logits, y, reduction="mean")


def tiny():
    """An MLP 8-8-8-8-8 on a batch of 32."""
    return (lambda: MLP(8, 8, 8, 8, 8)), _images(32, 8, 8)


def mlp():
    """An MLP 784-256-10 on a batch of 64."""
    return (lambda: MLP(784, 256, 10)), _images(64, 784, 10)


def lm():
    """A transformer of 2 layers, width 64, on 8 sequences of 64 tokens."""
    tokens = mx.random.randint(0, 512, (8, 65), key=mx.random.key(2))
    return LM, (tokens[:, :-1], tokens[:, 1:])


def deep():
    """A hundred layers of 8 x 8 on a batch of 32."""
    return (lambda: MLP(*[8] * 101)), _images(32, 8, 8)


MODELS = {"tiny_mlp": tiny, "mlp_784_256_10": mlp, "transformer_lm": lm}


def raw(make, batch, loss=cross_entropy):
    """Make the documented idiom: a compiled step that captures module and optimiser as its state."""
    mx.random.seed(0)
    module, optimizer = make(), mlx.optimizers.AdamW(1e-3)
    mx.eval(module.parameters())
    optimizer.init(module.trainable_parameters())
    value_and_grad = mlx.nn.value_and_grad(module, lambda x, y: loss(module(x), y))
    state = [module.state, optimizer.state]

    def step(x, y):
        value, grads = value_and_grad(x, y)
        optimizer.update(module, grads)
        return value

    compiled = mx.compile(step, inputs=state, outputs=state)

    def run():
        value = compiled(*batch)
        mx.eval(value, state)
        return value

    return run


def ours(make, batch):
    """Make the step of `train_step` for the same module, lifted."""
    model = nn.lift(make)
    step = fp.train_step(model, lambda f, x, y: cross_entropy(f(x), y), optim.adamw(1e-3))
    state = list(step.init(nn.init(0)(model)))

    def run():
        state[0], state[1], logs = step(state[0], state[1], batch)
        mx.eval(state, logs)
        return logs["loss"]

    return run


def check(make, batch, steps=20):
    """Raise AssertionError unless both idioms give the same losses to rounding."""
    one, other = raw(make, batch), ours(make, batch)
    for _ in range(steps):
        a, b = one().item(), other().item()
        assert abs(a - b) <= 2e-3 * max(1.0, abs(a)), f"losses differ: {a} and {b}"


def _images(count, width, classes):
    x = mx.random.normal((count, width), key=mx.random.key(0))
    return x, mx.random.randint(0, classes, (count,), key=mx.random.key(1))
