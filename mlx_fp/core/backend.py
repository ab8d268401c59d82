"""The record of how a device computes a step, and the record that is in use.

The library reads the record while it traces or runs a step. `PLAIN` is MLX without changes. The folder `cpu/` provides
the record for Linux CPUs. Nothing else in the library knows about CPUs. For example, the optimisers group small arrays
only through `Backend.grouped`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, TypeVar

from ._exporting import is_exporting
from ._fork import check_process
from ._mlx import cpu, on_cpu, utils
from ._types import Array, Params, State, Tree

__all__ = ["GPU", "PLAIN", "Backend", "Form", "Parallel", "Update", "device_backend", "in_use", "on_device", "using"]

T = TypeVar("T")

Update = Callable[[Tree, State, Params], tuple[Params, State]]
"""`update(grads, state, params) -> (params, state)`: the update of an optimiser."""

Ungroup: TypeAlias = Callable[[Tree], Tree]
"""`ungroup(result) -> tree`: give a result of grouped leaves the structure of the original tree."""

Parallel = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Call several functions, and return their results in the same order."""


class Form(Protocol):
    """The layout of the arrays of parameters and optimiser state between two steps."""

    def join(self, params: Params, opt_state: State) -> list[Array] | None:
        """Return the arrays in this layout, or None for trees with another structure or other shapes."""

    def trees(self, arrays: Sequence[Array]) -> tuple[Params, State]:
        """Return the original trees, as lazy arrays."""


def _call_update(update: Update, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
    return update(grads, state, params)


def _ungrouped(*trees: Tree) -> tuple[tuple[Tree, ...], Ungroup]:
    return trees, lambda result: result


@dataclass(frozen=True, slots=True)
class Backend:
    """Hold the functions by which a device computes a step. Each default is MLX without changes.

    >>> PLAIN.elementwise(lambda a, b: a + b, {"w": 1}, {"w": 2}), PLAIN.waits(1 << 40)
    ({'w': 3}, False)
    """

    name: str = "plain"
    substitutes: Mapping[Any, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Replacements for module classes and functions of arrays: `{original of MLX: substitute}`."""
    grouped: Callable[..., tuple[tuple[Tree, ...], Ungroup]] = _ungrouped
    """`grouped(tree, *rest) -> (trees, ungroup)`: put the same elements into fewer leaves. This is for elementwise
    functions and sums. `ungroup` gives a result with such leaves the structure of `tree`. A leaf of `tree` may
    correspond to a dict in the other trees and in the result. The arrays of the dict have the shape of the leaf."""
    update: Callable[[Update, Tree, State, Params], tuple[Params, State]] = _call_update
    """`update(optimizer_update, grads, state, params)`: compute the update of an optimiser."""
    separate: Callable[[Tree, int], Tree] = lambda tree, parameter_bytes: tree
    """`separate(tree, parameter_bytes)`: return the tree of results such that MLX does not fuse their kernels. Here and
    below `parameter_bytes` are the bytes of the parameters that train: the update computes nothing of the others."""
    form: Callable[[Params, State, Params, int], Form | None] = lambda params, opt_state, trained, parameter_bytes: None
    """`form(params, opt_state, trained, parameter_bytes)`: return the layout of the state between two steps, or None to
    keep trees. `trained` holds the parameters that train, as the same array objects as in `params`."""
    throttled: Callable[[list[Array], int], list[Array]] = lambda arrays, nbytes: arrays
    """`throttled(arrays, nbytes)`: return the same arrays; an operation that reads them is queued after the operations
    before them have run. Operations in a queue hold memory. `nbytes` is the size of the arrays that are read next."""
    waits: Callable[[int], bool] = lambda parameter_bytes: False
    """`waits(parameter_bytes)`: whether a step evaluates its gradients before it updates the parameters."""
    sums_apart: bool = False
    """Whether a step in several processes sums their messages between two compiled functions, and waits for the sum.
    Then no queued operation of the device waits for another process."""
    parallel: Parallel | None = None
    """Compute the parts of a batch in parallel. With None no batch is split, whatever the option `streams` says."""
    unrolls: Callable[[int], bool] = lambda elements: True
    """`unrolls(elements)`: whether several steps in one compiled call are faster for a model with so many elements."""
    tuned: Callable[[int], AbstractContextManager[None]] = lambda parameter_bytes: nullcontext()
    """A context for a run. It may set limits of the process, and it restores them at the end."""
    thread: Callable[[], None] = lambda: None
    """The library calls this at the start of each thread that it creates."""
    kernels: Callable[[], int] = lambda: 0
    """`kernels()`: the number of kernels that were built so far, where the device knows it."""
    facts: Callable[[], Mapping[str, str]] = dict
    """The names of the libraries that compute, for the record of a run. For example, `{"blas": "openblas"}`."""

    def elementwise(self, fn: Callable[..., Tree], tree: Tree, *rest: Tree) -> Tree:
        """Map an elementwise function over the leaves of trees: element i of its result depends on element i only."""
        trees, ungroup = self.grouped(tree, *rest)
        return ungroup(utils.tree_map(fn, *trees))


PLAIN = Backend()
"""MLX without changes."""

GPU = Backend("gpu", sums_apart=True)
"""MLX without changes, on a GPU. `sums_apart` is for Metal: the system ends the work of a GPU that waits too long."""

_in_use: ContextVar[Backend] = ContextVar("backend", default=PLAIN)


def in_use() -> Backend:
    """Return the backend for which the current function is traced. Outside `using` it is `PLAIN`.

    >>> in_use().name
    'plain'
    """
    return _in_use.get()


def using(backend: Backend) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator that runs a function with this backend in use.

    Each call runs in a copied context, so an exception or Ctrl-C cannot leave the backend in use. A nested call with
    the same backend shares the context of the outer call.

    >>> using(Backend("fast"))(lambda: in_use().name)()
    'fast'
    """

    def decorated(fn: Callable[..., T]) -> Callable[..., T]:
        def set_and_call(*args: object) -> T:
            _in_use.set(backend)
            return fn(*args)

        def call(*args: object) -> T:
            return fn(*args) if in_use() is backend else copy_context().run(set_and_call, *args)

        return call

    return decorated


def on_device(fn: Callable[..., T]) -> Callable[..., T]:
    """Return a function that runs `fn` with the backend of the default device at the time of the call.

    >>> on_device(lambda x: x + 1)(2)
    3
    """
    return lambda *args: using(device_backend())(fn)(*args)


def device_backend() -> Backend:
    """Return the backend of the default device of MLX now; for a function that is exported, `PLAIN`."""
    check_process()
    if is_exporting():
        return PLAIN
    if not on_cpu():
        return GPU
    if cpu is None:
        return PLAIN
    backend: Backend = cpu.backend()
    return backend
