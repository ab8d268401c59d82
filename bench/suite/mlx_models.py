"""The models as modules of mlx.nn, as its users write them."""

from itertools import pairwise

import mlx.core as mx
import mlx.nn

from .cases import built


def mlp(*dims):
    """Linear layers with a relu between each two."""
    body = [layer for pair in pairwise(dims) for layer in (mlx.nn.Linear(*pair), mlx.nn.ReLU())]
    return mlx.nn.Sequential(*body[:-1])


class CNN(mlx.nn.Module):
    """Two convolutions of 16 and 32 channels, each with a pool, over images (n, side, side, 3)."""

    def __init__(self, side, classes):
        super().__init__()
        self.conv1 = mlx.nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = mlx.nn.Conv2d(16, 32, 3, padding=1)
        self.pool = mlx.nn.MaxPool2d(2, stride=2)
        self.head = mlx.nn.Linear(32 * (side // 4) ** 2, classes)

    def __call__(self, x):
        x = self.pool(mlx.nn.relu(self.conv1(x)))
        x = self.pool(mlx.nn.relu(self.conv2(x)))
        return self.head(x.reshape(x.shape[0], -1))


class RNN(mlx.nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.rnn = mlx.nn.RNN(width, hidden)

    def __call__(self, x):
        return self.rnn(x)


class Transformer(mlx.nn.Module):
    """An encoder and a decoder over (n, source, width) and (n, target, width); the decoder looks back only."""

    def __init__(self, width, heads, layers):
        super().__init__()
        self.body = mlx.nn.Transformer(width, heads, layers, layers)

    def __call__(self, source, target):
        return self.body(source, target, None, causal(target.shape[1]), None)


class GPT(mlx.nn.Module):
    """A GPT-2-style decoder over tokens (n, length)."""

    def __init__(self, vocabulary, length, width, heads, layers):
        super().__init__()
        self.embed = mlx.nn.Embedding(vocabulary, width)
        self.places = mlx.nn.Embedding(length, width)
        self.body = mlx.nn.TransformerEncoder(layers, width, heads, activation=mlx.nn.gelu)
        self.head = mlx.nn.Linear(width, vocabulary, bias=False)

    def __call__(self, tokens):
        length = tokens.shape[1]
        return self.head(self.body(self.embed(tokens) + self.places(mx.arange(length)), causal(length)))


def causal(length):
    return mlx.nn.MultiHeadAttention.create_additive_causal_mask(length)


def module(case):
    """A new module for a case."""
    return built(case, mlp=mlp, cnn=CNN, rnn=RNN, transformer=Transformer, gpt=GPT)


def loss(case, output, y):
    """The scalar loss of a case."""
    if case.squared:
        return mlx.nn.losses.mse_loss(output, y, reduction="mean")
    return mlx.nn.losses.cross_entropy(output, y, reduction="mean")
