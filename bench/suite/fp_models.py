"""The same models in mlx_fp's own layers, under the same parameter paths."""

from itertools import pairwise

import mlx.core as mx

from mlx_fp import nn

from .cases import built
from .mlx_models import causal


def mlp(*dims):
    body = [layer for pair in pairwise(dims) for layer in (nn.linear(*pair), nn.relu)]
    return nn.sequential(*body[:-1])


def cnn(side, classes):
    def forward(m, x):
        x = m.pool(nn.relu(m.conv1(x)))
        x = m.pool(nn.relu(m.conv2(x)))
        return m.head(x.reshape(x.shape[0], -1))

    return nn.define(
        forward,
        conv1=nn.conv2d(3, 16, 3, padding=1),
        conv2=nn.conv2d(16, 32, 3, padding=1),
        pool=nn.max_pool2d(2, stride=2),
        head=nn.linear(32 * (side // 4) ** 2, classes),
    )


def rnn(width, hidden):
    return nn.define(lambda m, x: m.rnn(x), rnn=nn.rnn(width, hidden))


def transformer(width, heads, layers):
    def forward(m, source, target):
        return m.body(source, target, None, causal(target.shape[1]), None)

    return nn.define(forward, body=nn.transformer(width, heads, layers, layers))


def gpt(vocabulary, length, width, heads, layers):
    def forward(m, tokens):
        length = tokens.shape[1]
        return m.head(m.body(m.embed(tokens) + m.places(mx.arange(length)), causal(length)))

    return nn.define(
        forward,
        embed=nn.embedding(vocabulary, width),
        places=nn.embedding(length, width),
        body=nn.transformer_encoder(layers, width, heads, activation=nn.gelu),
        head=nn.linear(width, vocabulary, bias=False),
    )


def layer(case):
    """A layer for a case."""
    return built(case, mlp=mlp, cnn=cnn, rnn=rnn, transformer=transformer, gpt=gpt)


def loss(case, output, y):
    """The scalar loss of a case."""
    if case.squared:
        return nn.losses.mse_loss(output, y, reduction="mean")
    return nn.losses.cross_entropy(output, y, reduction="mean")
