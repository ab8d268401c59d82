"""MLX's recurrent layers in training, with a derivative of the whole sequence.

MLX's own derivative has a weight gradient, a sum and a padded slice for each step. Here the steps run backward with one
product each, and the gradient of a weight is one product over the gate gradients of all steps. The numbers are those of
MLX to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

from ..core._exporting import custom_function, is_exporting
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
        cell = next((cell for activation, cell in _CELLS if activation is self.nonlinearity), None)
        weights = _Weights(self.Wxh, self.Whh, self.bias)
        if cell is None or not _is_plain(x, weights, (hidden,)):
            return super().__call__(x, hidden)  # type: ignore[no-any-return,no-untyped-call]  # MLX's have no types
        return _sequence(cell, x, weights, (hidden,))[0]


class _LSTM(mlx_nn.LSTM):
    def __call__(self, x: Array, hidden: Array | None = None, cell: Array | None = None) -> tuple[Array, Array]:
        weights, states = _Weights(self.Wx, self.Wh, self.bias), (hidden, cell)
        if not _is_plain(x, weights, states):
            return super().__call__(x, hidden, cell)  # type: ignore[no-any-return,no-untyped-call]  # MLX's have no types
        all_hidden, all_cell = _sequence(LSTM_CELL, x, weights, states)
        return all_hidden, all_cell


class _GRU(mlx_nn.GRU):
    def __call__(self, x: Array, hidden: Array | None = None) -> Array:
        weights = _Weights(self.Wx, self.Wh, self.b, self.bhn)
        if not _is_plain(x, weights, (hidden,)):
            return super().__call__(x, hidden)  # type: ignore[no-any-return,no-untyped-call]  # MLX's have no types
        return _sequence(GRU_CELL, x, weights, (hidden,))[0]


RECURRENT: Mapping[type, type] = MappingProxyType({mlx_nn.RNN: _RNN, mlx_nn.LSTM: _LSTM, mlx_nn.GRU: _GRU})
"""The classes of mlx.nn that a layer replaces in training."""

_CELLS = ((mlx_nn.tanh, TANH_CELL), (mx.tanh, TANH_CELL), (mlx_nn.relu, RELU_CELL))
"""The cells of an RNN by its activation. With another activation MLX computes the derivative."""


def _is_plain(x: Array, weights: _Weights, states: Sequence[Array | None]) -> bool:
    """Tell whether all arrays have one dtype, and the shapes that the documentation of MLX has.

    A function for a file is computed by MLX's own layers, because MLX cannot write a custom function to a file.
    """
    if is_exporting():
        return False
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
    carry = [mx.zeros((rows, hidden), x.dtype) if s is None else s.reshape(rows, hidden) for s in states]
    steps = _Steps(cell, length, len(carry), tuple(array is not None for array in weights))
    outputs = steps(by_time, *carry, *(array for array in weights if array is not None))
    return [mx.contiguous(mx.moveaxis(y.reshape(length, *lead, hidden), 0, -2)) for y in outputs]


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of a cell as a function `(x, *carry, *weights) -> carries`, on rows `(length * n, ·)`.

    The rows of one step follow those of the step before it. `carries` has an array for each part of the carry.
    """

    cell: Cell
    length: int
    carried: int
    """The number of arrays in a carry."""
    present: tuple[bool, ...]
    """Which of the `_Weights` there are."""

    def __call__(self, *arrays: Array) -> list[Array]:
        carries: list[Array] = custom_function(self.forward, self.backward)(*arrays)[: self.carried]
        return carries

    def forward(self, *arrays: Array) -> list[Array]:
        """Return `[*carries, *saved]`, each as rows of all steps; the derivative reads `saved`."""
        x, carry, weights = self._divided(arrays)
        weight = weights.hidden.T
        gates = x @ weights.x.T if weights.bias is None else mx.addmm(weights.bias, x, weights.x.T)
        each = []
        for gate in mx.split(gates, self.length):
            carry, saved = self.cell.step(gate, carry, weight, weights.hidden_bias)
            each.append((*carry, *saved))
        return _joined(each)

    def backward(self, primals: Sequence[Array], cotangents: Sequence[Array], outputs: Sequence[Array]) -> Any:
        """Return the gradients of the arguments. MLX differentiates the plain steps for a second derivative."""
        count, inputs = len(primals), (*primals, *cotangents[: self.carried])
        found = self._gradients(inputs[:count], inputs[count:], tuple(outputs))
        return [self._differentiable(i, count, mx.stop_gradient(each), inputs) for i, each in enumerate(found)]

    def _differentiable(self, index: int, count: int, gradient: Array, inputs: Arrays) -> Array:
        """Return a gradient, computed from `inputs`, whose derivative MLX computes through the plain steps."""

        def plain(*arrays: Array) -> Array:
            return mx.vjp(self._plain, list(arrays[:count]), list(arrays[count:]))[1][index]

        def derivative(arrays: Sequence[Array], cotangent: Array, _: object) -> list[Array]:
            return [mx.zeros_like(gradient), *mx.vjp(plain, list(arrays[1:]), [cotangent])[1]]

        identical: Array = custom_function(lambda gradient, *_: gradient, derivative)(gradient, *inputs)
        return identical

    def _plain(self, *arrays: Array) -> list[Array]:
        return self.forward(*arrays)[: self.carried]

    def _gradients(self, primals: Arrays, cotangents: Arrays, outputs: Arrays) -> list[Array]:
        """Run the steps backward; return the gradients of `primals`, with one product for each weight."""
        x, first, weights = self._divided(primals)
        rows = len(first[0])
        before = tuple(mx.concatenate([a, rest[:-rows]]) for a, rest in zip(first, outputs, strict=False))
        carries, saved = outputs[: self.carried], outputs[self.carried :]
        factors = self._by_step(self.cell.factors(saved, carries, before, weights.hidden_bias))
        received = self._by_step(cotangents)
        each_gates: list[Arrays] = []
        gradient = tuple(mx.zeros_like(each) for each in first)
        for t in reversed(range(self.length)):
            gradient = tuple(a + b for a, b in zip(gradient, received[t], strict=True))
            gates, gradient = self.cell.back(gradient, factors[t], weights.hidden)
            each_gates.append(gates)
        return _of_arguments(x, before[0], weights, _joined(each_gates[::-1]), gradient)

    def _by_step(self, arrays: Arrays) -> list[Arrays]:
        """Split the rows of all steps into those of each step."""
        return list(zip(*(mx.split(each, self.length) for each in arrays), strict=True))

    def _divided(self, arrays: Sequence[Array]) -> tuple[Array, Arrays, _Weights]:
        """Divide the arguments into the input, the first carry, and the weights."""
        carry, rest = arrays[1 : 1 + self.carried], iter(arrays[1 + self.carried :])
        given: list[Any] = [next(rest) if there else None for there in self.present]
        return arrays[0], tuple(carry), _Weights(*given)


def _of_arguments(x: Array, before: Array, weights: _Weights, gates: Sequence[Array], carry: Arrays) -> list[Array]:
    """Return the gradients of `(x, *carry, *weights)` from those of the gates of all steps, see `Cell.back`.

    `before` has the hidden state before each step, and `carry` the gradient of the first carry.
    """
    of_hidden, width = gates[0], before.shape[-1]
    of_x = of_hidden if len(gates) == 1 else mx.concatenate([of_hidden[:, :-width], gates[1]], axis=-1)
    gradients = [of_x @ weights.x, *carry, of_x.T @ x, of_hidden.T @ before]
    if weights.bias is not None:
        gradients.append(of_x.sum(axis=0))
    if weights.hidden_bias is not None:
        gradients.append(of_hidden[:, -width:].sum(axis=0))
    return gradients


def _joined(each: Sequence[Arrays]) -> list[Array]:
    """Concatenate the rows of all steps."""
    return [mx.concatenate(list(parts)) for parts in zip(*each, strict=True)]
