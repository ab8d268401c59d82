"""Cross entropy of a linear head, some rows at a time: the logits of all rows never exist at once.

Every function here takes `hidden (n, d)`, classes `(n,)` in range, and the arrays of the head. The loss of a row is
`log(sum(exp(s - m))) - (s[y] - m)` with the largest score `m`. Unlike `logsumexp(s) - s[y]`, this difference keeps its
digits for large scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core._exporting import custom_function
from ..core._mlx import mx
from ..core._types import Array
from ..core.backend import in_use

__all__ = ["Head", "HeadArrays", "row_losses", "total_loss"]


class HeadArrays(NamedTuple):
    """The arrays of a linear head. With `scales`, `weight` is quantised."""

    weight: Array
    """`(classes, d)`, or its packed integers."""
    scales: Array | None = None
    zeros: Array | None = None
    """The offsets of the quantised groups, which MLX names biases."""
    bias: Array | None = None
    """`(classes,)`."""


@dataclass(frozen=True, slots=True)
class Head:
    """The computation of a head and of its loss: scores `cap * tanh(scale * (hidden @ weight.T + bias) / cap)`."""

    chunk: int
    """The number of rows whose logits exist at once."""
    frozen: bool
    """Whether weight and bias get no gradient."""
    label_smoothing: float = 0.0
    soft_cap: float | None = None
    scale: float = 1.0
    packing: tuple[int | None, int | None, str] = (None, None, "affine")
    """The group size, the bits and the mode of a quantised weight."""

    def scores(self, rows: Array, head: HeadArrays) -> Array:
        """Compute the scores of some rows in float32: `(rows, d) -> (rows, classes)`."""
        product = rows @ head.weight.T if head.scales is None else self._quantized_product(rows, head, transpose=True)
        scores = product if head.bias is None else product + head.bias
        scores = scores.astype(mx.float32)
        scores = scores if self.scale == 1.0 else scores * self.scale
        return scores if self.soft_cap is None else self.soft_cap * mx.tanh(scores / self.soft_cap)

    def product_gradient(
        self, scores: Array, powers: Array, sums: Array, classes: Array, dtype: mx.Dtype
    ) -> tuple[Array, Array]:
        """Return the gradient of the product `hidden @ weight.T` of some rows as `(matrix, divisors)`.

        Each row of the matrix is to be divided by its divisor, which costs less in the products with the matrix. The
        matrix has the given dtype. `powers / sums` are the probabilities of the classes.
        """
        smoothing = self.label_smoothing
        target = mx.take_along_axis(powers, classes[:, None], axis=-1) - (1 - smoothing) * sums[:, None]
        gradient = mx.put_along_axis(powers, classes[:, None], target, axis=-1)
        if smoothing:
            gradient = gradient - (smoothing / scores.shape[-1]) * sums[:, None]
        if self.soft_cap is not None:
            gradient = gradient * (1 - (scores / self.soft_cap).square())
        if dtype == mx.float32:
            return gradient, sums
        return (gradient / sums[:, None]).astype(dtype), mx.ones_like(sums)  # sums are too large for float16

    def hidden_gradient(self, gradient: Array, head: HeadArrays) -> Array:
        """Return the gradient of some rows of `hidden`: `(rows, classes) -> (rows, d)`."""
        if head.scales is None:
            return gradient @ head.weight
        return self._quantized_product(gradient, head, transpose=False)

    def losses(self, scores: Array, classes: Array) -> tuple[Array, Array, Array]:
        """Return the loss of each row, and `powers, sums` for `product_gradient`."""
        largest = scores.max(axis=-1, keepdims=True)
        powers = mx.exp(scores - largest)
        sums = powers.sum(axis=-1)
        target = mx.take_along_axis(scores, classes[:, None], axis=-1)
        smoothing = self.label_smoothing
        value = mx.log(sums) - (1 - smoothing) * (target - largest).squeeze(-1)
        if smoothing:
            value = value - smoothing * (scores - largest).mean(axis=-1)
        return value, powers, sums

    def _quantized_product(self, x: Array, head: HeadArrays, *, transpose: bool) -> Array:
        group_size, bits, mode = self.packing
        scales: Any = head.scales
        return mx.quantized_matmul(
            x, head.weight, scales, head.zeros, transpose, group_size=group_size, bits=bits, mode=mode
        )


def row_losses(options: Head, hidden: Array, classes: Array, head: HeadArrays) -> Array:
    """Return the loss of each row, float32 `(n,)`. Its derivative computes the scores of each chunk again.

    >>> row_losses(Head(1, False), mx.zeros((2, 3)), mx.array([0, 1]), HeadArrays(mx.ones((4, 3)))).shape
    (2,)
    """

    def forward(hidden: Array, classes: Array, *arrays: Array) -> Array:
        return _losses(options, hidden, classes, rebuild(arrays))

    def backward(primals: tuple[Array, ...], factors: Array, _: Array) -> tuple[Array, ...]:
        hidden, classes, *arrays = primals
        _, gradients = _pass(options, hidden, classes, rebuild(arrays), factors)
        return gradients.hidden, mx.zeros_like(classes), *_of_arrays(gradients, arrays, rebuild(arrays))

    present, rebuild = _listed(head)
    return _with_derivative("linear_cross_entropy", forward, backward)(hidden, classes, *present)  # type: ignore[no-any-return]


def total_loss(options: Head, hidden: Array, classes: Array, factors: Array, head: HeadArrays) -> Array:
    """Return the sum of the losses of all rows, each times its factor, a scalar.

    The gradients of each chunk are computed together with its losses. Therefore the scores are computed once.

    >>> total_loss(Head(2, False), mx.zeros((2, 3)), mx.array([0, 1]), mx.ones(2), HeadArrays(mx.ones((4, 3)))).shape
    ()
    """

    def forward(hidden: Array, classes: Array, factors: Array, *arrays: Array) -> tuple[Array, ...]:
        values, gradients = _pass(options, hidden, classes, rebuild(arrays), factors)
        return (values * factors).sum(), values, gradients.hidden, *_of_arrays(gradients, arrays, rebuild(arrays))

    def backward(
        primals: tuple[Array, ...], cotangents: tuple[Array, ...], outputs: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        factor, (_, values, *gradients) = cotangents[0], outputs
        of_hidden, *of_arrays = (gradient * factor.astype(gradient.dtype) for gradient in gradients)
        return of_hidden, mx.zeros_like(primals[1]), values * factor, *of_arrays

    def plain(hidden: Array, classes: Array, factors: Array, *arrays: Array) -> tuple[Array, ...]:
        return ((_losses(options, hidden, classes, rebuild(arrays)) * factors).sum(),)

    present, rebuild = _listed(head)
    function = _with_derivative("linear_cross_entropy", forward, backward, plain)
    return function(hidden, classes, factors, *present)[0]  # type: ignore[no-any-return]  # MLX's have no types


def _losses(options: Head, hidden: Array, classes: Array, head: HeadArrays) -> Array:
    """Compute the loss of each row, chunk by chunk. MLX's derivative of a frozen head is zero, as the custom one."""
    if options.frozen:
        head = HeadArrays(**{name: mx.stop_gradient(a) for name, a in head._asdict().items() if a is not None})
    done: list[Array] = []
    for part in _chunks(hidden.shape[0], options.chunk):
        rows = _after(hidden[part], done[-1:], _chunk_bytes(options, head))
        value, *_ = options.losses(options.scores(rows, head), classes[part])
        done.append(value)
    return mx.concatenate(done)


