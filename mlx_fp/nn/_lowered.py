"""A composition of layers as an mlx.nn module, whose lifted parts are the modules that were lifted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..compile import rng
from ..core._mlx import mlx_nn, mx
from ..core._types import Params
from ..tree._paths import copy_arrays, flat
from ._beside import Beside
from ._call import Output
from ._given import check_given
from ._layer import Apply, Layer, Trainable
from ._module import Module, clone, parameters
from ._module_call import ModuleCall, trainable_of
from ._rebuilt import without_init
from ._tree_path import at_path, joined

__all__ = ["Lowered", "lower", "lowered"]


def lower(target: Layer, params: Params) -> mlx_nn.Module:
    """Make an mlx.nn.Module from a layer and its parameters.

    The module of a lifted layer has the class that was lifted. The module of a composition runs the composition. The
    parameters have the same paths; those that do not train are frozen in the module. The module starts in training
    mode, as every mlx.nn module, and draws random numbers from MLX's global stream.

    Args:
        target: The layer.
        params: Its parameters.

    Returns:
        A module that holds the parameters.

    Raises:
        TypeError: The first argument is not a Layer.
        ValueError: The parameters are not those of the layer.

    >>> from mlx_fp import nn
    >>> lower(nn.linear(4, 2), {"weight": mx.ones((2, 4)), "bias": mx.zeros((2,))})(mx.ones((1, 4))).tolist()
    [[4.0, 4.0]]
    """
    if not isinstance(target, Layer):
        raise TypeError(f"lower takes a Layer and its parameters; the first is {type(target).__name__}")
    check_given(target, params)
    return lowered(target, params)


def lowered(target: Layer, params: Params) -> mlx_nn.Module:
    """Make the module of a layer: the class that was lifted, or a `Lowered`."""
    run = target.apply.run
    if isinstance(run, ModuleCall) and run.method == "__call__":
        return _freeze_rest(run.bound(params, train=True), params, target)
    return _freeze_rest(Lowered(target, params), params, target)


class Lowered(mlx_nn.Module):
    """A module that runs a layer on its own arrays.

    At the path of each lifted part it has the module of that part, and it runs the module that is there at each call.
    So a function that replaces modules, such as `mlx.nn.quantize`, changes the computation.
    """

    def __init__(self, target: Layer, params: Params) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MLX does not annotate it
        self._layer = without_init(target)
        modules = _modules_of(target, copy_arrays(params), "")
        # the module of a wrapped layer: its contents have the paths of the parameters
        outermost: dict[str, Any] = modules.get("") or {}
        contents = {name: child for name, child in outermost.items() if not name.startswith("_")}
        beside = {name: child for name, child in copy_arrays(params).items() if name not in contents}
        for name, child in (contents | {name: _node(child, name, modules) for name, child in beside.items()}).items():
            self[name] = child

    def __call__(self, *xs: object, **kw: Any) -> Output:
        """Run the layer, and keep the updated buffers."""
        params, target = parameters(self), _running(self._layer, self, "")
        y, params = rng.ambient(lambda: target.apply(params, *xs, train=self.training, **kw))
        self.update(params)
        return y


def _modules_of(target: Layer, params: Params, path: str) -> dict[str, mlx_nn.Module]:
    """Return the modules of the lifted parts by their paths, with the arrays of `params`."""
    run, rebuild = target.apply.run, target.apply.rebuild
    if isinstance(run, ModuleCall):
        return {path: run.bound(params, train=True)}
    modules: dict[str, mlx_nn.Module] = {}

    def add(name: str, part: Layer) -> Layer:
        arrays = run.own(params) if isinstance(run, Beside) and not name else at_path(params, name)
        modules.update(_modules_of(part, arrays, joined(path, name)))
        return part

    if rebuild is not None:
        rebuild(add)
    return modules


def _node(tree: Params, path: str, modules: dict[str, mlx_nn.Module]) -> Any:
    """Return the module at a path; else turn nested dicts into modules, because each module freezes its own leaves."""
    if path in modules:
        return modules[path]
    if isinstance(tree, dict):
        module = Module()
        for name, child in tree.items():
            module[name] = _node(child, joined(path, name), modules)
        return module
    if isinstance(tree, (list, tuple)):
        return [_node(child, joined(path, str(i)), modules) for i, child in enumerate(tree)]
    return tree


def _running(part: Layer, owner: mlx_nn.Module, path: str) -> Layer:
    """Return a part that runs the modules which `owner` has now."""
    run, rebuild = part.apply.run, part.apply.rebuild
    if isinstance(run, ModuleCall):
        module = at_path(owner, path) if path else _outermost(run.template, owner)
        trainable = Trainable(lambda params: trainable_of(module).leaves(params))
        return replace(part, apply=Apply(replace(run, template=module)), trainable=trainable)
    if rebuild is not None:
        return rebuild(lambda name, inner: _running(inner, owner, joined(path, name)))
    return part


def _outermost(template: mlx_nn.Module, owner: mlx_nn.Module) -> mlx_nn.Module:
    """Return the module of a wrapped layer, which is no module inside `owner`, with the contents of `owner`."""
    module = clone(template)
    for name, child in dict.items(owner):
        if name in template:  # others are beside the module, see `nn.with_frozen`
            dict.__setitem__(module, name, child)
    return module


def _freeze_rest(module: mlx_nn.Module, params: Params, target: Layer) -> mlx_nn.Module:
    """Freeze in a module the parameters that do not train in the layer; return the module."""
    trains = target.trainable(params)
    leaves = flat(params)

    def freeze(path: str, node: mlx_nn.Module) -> None:
        prefix = f"{path}." if path else ""
        names = [key for key, value in node.items() if isinstance(value, mx.array) and prefix + key in leaves]
        if names:  # only the first path of a shared module has parameters
            node._no_grad = {key for key in names if not trains(prefix + key, leaves[prefix + key])}

    module.apply_to_modules(freeze)
    return module
