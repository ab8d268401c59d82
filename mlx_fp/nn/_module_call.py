"""The computation of a lifted module: a template that gets the arrays of each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..core._errors import unknown
from ..core._mlx import mlx_nn, mx, utils
from ..core._signature import keyword_names
from ..core._types import Params
from ..core.backend import in_use
from ..tree._paths import flat
from ..tree._select import Select, select, under_prefix
from ._bounds import guarded_classes
from ._call import Inputs, Keywords, Result
from ._dense import is_quantized
from ._head_tap import tapped
from ._layer import Layer, Trainable, layer
from ._module import NO_SUBSTITUTES, clone, constants, get_arrays, parameters, set_arrays
from ._observing import watch
from ._recomputing import buffers_of_marked, recompute_marked

__all__ = ["ModuleCall", "emptied", "layer_of_module", "trainable_of", "wide_leaves"]


@dataclass(frozen=True, slots=True, eq=False)
class ModuleCall:
    """The computation of a lifted module.

    `template` is a clone of the module without its parameters. `paths` are the paths of its parameters. `guards` are
    the classes that replace classes of the template, see `guarded_classes`. `recomputed` has the paths of the modules
    that are computed again for their gradients, each with the paths of its buffers.
    """

    template: mlx_nn.Module
    method: str = "__call__"
    paths: frozenset[str] = field(init=False)
    guards: Mapping[type, type] = field(init=False)
    recomputed: Mapping[str, frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", frozenset(flat(parameters(self.template))))
        object.__setattr__(self, "guards", guarded_classes(self.template))
        object.__setattr__(self, "recomputed", buffers_of_marked(self.template, _weights))

    def __call__(self, params: Params, xs: Inputs, kw: Keywords, train: bool, /) -> Result:
        """Run the module, or another method of it, with `params`."""
        substitutes = {**_recurrent(), **in_use().substitutes} if train else NO_SUBSTITUTES
        module = self.bound(params, train, {**self.guards, **substitutes})
        recompute_marked(module, self.recomputed)
        return getattr(tapped(module), self.method)(*xs, **kw), get_arrays(module, params)

    @property
    def takes(self) -> frozenset[str]:
        """Return the names of the inputs beside the first that the call takes by name."""
        return self.names_of_method()

    def names_of_method(self) -> frozenset[str]:
        """Return the names of the parameters of the method after the first."""
        lowered = vars(self.template).get("_layer")
        if isinstance(lowered, Layer) and self.method == "__call__":
            return lowered.takes
        function = getattr(self.template, self.method, None)
        return frozenset[str]() if function is None else keyword_names(function, after=1)

    def bound(self, params: Params, train: bool, classes: Mapping[type, type] = NO_SUBSTITUTES) -> mlx_nn.Module:
        """Return a clone of the template that holds `params`; `classes` maps classes to their replacements."""
        self._check(params)
        observer = watch()
        module = clone(self.template, classes) if observer is None else observer.bound(self.template, classes)
        set_arrays(module, params)
        module.train(train)
        return module

    def _check(self, params: Params) -> None:
        """Raise KeyError unless the paths are those of the module: a missing array would come from the template."""
        given = flat(params)
        wrong_paths = [path for path in (*self.paths, *given) if (path in given) != (path in self.paths)]
        if wrong_paths:
            where, paths = ("parameters", given) if wrong_paths[0] in self.paths else ("module", self.paths)
            raise KeyError(
                f"{type(self.template).__name__}: {unknown(f'path of the {where},', wrong_paths[0], sorted(paths))}"
            )


def _recurrent() -> Mapping[type, type]:
    from ._recurrent import RECURRENT  # a late import: the first step needs it, a layer does not

    return RECURRENT


def layer_of_module(module: mlx_nn.Module, make: Callable[[], Params]) -> Layer:
    """Make a Layer with a template of a module, which keeps none of its parameters; `make` makes them."""
    template = emptied(module)
    name = type(template).__name__
    call = ModuleCall(template)
    lifted = layer(make, call, trainable=trainable_of(template), name=name, takes=call.takes)
    return replace(lifted, wide=wide_leaves(template))


def emptied(module: mlx_nn.Module) -> mlx_nn.Module:
    """Return a clone of a module that has a scalar in the place of each parameter."""
    template, params = clone(module), parameters(module)
    blanks = utils.tree_map(lambda leaf: mx.zeros((), leaf.dtype), params)
    set_arrays(template, blanks)
    mx.eval(parameters(template), constants(template))  # another thread may pickle the layer
    return template


def trainable_of(module: mlx_nn.Module) -> Trainable:
    """Tell buffers from parameters that the user has frozen: a module freezes its buffers again after `unfreeze`."""
    trains = set(flat(module.trainable_parameters()))
    may_train = _weights(module)
    rules = ((select(may_train - trains), False),) if may_train - trains else ()
    chosen = select(lambda path: path in may_train)
    return Trainable(lambda params: chosen, rules)


def _weights(module: mlx_nn.Module) -> set[str]:
    """List the paths of the arrays that may train, without buffers and quantised weights."""
    trains = set(flat(module.trainable_parameters()))
    unfrozen = clone(module)
    unfrozen.apply_to_modules(lambda _, m: m.unfreeze(recurse=False))  # so each module freezes its buffers again
    floats = {p for p, leaf in flat(parameters(module)).items() if mx.issubdtype(leaf.dtype, mx.floating)}
    return (set(flat(unfrozen.trainable_parameters())) - _of_quantized(module) | trains) & floats


def _of_quantized(module: mlx_nn.Module) -> set[str]:
    """List the paths of the scales and offsets of quantised weights."""
    inner = [(f"{path}." if path else "", each) for path, each in module.named_modules() if is_quantized(each)]
    return {prefix + name for prefix, _ in inner for name in ("scales", "biases", "global_scale")}


def wide_leaves(module: mlx_nn.Module) -> Select:
    """Choose the wide leaves of layers that were lowered into a module."""
    held = [(path, vars(inner).get("_layer")) for path, inner in module.named_modules()]
    lowered = [(path, target.wide) for path, target in held if isinstance(target, Layer)]
    return select([under_prefix(path, wide) if path else wide for path, wide in lowered])