class _Gradients(NamedTuple):
    """The gradients of a head; None for the weight and the bias of a frozen head."""

    hidden: Array
    weight: Array | None
    bias: Array | None


def _pass(options: Head, hidden: Array, classes: Array, head: HeadArrays, factors: Array) -> tuple[Array, _Gradients]:
    """Compute losses and gradients chunk by chunk; each chunk waits for the gradients of the chunk before it."""
    losses, of_hidden = [], []
    weight: Array | None = None
    bias: Array | None = None
    before: list[Array] = []
    for part in _chunks(hidden.shape[0], options.chunk):
        rows = _after(hidden[part], before, _chunk_bytes(options, head))
        scores = options.scores(rows, head)
        value, powers, sums = options.losses(scores, classes[part])
        dtype = mx.result_type(rows, head.weight) if head.scales is None else rows.dtype
        gradient, divisors = options.product_gradient(scores, powers, sums, classes[part], dtype)
        row_factors = factors[part] * options.scale / divisors
        if not options.frozen:
            weight = _plus_product(weight, gradient, rows * row_factors[:, None].astype(rows.dtype))
            bias = None if head.bias is None else _plus(bias, row_factors @ gradient.astype(mx.float32))
        losses.append(value)
        of_hidden.append((options.hidden_gradient(gradient, head) * row_factors[:, None]).astype(hidden.dtype))
        before = [losses[-1], of_hidden[-1], *(array for array in (weight, bias) if array is not None)]
    return mx.concatenate(losses), _Gradients(mx.concatenate(of_hidden), weight, bias)


