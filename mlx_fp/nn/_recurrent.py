"""MLX's recurrent layers in training, with a derivative of the whole sequence.

MLX's own derivative has a weight gradient, a sum and a padded slice for each step. Here the steps run backward with one
product each, and the gradient of a weight is one product over the gate gradients of all steps. The numbers are those of
MLX to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from ..core._mlx import mlx_nn, mx
from ..core._types import Array
from ._recurrent_cells import GRU_CELL, LSTM_CELL, RELU_CELL, TANH_CELL, Arrays, Cell

__all__ = ["RECURRENT"]


class _Weights(NamedTuple):
    """The arrays of a recurrent layer: `(gates * hidden, in)`, `(gates * hidden, hidden)`, and biases or None."""

    x: Array
    hidden: Array
    bias: Array | None = None
    hidden_bias: Array | None = None
    """The bias of the product of the hidden state in a GRU, `(hidden,)`."""


class _RNN(mlx_nn.RNN):
    def __call__(self, x: Array, hidden: Array | None = None) -> Array:
        cell, weights = _CELLS.get(self.nonlinearity), _Weights(self.Wxh, self.Whh, self.bias)
        if cell is None or not _is_plain(x, weights, (hidden,)):
            return super().__call__(x, hidden)  # type: ignore[no-any-return]  # MLX's layers have no types
        return _sequence(cell, x, weights, (hidden,))[0]


class _LSTM(mlx_nn.LSTM):
    def __call__(self, x: Array, hidden: Array | None = None, cell: Array | None = None) -> tuple[Array, Array]:
        weights, states = _Weights(self.Wx, self.Wh, self.bias), (hidden, cell)
        if not _is_plain(x, weights, states):
            return super().__call__(x, hidden, cell)  # type: ignore[no-any-return]  # MLX's layers have no types
        all_hidden, all_cell = _sequence(LSTM_CELL, x, weights, states)
        return all_hidden, all_cell


class _GRU(mlx_nn.GRU):
    def __call__(self, x: Array, hidden: Array | None = None) -> Array:
        weights = _Weights(self.Wx, self.Wh, self.b, self.bhn)
        if not _is_plain(x, weights, (hidden,)):
            return super().__call__(x, hidden)  # type: ignore[no-any-return]  # MLX's layers have no types
        return _sequence(GRU_CELL, x, weights, (hidden,))[0]


RECURRENT: Mapping[type, type] = MappingProxyType({mlx_nn.RNN: _RNN, mlx_nn.LSTM: _LSTM, mlx_nn.GRU: _GRU})
"""The classes of mlx.nn that a layer replaces in training."""

_CELLS: Mapping[object, Cell] = MappingProxyType({mlx_nn.tanh: TANH_CELL, mx.tanh: TANH_CELL, mlx_nn.relu: RELU_CELL})
"""The cells of an RNN by its activation. With another activation MLX computes the derivative."""


def _is_plain(x: Array, weights: _Weights, states: Sequence[Array | None]) -> bool:
    """Tell whether all arrays have one dtype, and the shapes that the documentation of MLX has."""
    given = [array for array in (*weights, *states) if array is not None]
    if x.ndim < 2 or not x.size or x.shape[-1] != weights.x.shape[-1] or any(a.dtype != x.dtype for a in given):
        return False
    shape = (*x.shape[:-2], weights.hidden.shape[-1])
    return all(state is None or state.shape == shape for state in states)


def _sequence(cell: Cell, x: Array, weights: _Weights, states: Sequence[Array | None]) -> list[Array]:
    """Run a cell over `x (…, length, in)`; return each part of its carry after each step, `(…, length, hidden)`."""
    *lead, length, width = x.shape
    rows, hidden = prod(lead), weights.hidden.shape[-1]
    by_time = mx.moveaxis(x, -2, 0).reshape(length * rows, width)
    zeros = mx.zeros((rows, hidden), x.dtype)
    carry = [zeros if state is None else state.reshape(rows, hidden) for state in states]
    present = [array for array in weights if array is not None]
    outputs = _steps(cell, len(carry), length, weights)(by_time, *carry, *present)[: len(carry)]
    return [mx.contiguous(mx.moveaxis(y.reshape(length, *lead, hidden), 0, -2)) for y in outputs]


def _steps(cell: Cell, carried: int, length: int, weights: _Weights) -> Callable[..., list[Array]]:
    """Return the function `(x, *carry, *weights) -> [*carries, *saved]` of rows `(length * n, ·)` of all steps.

    `carries` are the carries of all steps, one after another, and `saved` is for the derivative.
    """
    is_present = [array is not None for array in weights]

    def split(arrays: Sequence[Array]) -> tuple[Array, Arrays, _Weights]:
        x, present = arrays[0], iter(arrays[1 + carried :])
        return x, tuple(arrays[1 : 1 + carried]), _Weights(*(next(present) if there else None for there in is_present))

    def forward(*arrays: Array) -> list[Array]:
        x, carry, given = split(arrays)
        weight = given.hidden.T
        gates = x @ given.x.T if given.bias is None else mx.addmm(given.bias, x, given.x.T)
        carries, saved = [], []
        for each in mx.split(gates, length):
            carry, kept = cell.step(each, carry, weight, given.hidden_bias)
            carries.append(carry)
            saved += kept
        together = [mx.concatenate(list(parts)) for parts in zip(*carries, strict=True)]
        return [*together, *(part for carry in carries for part in carry), *saved]

    def plain(*arrays: Array) -> list[Array]:
        return forward(*arrays)[:carried]

    def derivative(*arrays: Array) -> list[Array]:
        (x, before, given), outputs = split(arrays), arrays[count + carried :]
        found = _backward(cell, length, before, given, arrays[count : count + carried], outputs)
        return _gradients(x, before[0], outputs[0], given, found)

    def second_derivative(primals: Sequence[Array], cotangents: Sequence[Array], _: object) -> list[Array]:
        inputs, outputs = list(primals[: count + carried]), primals[count + carried :]
        found = mx.vjp(lambda *a: mx.vjp(plain, list(a[:count]), list(a[count:]))[1], inputs, list(cotangents))[1]
        return [*found, *(mx.zeros_like(each) for each in outputs)]

    def backward(primals: Sequence[Array], cotangents: Sequence[Array], outputs: Sequence[Array]) -> Any:
        return once(*primals, *cotangents[:carried], *outputs)

    count = 1 + carried + sum(is_present)
    once: Any = mx.custom_function(derivative)
    once.vjp(second_derivative)
    steps: Any = mx.custom_function(forward)
    steps.vjp(backward)
    return steps  # type: ignore[no-any-return]  # MLX's custom functions have no types


class _Found(NamedTuple):
    """The gradients of the gates of all steps as rows, and the gradient of the first carry."""

    gates: Array
    """The gradient of the product of the hidden state."""
    last: Array | None
    """The gradient of the last third of the product of the input, in a GRU."""
    carry: Arrays


def _backward(
    cell: Cell, length: int, first: Arrays, weights: _Weights, cotangents: Sequence[Array], outputs: Sequence[Array]
) -> _Found:
    """Run the steps backward."""
    carried = len(first)
    carries = [first, *_groups(outputs[carried : carried + carried * length], length)]
    saved = _groups(outputs[carried + carried * length :], length)
    received = list(zip(*(mx.split(each, length) for each in cotangents), strict=True))
    gates, gradient = [], received[-1]
    for t in reversed(range(length)):
        if t < length - 1:
            gradient = tuple(a + b for a, b in zip(gradient, received[t], strict=True))
        found, gradient = cell.back(gradient, saved[t], carries[t + 1], carries[t], weights.hidden)
        gates.append(found)
    together = [mx.concatenate(list(parts)[::-1]) for parts in zip(*gates, strict=True)]
    return _Found(together[0], together[1] if len(together) > 1 else None, gradient)


def _groups(arrays: Sequence[Array], count: int) -> list[Arrays]:
    size = len(arrays) // count
    return [tuple(arrays[i * size : (i + 1) * size]) for i in range(count)]


def _gradients(x: Array, first: Array, hidden: Array, weights: _Weights, found: _Found) -> list[Array]:
    """Return the gradients of `(x, *carry, *weights)`: one product for each weight."""
    rows, width = first.shape
    before = mx.concatenate([first, hidden[:-rows]])
    of_x = found.gates
    if found.last is not None:
        of_x = mx.concatenate([found.gates[:, :-width], found.last], axis=-1)
    gradients = [of_x @ weights.x, *found.carry, of_x.T @ x, found.gates.T @ before]
    if weights.bias is not None:
        gradients.append(of_x.sum(axis=0))
    if weights.hidden_bias is not None:
        gradients.append(found.gates[:, -width:].sum(axis=0))
    return gradients
