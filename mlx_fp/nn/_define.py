"""A layer written as a function over named parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from ..core._errors import unknown
from ..core._mlx import mx
from ..core._signature import name_of, signature_of
from ..core._types import Array, Params
from . import initializers
from ._combine import joined, part_name, run_part
from ._layer import Layer, Trainable, layer
from ._lift import as_layer
from ._part import Part

__all__ = ["Leaf", "View", "buffer", "define", "param"]

Init = Callable[..., Array] | float

_RESERVED = ("train", "update")


@dataclass(frozen=True, slots=True)
class Leaf:
    """An array of a `define`d layer: its shape, how it starts, and whether it may train."""

    shape: tuple[int, ...]
    init: Init
    dtype: Any
    trains: bool

    def make(self, name: str) -> Array:
        """Make the array, and check what the initialiser gave."""
        made = _initial(self.init, self.shape, self.dtype)
        if not isinstance(made, mx.array) or tuple(made.shape) != self.shape or made.dtype != self.dtype:
            got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, mx.array) else type(made).__name__
            raise ValueError(f"the initialiser of {name!r} must give {self.dtype} {self.shape}; it gave {got}")
        return made


def param(shape: int | tuple[int, ...], *, init: Init | None = None, dtype: Any = None) -> Leaf:
    """Describe an array that trains, float32 unless `dtype` says otherwise.

    `init` is an initialiser of `nn.initializers` (array -> array), a function that names `shape` and perhaps `dtype`,
    one of mlx's own such as `mx.zeros`, or a number to fill with; normal with deviation 0.02 when left out.

    >>> param(3, init=1.0).make("scale").tolist()
    [1.0, 1.0, 1.0]
    """
    return _leaf(shape, initializers.normal(0.0, 0.02) if init is None else init, dtype, True)


def buffer(shape: int | tuple[int, ...], *, init: Init = 0.0, dtype: Any = None) -> Leaf:
    """Describe an array that never trains; the forward function changes it with `m.update(name=…)`."""
    return _leaf(shape, init, dtype, False)


def define(forward: Callable[..., Any], **parts: Any) -> Layer:
    """Make a layer of a forward function over named parts: Layers, modules, callables, `param`s and `buffer`s.

    `forward(m, *xs, **kw)` gets a frozen view: `m.proj(x)` runs a part, `m.proj.weight` and `m.scale` are arrays,
    `m.train` the mode, and `m.update(count=m.count + 1)` changes a buffer. An option is a parameter of the function
    that calls `define`.

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
    made = {name: _part(name, part) for name, part in parts.items()}
    _check_forward(forward)

    def make() -> Params:
        return {name: p.make(name) if isinstance(p, Leaf) else p.init() for name, p in made.items()}

    def run(params: Params, xs: tuple[Any, ...], kw: dict[str, Any], train: bool) -> tuple[Any, Params]:
        gathered = dict(params)
        return forward(View(made, gathered, train), *xs, **kw), gathered

    inner = tuple((name, part) for name, part in made.items() if isinstance(part, Layer))
    name = name_of(forward).replace("<lambda>", "define")
    return layer(make, run, trainable=_trainable(made, inner), name=name, parts=inner)


class View:
    """What a forward function sees of its layer during one call: its parts, its arrays and the mode."""

    __slots__ = ("_params", "_parts", "_train")

    def __init__(self, parts: dict[str, Layer | Leaf], params: Params, train: bool) -> None:
        for name, value in (("_parts", parts), ("_params", params), ("_train", train)):
            object.__setattr__(self, name, value)

    @property
    def train(self) -> bool:
        """Whether the layer runs in training mode."""
        return bool(self._train)

    def update(self, **buffers: Array | float) -> None:
        """Give buffers other values, of the same shape, taken in their dtype; they come back with the parameters."""
        for name, value in buffers.items():
            part = self._parts.get(name)
            if not isinstance(part, Leaf) or part.trains:
                known = [n for n, p in self._parts.items() if isinstance(p, Leaf) and not p.trains]
                raise TypeError(f"update changes buffers only; {unknown('buffer', name, known)}")
            before, after = self._params[name], mx.array(value)
            if after.shape != before.shape:
                raise ValueError(f"buffer {name!r} has shape {before.shape}; got {after.shape}")
            self._params[name] = after.astype(before.dtype)

    def __getattr__(self, name: str) -> Any:
        part = self._parts.get(name)
        if part is None:
            raise AttributeError(unknown("part", name, [*self._parts, *_RESERVED]))
        if isinstance(part, Leaf):  # an object of its own: what the function does to it in place stays in the call
            return self._params[name].astype(self._params[name].dtype)
        return self._bound(name, part)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a layer's parts are frozen; to change a buffer use m.update({name}=…)")

    def _bound(self, name: str, part: Layer) -> Part:
        def run(layer: Layer, *xs: Any, **kw: Any) -> Any:
            y, self._params[name] = run_part(layer, name, self._params[name], xs, kw, self._train)
            return y

        return Part(part, run, lambda: self._params[name])


def _part(name: str, part: Any) -> Layer | Leaf:
    part_name(name, _RESERVED)
    if isinstance(part, Leaf):
        return part
    return as_layer(part, f"part {name!r}")


def _leaf(shape: int | tuple[int, ...], init: Init, dtype: Any, trains: bool) -> Leaf:
    dims = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if any(isinstance(d, bool) or not isinstance(d, int) or d < 0 for d in dims):
        raise ValueError(f"a shape is an int or a tuple of ints, 0 or more; got {shape!r}")
    if not callable(init) and not isinstance(init, (int, float)):
        raise TypeError(f"init is an initialiser or a number; got {init!r}")
    return Leaf(dims, init, dtype or mx.float32, trains)


def _initial(init: Init, shape: tuple[int, ...], dtype: Any) -> Any:
    if not callable(init):
        return mx.full(shape, mx.array(init, dtype))
    parameters = signature_of(init)
    if parameters is None:  # mlx's own creation functions, which take a shape
        return init(shape).astype(dtype)
    names = [p.name for p in parameters]
    if "shape" in names:
        return init(**{"shape": shape, **({"dtype": dtype} if "dtype" in names else {})})
    return init(mx.zeros(shape, dtype))


def _trainable(parts: dict[str, Layer | Leaf], inner: tuple[tuple[str, Layer], ...]) -> Trainable:
    return joined(inner, [name for name, part in parts.items() if isinstance(part, Leaf) and part.trains])


def _check_forward(forward: Callable[..., Any]) -> None:
    parameters = signature_of(forward)
    if parameters is not None and (not parameters or parameters[0].kind is Parameter.KEYWORD_ONLY):
        raise TypeError(f"{name_of(forward)} must take the view of its parts first: (m, *xs, **kw)")