def _plus(total: Array | None, part: Array) -> Array:
    """Add a part to a float32 total."""
    part = part.astype(mx.float32)
    return part if total is None else total + part


def _plus_product(total: Array | None, gradient: Array, rows: Array) -> Array:
    """Add the weight gradient of some rows to a float32 total; a float32 product writes the sum itself."""
    if total is None or gradient.dtype != mx.float32 or rows.dtype != mx.float32:
        return _plus(total, gradient.T @ rows)
    return mx.addmm(total, gradient.T, rows)


def _of_arrays(gradients: _Gradients, arrays: list[Array] | tuple[Array, ...], head: HeadArrays) -> tuple[Array, ...]:
    """Return a gradient for each array of the head in the dtype of the array; zeros where there is none."""
    found = {id(head.weight): gradients.weight, id(head.bias): gradients.bias}
    return tuple(
        mx.zeros_like(array) if (gradient := found.get(id(array))) is None else gradient.astype(array.dtype)
        for array in arrays
    )


def _listed(head: HeadArrays) -> tuple[list[Array], Callable[[Any], HeadArrays]]:
    """List the arrays of a head, and return the function that makes a head of such a list."""
    fields = [name for name, array in head._asdict().items() if array is not None]
    present = [getattr(head, name) for name in fields]
    return present, lambda arrays: HeadArrays(**dict(zip(fields, arrays, strict=True)))


def _chunks(rows: int, size: int) -> Iterator[slice]:
    """Yield the slices of the chunks; one empty slice for no rows."""
    return (slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), size))


def _chunk_bytes(options: Head, head: HeadArrays) -> int:
    return 4 * options.chunk * head.weight.shape[0]


def _after(array: Array, before: list[Array], chunk_bytes: int) -> Array:
    """Return the rows of the next chunk such that MLX computes it after the arrays of the chunk before it."""
    return mx.depends([array], in_use().throttled(before, chunk_bytes))[0] if before else array


def _with_derivative(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., tuple[Array, ...]],
    plain: Callable[..., Any] | None = None,
) -> Any:
    """Return a function with a first derivative; a second derivative and `vmap` raise NotImplementedError."""

    def first_derivative(primals: Any, cotangents: Any, outputs: Any) -> tuple[Array, ...]:
        return tuple(_refuse_derivative(name)(gradient) for gradient in backward(primals, cotangents, outputs))

    def refuse_vmap(*_: object) -> None:
        raise NotImplementedError(f"{name} takes rows, and mx.vmap does not apply to it: merge the axes of the rows")

    return custom_function(forward, first_derivative, refuse_vmap, plain)


def _refuse_derivative(name: str) -> Any:
    """Return the identity function whose derivative raises NotImplementedError."""

    def refuse(*_: object) -> None:
        raise NotImplementedError(
            f"{name} has a first derivative only; for a second derivative, use cross_entropy on the logits"
        )

    return custom_function(lambda array: array, refuse)
