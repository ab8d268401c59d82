"""A layer written as a function over named parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, TypeAlias

from ..core._errors import unknown
from ..core._mlx import mx
from ..core._signature import keyword_names, name_of, signature_of
from ..core._types import Array, Params
from . import initializers
from ._call import Inputs, Keywords, Output, Result
from ._composition import check_part_name, run_part, trainable_of_parts
from ._layer import Change, Layer, Trainable, layer
from ._lift import as_layer
from ._part import Part

__all__ = ["Leaf", "View", "buffer", "define", "param"]

Init: TypeAlias = Callable[..., Array] | float
"""An initialiser, or a number that fills the array."""

_RESERVED = ("train", "update")
"""Names of the view itself, which no part can have."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An array of a `define`d layer: its shape, its initialiser, its dtype, and whether it may train."""

    shape: tuple[int, ...]
    init: Init
    dtype: mx.Dtype
    trains: bool

    def make(self, name: str) -> Array:
        """Make the array; raise ValueError if the initialiser returns another shape or dtype."""
        array = _initial(self.init, self.shape, self.dtype)
        if not isinstance(array, mx.array) or tuple(array.shape) != self.shape or array.dtype != self.dtype:
            got = f"{array.dtype} {tuple(array.shape)}" if isinstance(array, mx.array) else type(array).__name__
            raise ValueError(f"the initialiser of {name!r} must give {self.dtype} {self.shape}; it gave {got}")
        return array


def param(shape: int | tuple[int, ...], *, init: Init | None = None, dtype: mx.Dtype | None = None) -> Leaf:
    """Describe an array that trains.

    Args:
        shape: The shape; an int is the length of a vector, `()` a scalar.
        init: One of these: an initialiser of `nn.initializers` (array -> array); a function with a parameter `shape`,
            and perhaps `dtype`; a function of MLX that takes a shape, for example `mx.zeros`; a number that fills the
            array. By default a normal distribution with standard deviation 0.02.
        dtype: The dtype; float32 by default.

    Returns:
        A description for `define`.

    Raises:
        ValueError: The shape is not an int or a tuple of ints of 0 or more.
        TypeError: `init` is neither callable nor a number.

    >>> param(3, init=1.0).make("scale").tolist()
    [1.0, 1.0, 1.0]
    """
    return _leaf(shape, initializers.normal(0.0, 0.02) if init is None else init, dtype, True)


def buffer(shape: int | tuple[int, ...], *, init: Init = 0.0, dtype: mx.Dtype | None = None) -> Leaf:
    """Describe an array that never trains; the forward function changes it with `m.update(name=value)`.

    Args:
        shape: The shape, as in `param`.
        init: The initialiser, as in `param`; 0 by default.
        dtype: The dtype; float32 by default.

    Returns:
        A description for `define`.

    Raises:
        ValueError: The shape is not an int or a tuple of ints of 0 or more.
        TypeError: `init` is neither callable nor a number.

    >>> buffer((), init=3.0).make("count").item()
    3.0
    """
    return _leaf(shape, init, dtype, False)


def define(forward: Callable[..., Any], **parts: object) -> Layer:
    """Make a layer from a forward function over named parts.

    The forward function gets a frozen view `m` of the parts. `m.proj(x)` runs the part `proj`. `m.proj.weight` and
    `m.scale` are arrays. `m.train` is the mode. `m.update(count=m.count + 1)` changes a buffer. For a layer with
    options, write a function of the options that calls `define`.

    Args:
        forward: `forward(m, *xs, **kw) -> y`.
        parts: Layers, mlx.nn modules or their classes, callables, `param`s and `buffer`s, by name.

    Returns:
        A Layer with the name of the function.

    Raises:
        TypeError: `forward` is not callable or takes no positional argument, or a part is of another type.
        ValueError: A part has a name that no part can have.

    >>> from mlx_fp import nn
    >>> def affine(dims, *, bias=True):
    ...     def forward(m, x):
    ...         return m.proj(x) * m.scale
    ...     return define(forward, proj=nn.linear(dims, dims, bias=bias), scale=param(dims, init=1.0))
    >>> model = affine(4)
    >>> model.apply(nn.init(0)(model), mx.ones((2, 4)))[0].shape
    (2, 4)
    """
    if not callable(forward):
        raise TypeError(f"define takes a forward function (m, *xs, **kw); got {forward!r}")
    parts_by_name = {name: _part(name, part) for name, part in parts.items()}
    _check_forward(forward)
    return _defined(forward, parts_by_name)


