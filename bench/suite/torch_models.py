"""The models as modules of PyTorch, under MLX's parameter paths."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from .cases import built


class CNN(nn.Module):
    def __init__(self, side, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * (side // 4) ** 2, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(x.flatten(1))


class MLP(nn.Module):
    def __init__(self, *dims):
        super().__init__()
        body = [layer for pair in pairwise(dims) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.layers = nn.Sequential(*body[:-1])

    def forward(self, x):
        return self.layers(x)


class RNN(nn.Module):
    """Make an nn.RNN. It has two biases, and MLX has one: the second stays zero, and does not train."""

    def __init__(self, width, hidden):
        super().__init__()
        self.rnn = nn.RNN(width, hidden, batch_first=True)
        self.rnn.bias_hh_l0.requires_grad_(False)

    def forward(self, x):
        return self.rnn(x)[0]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value", "out"):
            self.add_module(f"{name}_proj", nn.Linear(width, width, bias=False))

    def forward(self, x, memory, causal):
        q, k, v = (self._split(y) for y in (self.query_proj(x), self.key_proj(memory), self.value_proj(memory)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def _split(self, y):
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, activation):
        super().__init__()
        self.attention = Attention(width, heads)
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x, causal):
        y = self.ln1(x)
        x = x + self.attention(y, y, causal)
        return x + self.linear2(self.activation(self.linear1(self.ln2(x))))


class DecoderLayer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.self_attention, self.cross_attention = Attention(width, heads), Attention(width, heads)
        self.ln1, self.ln2, self.ln3 = (nn.LayerNorm(width) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, memory):
        y = self.ln1(x)
        x = x + self.self_attention(y, y, True)
        x = x + self.cross_attention(self.ln2(x), memory, False)
        return x + self.linear2(F.relu(self.linear1(self.ln3(x))))


class Stack(nn.Module):
    """Layers one after the other, and a norm."""

    def __init__(self, width, layers):
        super().__init__()
        self.layers, self.ln = nn.ModuleList(layers), nn.LayerNorm(width)

    def forward(self, x, *more):
        for layer in self.layers:
            x = layer(x, *more)
        return self.ln(x)


class Transformer(nn.Module):
    def __init__(self, width, heads, layers):
        super().__init__()
        self.body = nn.ModuleDict(
            {
                "encoder": Stack(width, [EncoderLayer(width, heads, F.relu) for _ in range(layers)]),
                "decoder": Stack(width, [DecoderLayer(width, heads) for _ in range(layers)]),
            }
        )

    def forward(self, source, target):
        return self.body["decoder"](target, self.body["encoder"](source, False))


class GPT(nn.Module):
    def __init__(self, vocabulary, length, width, heads, layers):
        super().__init__()
        self.embed, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.body = Stack(width, [EncoderLayer(width, heads, F.gelu) for _ in range(layers)])
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens) + self.places(torch.arange(tokens.shape[1])), True))


def module(case):
    """A new module for a case."""
    return built(case, mlp=MLP, cnn=CNN, rnn=RNN, transformer=Transformer, gpt=GPT)
