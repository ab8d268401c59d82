"""Each operation of MLX, computed alone, gives the values of the graph."""

import mlx.core as mx
import pytest
from helpers import assert_close

from mlx_fp.exporting._graph import graph_of
from mlx_fp.exporting._replay import replayed

X = mx.random.normal((4, 5, 6), key=mx.random.key(0))
INDICES = mx.array([0, 2, 1])
WEIGHT = mx.random.normal((3, 32, 64), key=mx.random.key(1))
IMAGES = mx.random.normal((2, 8, 8, 4), key=mx.random.key(2))
KERNEL = mx.random.normal((6, 3, 3, 4), key=mx.random.key(3))
QUANTISED = mx.quantize(WEIGHT, group_size=32, bits=4)
OPTIONS = {"group_size": 32, "bits": 4}


def assert_replayed(fn, *xs):
    """Assert that the operations of a function, one after another, give its result."""
    graph = graph_of(lambda *xs: [fn(*xs)], xs)
    values = {value.name: x for value, x in zip(graph.inputs, xs, strict=True)} | dict(graph.constants)
    for timed in replayed(graph, xs, 1):
        assert timed.seconds is not None, timed.node
        values |= {value.name: x for value, x in zip(timed.node.outputs, timed.outputs, strict=True)}
    assert_close(values[graph.outputs[0].name], fn(*xs))


def squares(fn):
    """Return a scalar function of `fn`, whose derivative depends on its values."""
    return lambda *xs: fn(*xs).astype(mx.float32).square().sum()


FORWARD = {
    "slices": lambda x: x[::-1, 1:4, ::-2],
    "gather in front": lambda x: x[INDICES],
    "gather of two axes": lambda x: x[INDICES, :, INDICES],
    "update": lambda x: x.at[:, INDICES].add(x[:, :3]),
    "largest": lambda x: x.at[INDICES].maximum(x[:3]),
    "put": lambda x: mx.put_along_axis(x, mx.argsort(x, axis=1), x + 1, 1),
    "partition": lambda x: mx.partition(x, 2, axis=1) + mx.argmin(x, axis=1, keepdims=True),
    "rounding": lambda x: mx.floor(x) // 2 + mx.remainder(x, 2) + mx.round(x) + mx.divmod(x, 2)[1],
    "bits": lambda x: (x.view(mx.int32) & 255) | 3,
    "logic": lambda x: mx.any(((x > 0) & (x < 1)) | ~(x >= 2), axis=1),
}

BACKWARD = {
    "slices": lambda x: x[::-1, 1:4],
    "gather": lambda x: x[:, INDICES],
    "scatter of two axes": lambda x: x[INDICES, INDICES],
    "along an axis": lambda x: mx.take_along_axis(x, mx.stop_gradient(mx.argsort(x, axis=1)), 1),
    "sums": lambda x: mx.cumsum(x, 1) + mx.cumsum(x, 1, reverse=True, inclusive=False),
    "extremes": lambda x: mx.cummax(x, 1) + mx.sort(x, axis=1) + x.max(axis=1, keepdims=True),
    "exponentials": lambda x: mx.logsumexp(x, axis=2, keepdims=True) + mx.softmax(x, axis=-1) + mx.logaddexp(x, -x),
    "products": lambda x: mx.prod(x, axis=1),
    "roll": lambda x: mx.roll(x, 2, axis=1),
    "transform": lambda x: mx.fft.irfft(mx.fft.rfft(x, axis=2), axis=2),
    "norms": lambda x: mx.fast.layer_norm(x, None, None, 1e-5) + mx.fast.rms_norm(x, None, 1e-5),
    "attention": lambda x: mx.fast.scaled_dot_product_attention(x[None], x[None], x[None], scale=0.3),
    "positions": lambda x: mx.fast.rope(x, 6, traditional=False, base=1e4, scale=1.0, offset=0),
    "powers": lambda x: mx.power(mx.abs(x), 1.5) + mx.log2(mx.abs(x)) + mx.log1p(mx.abs(x)) + mx.rsqrt(mx.abs(x)),
    "angles": lambda x: mx.arctan2(x, x + 1) + mx.sinh(x) + mx.erfinv(mx.tanh(x)) + mx.arctan(x) + mx.tan(x),
}


@pytest.mark.parametrize("fn", FORWARD.values(), ids=FORWARD)
def test_an_operation_gives_its_values(fn):
    assert_replayed(fn, X)


@pytest.mark.parametrize("fn", BACKWARD.values(), ids=BACKWARD)
def test_the_operations_of_a_derivative_give_its_values(fn):
    assert_replayed(mx.grad(squares(fn)), X)


@pytest.mark.parametrize("position", [0, 1])
def test_the_derivatives_of_convolutions(position):
    convolution = squares(lambda x, weight: mx.conv2d(x, weight, 2, 1))
    assert_replayed(mx.grad(convolution, argnums=position), IMAGES, KERNEL)


def test_a_convolution_in_groups():
    assert_replayed(mx.grad(squares(lambda x: mx.conv2d(x, mx.ones((8, 3, 3, 1)), 1, 1, groups=4))), IMAGES)


def test_products_with_quantised_weights():
    first = [x[0] for x in QUANTISED]
    assert_replayed(lambda x, *q: mx.quantized_matmul(x, *q, transpose=True, **OPTIONS), mx.ones((3, 64)), *first)
    assert_replayed(
        lambda x, *q: mx.gather_qmm(x, *q, rhs_indices=mx.array([0, 2]), transpose=True, **OPTIONS),
        mx.ones((2, 3, 64)),
        *QUANTISED,
    )


def test_products_with_chosen_weights():
    assert_replayed(lambda x: mx.gather_mm(x, x.swapaxes(1, 2), rhs_indices=mx.array([0, 1, 3, 3])), X)


def test_random_numbers_of_a_key():
    assert_replayed(lambda key: mx.random.normal((4, 6), key=key), mx.random.key(3))
    (timed,) = replayed(graph_of(lambda key: [mx.random.split(key, 3)], [mx.random.key(3)]), [mx.random.key(3)], 1)
    assert_close(timed.outputs[0], mx.random.split(mx.random.key(3), 3))