def _defined(forward: Callable[..., Any], parts_by_name: dict[str, Layer | Leaf]) -> Layer:
    def make() -> Params:
        return {name: p.make(name) if isinstance(p, Leaf) else p.init() for name, p in parts_by_name.items()}

    def run(params: Params, xs: Inputs, kw: Keywords, train: bool) -> Result:
        updated = dict(params)
        return forward(View(parts_by_name, updated, train), *xs, **kw), updated

    def rebuild(change: Change) -> Layer:
        changed = {name: change(name, p) if isinstance(p, Layer) else p for name, p in parts_by_name.items()}
        return _defined(forward, changed)

    layers = tuple((name, part) for name, part in parts_by_name.items() if isinstance(part, Layer))
    name = name_of(forward).replace("<lambda>", "define")
    trainable, takes = _trainable(parts_by_name, layers), keyword_names(forward, after=2)
    return layer(make, run, trainable=trainable, name=name, parts=layers, rebuild=rebuild, takes=takes)


class View:
    """The frozen view of a layer's parts that a forward function gets."""

    __slots__ = ("_params", "_parts", "_train")

    def __init__(self, parts: dict[str, Layer | Leaf], params: Params, train: bool) -> None:
        for name, value in (("_parts", parts), ("_params", params), ("_train", train)):
            object.__setattr__(self, name, value)

    @property
    def train(self) -> bool:
        """Whether the layer runs in training mode."""
        return bool(self._train)

    def update(self, **buffers: Array | float) -> None:
        """Set new values of buffers.

        A value must have the shape of the buffer and is cast to its dtype. The layer returns the new values with its
        parameters.
        """
        for name, value in buffers.items():
            part = self._parts.get(name)
            if not isinstance(part, Leaf) or part.trains:
                buffer_names = [n for n, p in self._parts.items() if isinstance(p, Leaf) and not p.trains]
                raise TypeError(f"update changes buffers only; {unknown('buffer', name, buffer_names)}")
            before, after = self._params[name], mx.array(value)
            if after.shape != before.shape:
                raise ValueError(f"buffer {name!r} has shape {before.shape}; got {after.shape}")
            self._params[name] = after.astype(before.dtype)

    def __getattr__(self, name: str) -> Any:
        part = self._parts.get(name)
        if part is None:
            raise AttributeError(unknown("part", name, [*self._parts, *_RESERVED]))
        if isinstance(part, Leaf):  # a copy: changes in place do not reach the parameters
            return self._params[name].astype(self._params[name].dtype)
        return self._bound(name, part)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a layer's parts are frozen; to change a buffer use m.update({name}=…)")

    def _bound(self, name: str, part: Layer) -> Part:
        def run(layer: Layer, *xs: object, **kw: object) -> Output:
            y, self._params[name] = run_part(layer, name, self._params[name], xs, kw, self._train)
            return y

        return Part(part, run, lambda: self._params[name])


def _part(name: str, part: object) -> Layer | Leaf:
    check_part_name(name, _RESERVED)
    if isinstance(part, Leaf):
        return part
    return as_layer(part, f"part {name!r}")


def _leaf(shape: int | tuple[int, ...], init: Init, dtype: mx.Dtype | None, trains: bool) -> Leaf:
    dims = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if any(isinstance(d, bool) or not isinstance(d, int) or d < 0 for d in dims):
        raise ValueError(f"a shape is an int or a tuple of ints, 0 or more; got {shape!r}")
    if not callable(init) and not isinstance(init, (int, float)):
        raise TypeError(f"init is an initialiser or a number; got {init!r}")
    return Leaf(dims, init, dtype or mx.float32, trains)


def _initial(init: Init, shape: tuple[int, ...], dtype: mx.Dtype) -> object:
    """Return the first value of an array."""
    if not callable(init):
        return mx.full(shape, mx.array(init, dtype))
    parameters = signature_of(init)
    if parameters is None:  # a function of MLX that takes a shape, such as mx.zeros: a builtin without a signature
        return init(shape).astype(dtype)
    names = [p.name for p in parameters]
    if "shape" in names:
        return init(shape=shape, dtype=dtype) if "dtype" in names else init(shape=shape)
    return init(mx.zeros(shape, dtype))


def _trainable(parts: dict[str, Layer | Leaf], layers: tuple[tuple[str, Layer], ...]) -> Trainable:
    return trainable_of_parts(layers, [name for name, part in parts.items() if isinstance(part, Leaf) and part.trains])


def _check_forward(forward: Callable[..., object]) -> None:
    parameters = signature_of(forward)
    if parameters is not None and (not parameters or parameters[0].kind is Parameter.KEYWORD_ONLY):
        raise TypeError(f"{name_of(forward)} must take the view of its parts first: (m, *xs, **kw)")
