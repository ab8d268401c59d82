"""Observe the calls of the parts of a model, by path: their parameters, inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import Any, NamedTuple, TypeAlias

from ..core._mlx import mlx_nn
from ..core._types import Params, Tree
from ..tree._select import everything
from ._call import Inputs, Keywords, Result
from ._layer import Layer
from ._module import clone

__all__ = ["Call", "Watch", "observed_calls", "run_observed", "watch"]


class Call(NamedTuple):
    """A call of a part of a model."""

    path: str
    """The path of the part; empty for the model itself."""
    name: str
    params: Params
    inputs: Tree
    outputs: Tree
    wide: bool
    """Whether the part is `nn.wide`, or is inside such a part."""


Passing: TypeAlias = Callable[[int, str, Any], Any]
"""`passing(number, kind, tree)`: return the tree that goes on, for the "inputs" or "outputs" of a call."""


class Watch:
    """The calls that were observed so far, in the order in which they began, and the place of the current one.

    `passing` gets the inputs and outputs of each call, with the number of the call, and returns those that go on.
    """

    def __init__(self, passing: Passing = lambda number, kind, tree: tree) -> None:
        self._calls: list[Call | None] = []
        self._passing = passing
        self._path, self._wide = "", False

    @property
    def calls(self) -> list[Call]:
        """The calls that have returned."""
        return [call for call in self._calls if call is not None]

    def run(
        self, path: str, name: str, params: Params, inputs: Any, wide: bool, fn: Callable[[Inputs, Keywords], Result]
    ) -> Result:
        """Observe one call of the part at a path. `fn` runs the part."""
        outer, index = (self._path, self._wide), len(self._calls)
        self._path = path
        self._wide = self._wide or wide
        self._calls.append(None)
        try:
            outputs, after = fn(*self._passing(index, "inputs", inputs))
            self._calls[index] = Call(self._path, name, params, inputs, outputs, self._wide)
            return self._passing(index, "outputs", outputs), after
        finally:
            self._path, self._wide = outer

    def below(self, path: str) -> str:
        """Return a path below the part that runs now."""
        return ".".join(filter(None, (self._path, path)))

    def bound(self, template: mlx_nn.Module, classes: Mapping[type, type]) -> mlx_nn.Module:
        """Return a clone of a module in which the modules inside report their calls; `classes` as for `clone`."""
        kinds = {type(module) for module in template.modules()}
        module = clone(template, {kind: self._watched(classes.get(kind, kind)) for kind in kinds})
        for path, inner in reversed(module.named_modules()):
            object.__setattr__(inner, "_watched_path", self.below(path) if path else "")
        return module

    def _watched(self, kind: type[mlx_nn.Module]) -> type[mlx_nn.Module]:
        """Return a subclass of a class of modules whose calls are observed."""

        def call(module: Any, *xs: object, **kw: object) -> object:
            def forward(xs: Inputs, kw: Keywords) -> Result:
                return kind.__call__(module, *xs, **kw), {}

            if not module._watched_path:  # the outermost module, whose call is observed already
                return forward(xs, kw)[0]
            return self.run(module._watched_path, kind.__name__, module.parameters(), (xs, kw), False, forward)[0]

        return type(kind.__name__, (kind,), {"__call__": call})


_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


def watch() -> Watch | None:
    """Return the watch that observes the current call, if there is one."""
    return _watching.get()


def observed_calls(fn: Callable[[], object], passing: Passing | None = None) -> list[Call]:
    """Call a function, and return the calls of parts of models within; `passing` as for `Watch`.

    >>> from mlx_fp import nn
    >>> calls = observed_calls(lambda: run_observed(nn.fn(abs), "body.0", {}, (-3,), {}, False))
    >>> [(call.path, call.name, call.inputs, call.outputs) for call in calls]
    [('body.0', 'abs', ((-3,), {}), 3)]
    """
    observer = Watch() if passing is None else Watch(passing)

    def run() -> None:
        _watching.set(observer)
        fn()

    copy_context().run(run)
    return observer.calls


def run_observed(part: Layer, path: str, params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
    """Run a layer, observed where something observes."""
    observer = _watching.get()
    if observer is None:
        return part.apply.run(params, xs, kw, train)
    is_wide = part.wide is everything

    def forward(xs: Inputs, kw: Keywords) -> Result:
        return part.apply.run(params, xs, kw, train)

    return observer.run(observer.below(path), part.name, params, (xs, kw), is_wide, forward)
