"""The cells of MLX's recurrent layers: one step, and its derivative, on rows `(n, ·)`.

The derivative of a step returns the gradients of the gates, and no gradient of a weight. Those of all steps are then
one product, see `_recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["GRU_CELL", "LSTM_CELL", "RELU_CELL", "TANH_CELL", "Cell"]

Arrays = tuple[Array, ...]


class Cell(NamedTuple):
    """A recurrent cell. Its carry is `(hidden,)` or `(hidden, cell)`, each `(n, hidden_size)`."""

    step: Callable[[Array, Arrays, Array, Array | None], tuple[Arrays, Arrays]]
    """`step(x, carry, weight, bias) -> (carry, saved)`. `x` is the product of the input, `weight` is the transposed
    weight of the hidden state, `bias` is added to its last third in a GRU."""
    back: Callable[[Arrays, Arrays, Arrays, Arrays, Array], tuple[Arrays, Arrays]]
    """`back(gradient, saved, carry, before, weight) -> (gates, gradient)`. The given gradient is that of the carry
    after the step, the returned one is that of the carry before it, `before`. `weight` is the weight of the hidden
    state. `gates` are the gradient of its product, and in a GRU also that of the last third of `x`."""


def _elman(activation: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Cell:
    """Return the cell of `mlx.nn.RNN`; `slope` is the derivative of the activation as a function of its result."""

    def step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
        return (activation(x + carry[0] @ weight),), ()

    def back(gradient: Arrays, saved: Arrays, carry: Arrays, before: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
        gates = gradient[0] * slope(carry[0])
        return (gates,), (gates @ weight,)

    return Cell(step, back)


def _lstm_step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
    hidden, cell = carry
    i, f, g, o = mx.split(x + hidden @ weight, 4, axis=-1)
    i, f, g, o = mx.sigmoid(i), mx.sigmoid(f), mx.tanh(g), mx.sigmoid(o)
    cell = f * cell + i * g
    squashed = mx.tanh(cell)
    return (o * squashed, cell), (i, f, g, o, squashed)


def _lstm_back(gradient: Arrays, saved: Arrays, carry: Arrays, before: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
    i, f, g, o, squashed = saved
    of_hidden, of_cell = gradient
    of_cell = of_cell + of_hidden * o * (1 - squashed * squashed)
    parts = [
        of_cell * g * i * (1 - i),
        of_cell * before[1] * f * (1 - f),
        of_cell * i * (1 - g * g),
        of_hidden * squashed * o * (1 - o),
    ]
    gates = mx.concatenate(parts, axis=-1)
    return (gates,), (gates @ weight, of_cell * f)


def _gru_step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
    (hidden,) = carry
    x_r, x_z, x_n = mx.split(x, 3, axis=-1)
    h_r, h_z, h_n = mx.split(hidden @ weight, 3, axis=-1)
    h_n = h_n if bias is None else h_n + bias
    r, z = mx.sigmoid(x_r + h_r), mx.sigmoid(x_z + h_z)
    n = mx.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * hidden,), (r, z, n, h_n)


def _gru_back(gradient: Arrays, saved: Arrays, carry: Arrays, before: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
    r, z, n, h_n = saved
    (of_hidden,), (hidden,) = gradient, before
    of_n = of_hidden * (1 - z) * (1 - n * n)
    of_r = of_n * h_n * r * (1 - r)
    of_z = of_hidden * (hidden - n) * z * (1 - z)
    gates = mx.concatenate([of_r, of_z, of_n * r], axis=-1)
    return (gates, of_n), (of_hidden * z + gates @ weight,)


TANH_CELL = _elman(mx.tanh, lambda y: 1 - y * y)
"""The cell of an RNN with tanh."""
RELU_CELL = _elman(lambda x: mx.maximum(x, 0), lambda y: (y > 0).astype(y.dtype))
"""The cell of an RNN with ReLU."""
LSTM_CELL = Cell(_lstm_step, _lstm_back)
"""The cell of an LSTM."""
GRU_CELL = Cell(_gru_step, _gru_back)
"""The cell of a GRU."""
