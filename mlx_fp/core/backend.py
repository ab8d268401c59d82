"""How a device wants a step computed: a frozen record of answers, and the one that is in use.

The library asks these questions while it traces or takes a step. `PLAIN` answers all of them as MLX computes by
itself. The folder `cpu/` answers them for Linux CPUs, and nothing else in the library knows of CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from ._fork import check_process
from ._mlx import cpu, on_cpu, utils
from ._types import Array, Params, State, Tree

__all__ = ["PLAIN", "Backend", "Form", "Parallel", "Update", "device_backend", "in_use", "on_device", "using"]

T = TypeVar("T")

Update = Callable[[Tree, State, Params], tuple[Params, State]]
"""`update(grads, state, params) -> (params, state)`: the update of an optimiser."""

Parallel = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Call each of several functions and return their results, in order."""


class Form(Protocol):
    """How the arrays of parameters and optimiser state lie between two steps."""

    def join(self, params: Params, opt_state: State) -> list[Array] | None:
        """Return the arrays in this form, or None for trees of another structure or other shapes."""

    def trees(self, arrays: Sequence[Array]) -> tuple[Params, State]:
        """Return the trees that were joined, lazily."""


def _call_update(update: Update, grads: Tree, state: State, params: Params) -> tuple[Params, State]:
    return update(grads, state, params)


def _ungrouped(*trees: Tree) -> tuple[tuple[Tree, ...], Callable[[Any], Tree]]:
    return trees, lambda result: result


@dataclass(frozen=True, slots=True)
class Backend:
    """How a device wants a step computed. Each default is MLX as it is.

    >>> PLAIN.elementwise(lambda a, b: a + b, {"w": 1}, {"w": 2}), PLAIN.waits(1 << 40)
    ({'w': 3}, False)
    """

    name: str = "plain"
    substitutes: Mapping[Any, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Module classes, and functions of arrays, that compute in the place of others: `{mlx's own: substitute}`."""
    grouped: Callable[..., tuple[tuple[Tree, ...], Callable[[Any], Tree]]] = _ungrouped
    """`grouped(tree, *rest) -> (trees, ungroup)`: trees of the same elements in fewer leaves, for functions of elements
    and sums, and how to give a result of such leaves the structure of `tree`. A leaf of `tree` may stand for a dict of
    arrays of its shape in the other trees and in the result."""
    update: Callable[[Update, Tree, State, Params], tuple[Params, State]] = _call_update
    """`update(optimizer_update, grads, state, params)`: compute the update of an optimiser."""
    separate: Callable[[Tree, int], Tree] = lambda tree, parameter_bytes: tree
    """Return a tree of results whose kernels must not be fused, for a model of so many bytes of parameters."""
    form: Callable[[Params, State, Params, int], Form | None] = lambda params, opt_state, kept, parameter_bytes: None
    """`form(params, opt_state, kept, parameter_bytes)`: the form of the state from step to step, None for trees.
    `kept` are the parameters that train, the same array objects as in `params`."""
    waits: Callable[[int], bool] = lambda parameter_bytes: False
    """Whether a step on so many bytes of parameters evaluates its gradients before it updates."""
    parallel: Parallel | None = None
    """Compute the parts of a batch side by side. None: a batch stays whole, whatever number of streams is asked for."""
    unrolls: Callable[[int], bool] = lambda elements: True
    """Whether several steps in one compiled call are faster for a model of so many elements."""
    tuned: Callable[..., AbstractContextManager[None]] = lambda parameter_bytes=None, streams=1: nullcontext()
    """A context for the time of a run, which may set limits of the process and puts them back."""
    thread: Callable[[], None] = lambda: None
    """Called at the start of each thread that the library makes for itself."""
    facts: Callable[[], Mapping[str, str]] = dict
    """Which libraries compute, by name, for the record of a run."""

    def elementwise(self, fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
        """Map a function over the leaves of trees; an element of its result depends on that element alone."""
        trees, ungroup = self.grouped(tree, *rest)
        return ungroup(utils.tree_map(fn, *trees))


PLAIN = Backend()
"""MLX as it is."""

_in_use: ContextVar[Backend] = ContextVar("backend", default=PLAIN)


def in_use() -> Backend:
    """Return the backend that the function at hand is traced for; `PLAIN` outside `using`.

    >>> in_use().name
    'plain'
    """
    return _in_use.get()


def using(backend: Backend) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator: the function runs with a backend in use.

    Each call has a context of its own, so that an exception or an interrupt leaves nothing behind. A call within a
    call of the same backend shares its context.

    >>> using(Backend("fast"))(lambda: in_use().name)()
    'fast'
    """

    def decorated(fn: Callable[..., T]) -> Callable[..., T]:
        def run(*args: Any) -> T:
            _in_use.set(backend)
            return fn(*args)

        def entered(*args: Any) -> T:
            return fn(*args) if in_use() is backend else copy_context().run(run, *args)

        return entered

    return decorated


def on_device(fn: Callable[..., T]) -> Callable[..., T]:
    """Return a function that runs `fn` with the backend of the device on which MLX computes at the time of the call.

    >>> on_device(lambda x: x + 1)(2)
    3
    """
    return lambda *args: using(device_backend())(fn)(*args)


def device_backend() -> Backend:
    """Return the backend of the device on which MLX computes by default at this moment."""
    check_process()
    if cpu is None or not on_cpu():
        return PLAIN
    backend: Backend = cpu.backend()
    return backend
