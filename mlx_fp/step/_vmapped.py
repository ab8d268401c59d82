"""A function of trees for all members at once, by `mx.vmap`: the step, the evaluation and the prediction of members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ..core._mlx import mx
from ..core._types import Tree
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
    """Return a function that runs `fn` with the backend of the device, without operations that have no rule for vmap.

    These order computations, or compute parts of a batch at the same time. The results are the same.
    """

    def call(*args: Tree) -> T:
        backend = replace(device_backend(), separate=PLAIN.separate, throttled=PLAIN.throttled, parallel=PLAIN.parallel)
        return using(backend)(fn)(*args)

    return call
