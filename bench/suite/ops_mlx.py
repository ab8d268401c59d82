"""Single operations in MLX, compiled, forward and backward: `raw` as mlx.nn has them, `ours` as this library does."""

from functools import partial

import mlx.core as mx
import mlx.nn
import mlx.optimizers

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.compile._compiled import compiled as compiled_trees
from mlx_fp.core.backend import on_device
from mlx_fp.cpu import _composed as plain

from .mlx_models import causal
from .ops import shapes
from .run_mlx import CONTEXTS, OPTIONS, adamw, versions

__all__ = ["prepare", "versions"]


def prepare(way, kind, sizes):
    """A function that runs an operation and the gradient of all its floating inputs, and waits for them."""
    if kind == "adamw":
        return _update(way, {f"p{i}": mx.random.normal(shape) for i, shape in enumerate(shapes(sizes))})
    function, inputs = _MADE[kind](way, *sizes)
    output = function(*inputs)
    cotangent = mx.random.normal(output.shape)
    compiled = mx.compile if way == "raw" else lambda fn: compiled_trees(on_device(fn), "inputs", "cotangent")
    both = compiled(lambda inputs, cotangent: mx.vjp(function, inputs, [cotangent]))
    mx.eval(inputs, cotangent)

    def run():
        mx.eval(both(inputs, cotangent))

    return run


def _update(way, params):
    grads = {name: 0.01 * p for name, p in params.items()}
    mx.eval(params, grads)
    if way == "ours":  # the second half of a step, which lets MLX keep memory, and updates in place
        model = nn.layer({**params}.copy, lambda params, xs, kw, train: (xs[0], params))
        step = fp.train_step(model, lambda forward, x: forward(x), adamw())
        rest = fp.partition(fp.everything)(params)[1]
        CONTEXTS.enter_context(fp.cpu.tuned(step.parameter_bytes))
        state = [*step.init(params)]

        def run():
            state[:] = step.update(*state, grads, rest)
            mx.eval(state)

        return run
    optimizer = mlx.optimizers.AdamW(**OPTIONS)
    optimizer.init(params)
    compiled = mx.compile(optimizer.apply_gradients, inputs=optimizer.state, outputs=optimizer.state)
    state = [params]
    del params

    def run():
        state[0] = compiled(grads, state[0])
        mx.eval(state, optimizer.state)

    return run


def _parts(way, cls, layer, *args, **kwargs):
    """A function of the parameters and an input, and the names of the parameters: of a module, or of our layer."""
    module = cls(*args, **kwargs)
    names, values = zip(*module.parameters().items(), strict=True)

    def raw(x, *values):
        module.update(dict(zip(names, values, strict=True)))
        return module(x)

    def ours(x, *values):
        return made.apply(dict(zip(names, values, strict=True)), x)[0]

    made = layer(*args, **kwargs)
    return (ours if way == "ours" else raw), values


def _dense(way, rows, into, out):
    function, values = _parts(way, mlx.nn.Linear, nn.linear, into, out)
    return function, [mx.random.normal((rows, into)), *values]


def _norm(way, rows, width):
    function, values = _parts(way, mlx.nn.LayerNorm, nn.layer_norm, width)
    return function, [mx.random.normal((rows, width)), *values]


def _conv(way, n, side, into, out):
    function, values = _parts(way, mlx.nn.Conv2d, nn.conv2d, into, out, 3, padding=1)
    return function, [mx.random.normal((n, side, side, into)), *values]


def _embedding(way, vocabulary, width, n, length):
    function, values = _parts(way, mlx.nn.Embedding, nn.embedding, vocabulary, width)
    tokens = mx.random.randint(0, vocabulary, (n, length))
    return (lambda weight: function(tokens, weight)), [*values]


def _recurrence(way, n, length, hidden):
    def run(x, weight):
        state, every = mx.zeros((n, hidden)), []
        for i in range(length):
            state = mx.tanh(mx.addmm(x[:, i], state, weight.T))
            every.append(state)
        return mx.stack(every, axis=1)

    return run, [mx.random.normal((n, length, hidden)), mx.random.normal((hidden, hidden)) / hidden**0.5]


def _pool(way, n, side, channels):
    pool = mlx.nn.MaxPool2d(2, stride=2)
    return (lambda x: pool(x)), [mx.random.normal((n, side, side, channels))]


def _composed(way):
    """Whether attention is that of plain operations: lifted layers take it with native kernels."""
    return way == "ours" and fp.cpu.kernels().native


def _attention(masked):
    def make(way, n, heads, query, key, width):
        attend = plain.attention if _composed(way) else mx.fast.scaled_dot_product_attention
        inputs = [mx.random.normal((n, length, heads, width)) for length in (query, key, key)]
        mask = causal(query) if masked else None
        return lambda *qkv: attend(*(x.swapaxes(1, 2) for x in qkv), scale=width**-0.5, mask=mask), inputs

    return make


def _softmax(way, *shape):
    softmax = plain.softmax if _composed(way) else partial(mx.softmax, axis=-1)
    return softmax, [mx.random.normal(shape)]


def _activation(name):
    def make(way, *shape):
        return getattr(nn if way == "ours" else mlx.nn, name), [mx.random.normal(shape)]

    return make


def _cross_entropy(way, rows, classes):
    y = mx.random.randint(0, classes, (rows,))
    losses = nn.losses if way == "ours" else mlx.nn.losses
    return (lambda x: losses.cross_entropy(x, y, reduction="mean")), [mx.random.normal((rows, classes))]


def _squared_error(way, *shape):
    y = mx.random.normal(shape)
    losses = nn.losses if way == "ours" else mlx.nn.losses
    return (lambda x: losses.mse_loss(x, y, reduction="mean")), [mx.random.normal(shape)]


_MADE = {
    "dense": _dense,
    "layer norm": _norm,
    "conv": _conv,
    "embedding": _embedding,
    "recurrence": _recurrence,
    "max pool": _pool,
    "attention": _attention(False),
    "causal attention": _attention(True),
    "softmax": _softmax,
    "relu": _activation("relu"),
    "gelu": _activation("gelu"),
    "cross entropy": _cross_entropy,
    "squared error": _squared_error,
}
