"""mlx.nn modules and functions as layers.

A lifted layer keeps a clone of a module as a template. Each call clones the template, sets the arrays of the parameter
tree, sets the mode of every nested module, and gets the buffers back. The user's module never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..compile import rng
from ..core._mlx import mlx_nn
from ..core._mlx_text import printed_call
from ..core._signature import arguments, check_types, keyword_names, name_of, signature_of
from ..core._types import Params
from ..tree._paths import copy_arrays
from ._call import Inputs, Keywords, Result
from ._layer import Layer, layer
from ._module import Module, parameters, refuse_functions_of_modules, refuse_tied_arrays
from ._module_call import layer_of_module

__all__ = ["as_layer", "fn", "lift", "printed_sizes", "split"]


def lift(target: object, *args: object, **kwargs: object) -> Layer:
    """Make a Layer from an mlx.nn.Module class, a module, a Layer, or a function that returns one of them.

    Args:
        target: A class or function, which is called with `args` and `kwargs`. A Layer is returned unchanged. The arrays
            of a module become the initial parameters of the layer.
        args: Positional arguments of a class or function.
        kwargs: Keyword arguments of a class or function.

    Returns:
        A Layer with the parameter paths of the module. Its repr shows the arguments.

    Raises:
        TypeError: An argument is unknown (the message has candidates) or has the wrong type, or a module or Layer came
            with arguments, or a module has an attribute that is a function of one of its parts.
        ValueError: Two parameters of the module are one array.

    >>> dense = lift(mlx_nn.Linear, 4, 2, bias=False)
    >>> dense
    Linear(input_dims=4, output_dims=2, bias=False)
    >>> dense.apply(dense.init(0), mx.ones((3, 4)))[0].shape
    (3, 2)
    """
    if isinstance(target, (Layer, Module)):
        if args or kwargs:
            raise TypeError(f"{name_of(target)} is made already and takes no arguments; lift its class")
        return target if isinstance(target, Layer) else split(target)[0]
    if not callable(target):
        raise TypeError(f"lift takes a module class, a module, a Layer or a function; got {target!r}")
    options = arguments(target, args, kwargs)
    if getattr(target, "__module__", "").startswith("mlx.nn."):
        check_types(target, options)
    module = rng.run(0, lambda: target(*args, **kwargs))[0]
    if isinstance(module, Layer):
        return module
    if not isinstance(module, Module):
        raise TypeError(f"{name_of(target)} made {type(module).__name__}, neither a Layer nor an mlx.nn.Module")
    refuse_functions_of_modules(module)
    refuse_tied_arrays(module)
    lifted = layer_of_module(module, lambda: parameters(target(*args, **kwargs)))
    return replace(lifted, label=printed_call(lifted.name, target, args, kwargs))


def split(module: mlx_nn.Module) -> tuple[Layer, Params]:
    """Split a module into `(layer, params)`: its computation and its arrays.

    The module does not change. The parameters that it has frozen are frozen in the layer. The `init` of the layer
    returns the same arrays, so the layer keeps them in memory. To train a large model from new parameters, lift its
    class instead: then the arrays exist once.

    Args:
        module: The mlx.nn module.

    Returns:
        The Layer and its parameters, a tree.

    Raises:
        TypeError: The argument is not a module, or it has an attribute that is a function of one of its parts.
        ValueError: Two parameters of the module are one array.

    >>> model, params = split(mlx_nn.Linear(4, 2))
    >>> model.apply(params, mx.ones((3, 4)))[0].shape
    (3, 2)
    """
    if not isinstance(module, Module):
        raise TypeError(f"split takes an mlx.nn.Module; got {type(module).__name__}")
    refuse_functions_of_modules(module)
    refuse_tied_arrays(module)
    params = parameters(module)
    lifted = layer_of_module(module, lambda: copy_arrays(params))
    return replace(lifted, label=printed_sizes(module)), copy_arrays(params)


def fn(function: Callable[..., Any], name: str | None = None) -> Layer:
    """Make a layer without parameters from a callable.

    Args:
        function: `function(*xs, **kw) -> y`. If it has a parameter `train`, it gets the mode there, a bool.
        name: The name of the layer; by default the name of the function.

    Returns:
        A Layer.

    Raises:
        TypeError: `function` is not callable.

    >>> fn(lambda x, by=2: x * by).apply({}, mx.array(3), by=4)[0].item()
    12
    """
    if not callable(function):
        raise TypeError(f"fn takes a callable; got {function!r}")
    takes_mode = any(p.name == "train" for p in signature_of(function) or ())

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        return function(*xs, **({**kw, "train": train} if takes_mode else kw)), params

    takes = keyword_names(function, after=1) - {"train"}
    return layer(dict, run, name=name or name_of(function), takes=takes)


def as_layer(entry: object, place: str) -> Layer:
    """Return an entry of a composition as a Layer; raise TypeError unless it is a layer, module, class or callable."""
    if isinstance(entry, Layer):
        return entry
    entry = getattr(entry, "__wrapped__", entry) if _is_module_class(getattr(entry, "__wrapped__", None)) else entry
    if isinstance(entry, Module) or _is_module_class(entry):
        return lift(entry)
    if callable(entry) and not isinstance(entry, type):
        return fn(entry)
    raise TypeError(
        f"{place} must be a Layer, an mlx.nn.Module or its class, or a callable; got {type(entry).__name__}: {entry!r}"
    )


def printed_sizes(module: mlx_nn.Module) -> str:
    """Return the class of a module and the sizes that its repr prints; empty where it prints none or cannot print."""
    try:
        sizes = module._extra_repr()
    except Exception:  # a repr must not stop the split
        return ""
    return f"{type(module).__name__}({sizes})" if sizes else ""


def _is_module_class(entry: object) -> bool:
    return isinstance(entry, type) and issubclass(entry, Module)
