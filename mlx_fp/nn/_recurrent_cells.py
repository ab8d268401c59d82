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
    factors: Callable[[Arrays, Arrays, Arrays, Array | None], Arrays]
    """`factors(saved, carry, before, bias) -> factors`: the parts of the derivative that need no gradient, for the rows
    of all steps at once. `before` is the carry before each step."""
    back: Callable[[Arrays, Arrays, Array], tuple[Arrays, Arrays]]
    """`back(gradient, factors, weight) -> (gates, gradient)`. The given gradient is that of the carry after the step,
    the returned one is that of the carry before it. `weight` is the weight of the hidden state. `gates` are the
    gradient of its product, and in a GRU also that of the last third of `x`."""


def _elman(activation: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Cell:
    """Return the cell of `mlx.nn.RNN`; `slope` is the derivative of the activation as a function of its result."""

    def step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
        return (activation(x + carry[0] @ weight),), ()

    def factors(saved: Arrays, carry: Arrays, before: Arrays, bias: Array | None) -> Arrays:
        return (slope(carry[0]),)

    def back(gradient: Arrays, factors: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
        gates = gradient[0] * factors[0]
        return (gates,), (gates @ weight,)

    return Cell(step, factors, back)


def _lstm_step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
    hidden, cell = carry
    gates = x + hidden @ weight
    i, f, g, o = mx.split(gates, 4, axis=-1)
    cell = mx.sigmoid(f) * cell + mx.sigmoid(i) * mx.tanh(g)
    return (mx.sigmoid(o) * mx.tanh(cell), cell), (gates,)


def _lstm_factors(saved: Arrays, carry: Arrays, before: Arrays, bias: Array | None) -> Arrays:
    i, f, g, o = mx.split(saved[0], 4, axis=-1)
    i, f, g, o, squashed = mx.sigmoid(i), mx.sigmoid(f), mx.tanh(g), mx.sigmoid(o), mx.tanh(carry[1])
    of_cell = mx.concatenate([g * i * (1 - i), before[1] * f * (1 - f), i * (1 - g * g)], axis=-1)
    return of_cell, squashed * o * (1 - o), o * (1 - squashed * squashed), f


def _lstm_back(gradient: Arrays, factors: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
    of_hidden, of_cell = gradient
    cell_factors, output_factor, through, f = factors
    of_cell = of_cell + of_hidden * through
    gates = mx.concatenate([_times_each(of_cell, cell_factors), of_hidden * output_factor], axis=-1)
    return (gates,), (gates @ weight, of_cell * f)


def _gru_step(x: Array, carry: Arrays, weight: Array, bias: Array | None) -> tuple[Arrays, Arrays]:
    (hidden,) = carry
    projected = hidden @ weight
    _, z, n, _ = _gru_gates(x, projected, bias)
    return ((1 - z) * n + z * hidden,), (x, projected)


def _gru_gates(x: Array, projected: Array, bias: Array | None) -> Arrays:
    x_r, x_z, x_n = mx.split(x, 3, axis=-1)
    h_r, h_z, h_n = mx.split(projected, 3, axis=-1)
    h_n = h_n if bias is None else h_n + bias
    r, z = mx.sigmoid(x_r + h_r), mx.sigmoid(x_z + h_z)
    return r, z, mx.tanh(x_n + r * h_n), h_n


def _gru_factors(saved: Arrays, carry: Arrays, before: Arrays, bias: Array | None) -> Arrays:
    r, z, n, h_n = _gru_gates(saved[0], saved[1], bias)
    of_n = (1 - z) * (1 - n * n)
    parts = [of_n * h_n * r * (1 - r), (before[0] - n) * z * (1 - z), of_n * r]
    return mx.concatenate(parts, axis=-1), of_n, z


def _gru_back(gradient: Arrays, factors: Arrays, weight: Array) -> tuple[Arrays, Arrays]:
    (of_hidden,), (gate_factors, of_n, z) = gradient, factors
    gates = _times_each(of_hidden, gate_factors)
    return (gates, of_hidden * of_n), (of_hidden * z + gates @ weight,)


def _times_each(gradient: Array, factors: Array) -> Array:
    """Multiply `(n, hidden)` with each part of `(n, parts * hidden)`."""
    rows, hidden = gradient.shape
    return (gradient[:, None, :] * factors.reshape(rows, -1, hidden)).reshape(rows, -1)


TANH_CELL = _elman(mx.tanh, lambda y: 1 - y * y)
"""The cell of `mlx.nn.RNN` with tanh."""

RELU_CELL = _elman(lambda x: mx.maximum(x, 0), lambda y: (y > 0).astype(y.dtype))
"""The cell of `mlx.nn.RNN` with relu."""

LSTM_CELL = Cell(_lstm_step, _lstm_factors, _lstm_back)
"""The cell of `mlx.nn.LSTM`."""

GRU_CELL = Cell(_gru_step, _gru_factors, _gru_back)
"""The cell of `mlx.nn.GRU`."""
