"""mlx.nn modules as layers, and layers as mlx.nn modules.

A lifted layer keeps a module for its structure only. Each call makes a structural copy of it, puts the arrays of the
parameter tree in, sets the mode of every nested module, and reads the buffers back; the module is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..compile import rng
from ..core._errors import unknown
from ..core._mlx import mlx_nn, mx, utils
from ..core._signature import arguments, check_types, name_of, signature_of
from ..core._types import Params
from ..core.backend import in_use
from ..tree._paths import copy_arrays, flat
from ..tree._select import Select, select, under_prefix
from ._bounds import guarded_classes
from ._layer import Apply, Layer, Trainable, check_given, layer
from ._module import (
    NO_SUBSTITUTES,
    Module,
    fill,
    hidden,
    parameters,
    read,
    refuse_functions_of_modules,
    refuse_tied_arrays,
    structure,
)

__all__ = ["as_layer", "fn", "lift", "lower", "method", "split"]


def lift(target: Any, *args: Any, **kwargs: Any) -> Layer:
    """Make a Layer of an mlx.nn.Module class, a module, a Layer, or a function that returns one of them.

    A class or function is called with the arguments; unknown ones are a TypeError with candidates, and so are
    arguments to a module or Layer. A module's own arrays are what the layer's `init` gives.

    >>> dense = lift(mlx_nn.Linear, 4, 2, bias=False)
    >>> dense.apply(dense.init(0), mx.ones((3, 4)))[0].shape
    (3, 2)
    """
    if isinstance(target, (Layer, Module)):
        if args or kwargs:
            raise TypeError(f"{name_of(target)} is made already and takes no arguments; lift its class")
        return target if isinstance(target, Layer) else split(target)[0]
    if not callable(target):
        raise TypeError(f"lift takes a module class, a module, a Layer or a function; got {target!r}")
    given = arguments(target, args, kwargs)
    if getattr(target, "__module__", "").startswith("mlx.nn."):
        check_types(target, given)
    made = rng.run(0, lambda: target(*args, **kwargs))[0]
    if isinstance(made, Layer):
        return made
    if not isinstance(made, Module):
        raise TypeError(f"{name_of(target)} made {type(made).__name__}, neither a Layer nor an mlx.nn.Module")
    refuse_functions_of_modules(made)
    refuse_tied_arrays(made)
    return _lifted(made, lambda: parameters(target(*args, **kwargs)))


def split(module: mlx_nn.Module) -> tuple[Layer, Params]:
    """Take a module apart into `(layer, params)`: its computation, and its arrays as they are.

    What the module has frozen is frozen in the layer. The module is left alone. The layer's `init` gives these arrays
    again, so the layer keeps them: for a model that is trained whole and must not be held twice, lift its class.

    >>> model, params = split(mlx_nn.Linear(4, 2))
    >>> model.apply(params, mx.ones((3, 4)))[0].shape
    (3, 2)
    """
    if not isinstance(module, Module):
        raise TypeError(f"split takes an mlx.nn.Module; got {type(module).__name__}")
    refuse_functions_of_modules(module)
    refuse_tied_arrays(module)
    params = parameters(module)
    return _lifted(module, lambda: copy_arrays(params)), copy_arrays(params)


def lower(target: Layer, params: Params) -> mlx_nn.Module:
    """Make an mlx.nn.Module of a layer: of the class that was lifted, or one that runs the composition.

    Parameters have the same paths; what does not train is frozen in the module. It starts in training mode, as
    modules do, and draws from MLX's global stream. ValueError for parameters that are not the layer's.

    >>> lower(lift(mlx_nn.Linear, 4, 2), {"weight": mx.ones((2, 4)), "bias": mx.zeros((2,))})(mx.ones((1, 4))).tolist()
    [[4.0, 4.0]]
    """
    if not isinstance(target, Layer):
        raise TypeError(f"lower takes a Layer and its parameters; the first is {type(target).__name__}")
    check_given(target, params)
    run = target.apply.run
    if isinstance(run, _Run) and run.method == "__call__":
        return _freeze_rest(run.bound(params, train=True), params, target)
    return _freeze_rest(_Lowered(target, params), params, target)


def method(target: Layer, name: str) -> Layer:
    """Run another method of a lifted module, or a module in it, on the same parameters: a decoder's part, say.

    AttributeError for a name that is no method, and for a layer that is not of one module.

    >>> class Twice(mlx_nn.Linear):
    ...     def encode(self, x):
    ...         return self(x) + self(x)
    >>> twice = lift(Twice, 3, 2)
    >>> method(twice, "encode").apply(twice.init(0), mx.ones((1, 3)))[0].shape
    (1, 2)
    """
    run = target.apply.run
    if not isinstance(run, _Run):
        raise AttributeError(f"{target.name} has no {name!r}: methods are those of a lifted module")
    if not callable(getattr(run.still, name, None)):
        own = [key for key in (*vars(type(run.still)), *run.still) if not key.startswith("_")]
        raise AttributeError(f"{target.name}: {unknown('method', name, own)}")
    return replace(target, apply=Apply(replace(run, method=name)), name=f"{target.name}.{name}")


def fn(function: Callable[..., Any], name: str | None = None) -> Layer:
    """Make a layer without parameters of any callable; one that names `train` is told the mode.

    >>> fn(lambda x, by=2: x * by).apply({}, mx.array(3), by=4)[0].item()
    12
    """
    if not callable(function):
        raise TypeError(f"fn takes a callable; got {function!r}")
    wants_mode = any(p.name == "train" for p in signature_of(function) or ())

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        return function(*xs, **({**kw, "train": train} if wants_mode else kw)), params

    return layer(dict, run, name=name or name_of(function))


def as_layer(entry: Any, where: str) -> Layer:
    """Make a Layer of what a composition was given: a Layer, module class, module or callable; else a TypeError."""
    if isinstance(entry, Layer):
        return entry
    entry = getattr(entry, "__wrapped__", entry) if _is_module_class(getattr(entry, "__wrapped__", None)) else entry
    if isinstance(entry, Module) or _is_module_class(entry):
        return lift(entry)
    if callable(entry) and not isinstance(entry, type):
        return fn(entry)
    raise TypeError(
        f"{where} must be a Layer, an mlx.nn.Module or its class, or a callable; got {type(entry).__name__}: {entry!r}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """The computation of a lifted module.

    `still` is its structure, `paths` are those of its parameters, `guards` the classes that replace others in it.
    """

    still: mlx_nn.Module
    method: str = "__call__"
    paths: frozenset[str] = field(init=False)
    guards: Mapping[type, type] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", frozenset(flat(parameters(self.still))))
        object.__setattr__(self, "guards", guarded_classes(self.still))

    def __call__(self, params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        module = self.bound(params, train, {**self.guards, **(in_use().substitutes if train else NO_SUBSTITUTES)})
        return getattr(module, self.method)(*xs, **kw), read(module, params)

    def bound(self, params: Params, train: bool, classes: Mapping[type, type] = NO_SUBSTITUTES) -> mlx_nn.Module:
        """Return a module of this structure that holds `params`, some classes replaced by others."""
        self._check(params)
        module: mlx_nn.Module = structure(self.still, classes)
        fill(module, params)
        module.train(train)
        return module

    def _check(self, params: Params) -> None:
        """Raise KeyError unless the parameters are the module's own: a missing one would be the structure's."""
        came = flat(params)
        odd = [path for path in (*self.paths, *came) if (path in came) != (path in self.paths)]
        if odd:
            where, known = ("parameters", came) if odd[0] in self.paths else ("module", self.paths)
            raise KeyError(f"{type(self.still).__name__}: {unknown(f'path of the {where},', odd[0], sorted(known))}")


class _Lowered(mlx_nn.Module):
    """A composition as a module: the layer computes, the module holds the arrays."""

    def __init__(self, target: Layer, params: Params) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._layer = target
        for name, child in copy_arrays(params).items():
            self[name] = _node(child)

    def __call__(self, *xs: Any, **kw: Any) -> Any:
        params = parameters(self)
        y, params = rng.ambient(lambda: self._layer.apply(params, *xs, train=self.training, **kw))
        self.update(params)
        return y


def _node(tree: Params) -> Any:
    """Turn nested dicts into modules, so that each can freeze its own leaves."""
    if isinstance(tree, dict):
        module = Module()
        for name, child in tree.items():
            module[name] = _node(child)
        return module
    return [_node(child) for child in tree] if isinstance(tree, (list, tuple)) else tree


def _freeze_rest(module: mlx_nn.Module, params: Params, target: Layer) -> mlx_nn.Module:
    trains = target.trainable(params)
    leaves = flat(params)

    def freeze(path: str, node: mlx_nn.Module) -> None:
        prefix = f"{path}." if path else ""
        own = [key for key, value in node.items() if isinstance(value, mx.array) and prefix + key in leaves]
        if own:  # a module that stands in several places has its parameters in one
            node._no_grad = {key for key in own if not trains(prefix + key, leaves[prefix + key])}

    module.apply_to_modules(freeze)
    return module


def _lifted(module: mlx_nn.Module, make: Callable[[], Params]) -> Layer:
    """Make a Layer of the structure of a module, which keeps none of its parameters; `make` makes them."""
    still, numbers = structure(module), parameters(module)
    blanks = utils.tree_map(lambda leaf: mx.zeros((), leaf.dtype), numbers)
    fill(still, blanks)
    mx.eval(parameters(still), hidden(still))  # another thread may pickle the layer
    made = layer(make, _Run(still), trainable=_trainable(still), name=type(still).__name__)
    return replace(made, wide=_wide_leaves(still))


def _trainable(module: mlx_nn.Module) -> Trainable:
    """Tell buffers, which a module freezes again after `unfreeze`, from what it has frozen besides."""
    trains = set(flat(module.trainable_parameters()))
    free = structure(module)
    free.apply_to_modules(lambda _, m: m.unfreeze(recurse=False))  # asked one by one, each keeps its buffers frozen
    floats = {p for p, leaf in flat(parameters(module)).items() if mx.issubdtype(leaf.dtype, mx.floating)}
    may = (set(flat(free.trainable_parameters())) | trains) & floats
    rules = ((select(may - trains), False),) if may - trains else ()
    chosen = select(lambda path: path in may)
    return Trainable(lambda params: chosen, rules)


def _wide_leaves(module: mlx_nn.Module) -> Select:
    """Choose what the layers that were lowered into a module keep wide."""
    lowered = [(path, m._layer.wide) for path, m in module.named_modules() if isinstance(m, _Lowered)]
    return select([under_prefix(path, wide) if path else wide for path, wide in lowered])


def _is_module_class(entry: Any) -> bool:
    return isinstance(entry, type) and issubclass(entry, Module)
