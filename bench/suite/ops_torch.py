"""Single operations in PyTorch, eager, forward and backward."""

import torch
import torch.nn.functional as F

from .cases import ADAMW
from .ops import shapes
from .run_torch import versions

__all__ = ["prepare", "versions"]


def prepare(way, kind, sizes):
    """A function that runs an operation and the gradient of all its floating inputs."""
    if kind == "adamw":
        return _update([torch.randn(shape) for shape in shapes(sizes)])
    function, inputs = _MADE[kind](*sizes)
    inputs = [x.requires_grad_() for x in inputs]
    cotangent = torch.randn_like(function(*inputs))

    def run():
        torch.autograd.grad(function(*inputs), inputs, cotangent)

    return run


def _update(params):
    params = [p.requires_grad_() for p in params]
    for p in params:
        p.grad = 0.01 * p.detach()
    optimizer = torch.optim.AdamW(
        params, ADAMW.rate, betas=ADAMW.betas, eps=ADAMW.eps, weight_decay=ADAMW.decay, fused=True
    )
    return optimizer.step


def _recurrence(n, length, hidden):
    cell = torch.nn.RNN(hidden, hidden, batch_first=True)
    flat = [p.detach() for p in cell.parameters()]
    start = torch.zeros(1, n, hidden)

    def run(x, weight):  # the input's product is a dense operation of its own, so this one has it too
        return torch._VF.rnn_tanh(x, start, [flat[0], weight, *flat[2:]], True, 1, 0.0, True, False, True)[0]

    return run, [torch.randn(n, length, hidden), flat[1]]


def _attention(causal):
    def make(n, heads, query, key, width):
        inputs = [torch.randn(n, heads, length, width) for length in (query, key, key)]
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), inputs

    return make


def _cross_entropy(rows, classes):
    y = torch.randint(0, classes, (rows,))
    return (lambda x: F.cross_entropy(x, y)), [torch.randn(rows, classes)]


def _squared_error(*shape):
    y = torch.randn(shape)
    return (lambda x: F.mse_loss(x, y)), [torch.randn(shape)]


def _embedding(vocabulary, width, n, length):
    tokens = torch.randint(0, vocabulary, (n, length))
    return (lambda weight: F.embedding(tokens, weight)), [torch.randn(vocabulary, width)]


_MADE = {
    "dense": lambda rows, into, out: (F.linear, [torch.randn(rows, into), torch.randn(out, into), torch.randn(out)]),
    "layer norm": lambda rows, width: (
        lambda x, w, b: F.layer_norm(x, (width,), w, b),
        [torch.randn(rows, width), torch.ones(width), torch.zeros(width)],
    ),
    "conv": lambda n, side, into, out: (
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        [torch.randn(n, into, side, side), torch.randn(out, into, 3, 3), torch.randn(out)],
    ),
    "embedding": _embedding,
    "recurrence": _recurrence,
    "max pool": lambda n, side, channels: (lambda x: F.max_pool2d(x, 2), [torch.randn(n, channels, side, side)]),
    "attention": _attention(False),
    "causal attention": _attention(True),
    "softmax": lambda *shape: (lambda x: x.softmax(-1), [torch.randn(shape)]),
    "relu": lambda *shape: (F.relu, [torch.randn(shape)]),
    "gelu": lambda *shape: (F.gelu, [torch.randn(shape)]),
    "cross entropy": _cross_entropy,
    "squared error": _squared_error,
}
