"""A function of trees for all members at once, by `mx.vmap`: the step, the evaluation and the prediction of members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import TypeVar, cast

from ..core._mlx import mlx_nn, mx
from ..core._types import Array, Tree
from ..core.backend import PLAIN, device_backend, using
from ..tree._flattening import builder, list_arrays

__all__ = ["for_members", "vmapped"]

T = TypeVar("T")


def vmapped(fn: Callable[..., Tree], *trees: Tree) -> Tree:
    """Call a function for each index of the first axis of all arrays at once, and stack the arrays of its results.

    Constants in the trees and in the results stay as they are.

    >>> vmapped(lambda tree: {"y": tree["x"].sum(), "n": 3}, {"x": mx.ones((2, 4))})
    {'y': array([4, 4], dtype=float32), 'n': 3}
    """
    build = builder(trees)
    layouts: list[Callable[[list[mx.array]], Tree]] = []

    def one(arrays: list[mx.array]) -> list[mx.array]:
        result = fn(*build(arrays))
        layouts.append(builder(result))
        return list_arrays(result)

    outputs = mx.vmap(one)(list_arrays(trees))
    return layouts[-1](list(outputs))


def for_members(fn: Callable[..., T]) -> Callable[..., T]:
    """Return a function that runs `fn` with the backend of the device, changed for vmap. The results are the same.

    Operations without a rule for vmap are left out: they order computations, or compute parts of a batch at the same
    time. Dense layers merge the leading axes of their inputs, see `_on_rows`.
    """

    def call(*args: Tree) -> T:
        device = device_backend()
        linear = device.substitutes.get(mlx_nn.Linear, mlx_nn.Linear)
        backend = replace(
            device,
            substitutes=MappingProxyType({**device.substitutes, mlx_nn.Linear: _on_rows(linear)}),
            separate=PLAIN.separate,
            throttled=PLAIN.throttled,
            parallel=PLAIN.parallel,
        )
        return using(backend)(fn)(*args)

    return call


@cache
def _on_rows(linear: type[mlx_nn.Linear]) -> type[mlx_nn.Linear]:
    """Return a dense layer that computes on `(rows, in)`.

    Under vmap the product with an input of more axes is one product for each index of all axes but the last two.
    """

    class OnRows(linear):  # type: ignore[misc, valid-type]  # the class of the device
        def __call__(self, x: Array) -> Array:
            if x.ndim <= 2:
                return cast(Array, super().__call__(x))
            rows: Array = super().__call__(x.reshape(-1, x.shape[-1]))
            return rows.reshape(*x.shape[:-1], -1)

    return OnRows
