"""A model with frozen layers beside it, which a loss can call: a teacher, a reference model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..core._types import Params
from ..tree._paths import copy_arrays
from ..tree._select import Select, nothing
from ._beside import Beside
from ._composition import check_part_name, trainable_of_parts
from ._freeze import frozen
from ._given import check_given
from ._layer import Change, Layer, Trainable, layer, renamed, require_layer, shapes
from ._lift import as_layer

__all__ = ["with_frozen"]


def with_frozen(**others: object) -> Callable[[Layer], Layer]:
    """Put frozen layers beside a model. The model runs as before, and a loss calls the others by name.

    For example, `nn.with_frozen(teacher=(big, big_params))(small)` is a model that runs `small`, and a loss calls
    `forward.teacher(x)`. The parameters of the model keep their paths; those of another layer are under its name. They
    are arguments of the compiled step, like all parameters, but have no gradient and no memory in the optimiser. The
    other layers always run in evaluation mode. Files of `fp.checkpoints(…, trainable_only=True)` leave them out.

    Put adapters into the model, or freeze parts of it, before this function.

    Args:
        others: By name, a Layer, an mlx.nn module, or a pair `(layer, params)`, for example the result of `nn.split`.
            The initial parameters are the arrays of the module or of the pair; a Layer alone makes its own. Arrays that
            the model has, too, exist in memory once until the model's are updated.

    Returns:
        A function of a Layer that returns a Layer.

    Raises:
        TypeError: The model is no Layer, or an entry is none of these.
        ValueError: There is no entry, or a name is that of a parameter or part of the model, or the parameters of a
            pair are not those of its layer, or the parameters of the model are no dict.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn, paths
    >>> teacher = nn.linear(2, 1)
    >>> model = with_frozen(teacher=(teacher, nn.init(1)(teacher)))(nn.linear(2, 1, bias=False))
    >>> params = nn.init(0)(model)
    >>> paths()(params), paths(model.trainable(params))(params)
    (('weight', 'teacher.weight', 'teacher.bias'), ('weight',))
    """
    if not others:
        raise ValueError("with_frozen takes layers by name, for example with_frozen(teacher=(layer, params))")
    entries = {name: _entry(name, other) for name, other in others.items()}
    parts = {name: frozen(other) for name, (other, _) in entries.items()}

    def attach(model: Layer) -> Layer:
        _check_names(require_layer(model, "with_frozen"), tuple(parts))
        return _beside(model, parts, {name: make for name, (_, make) in entries.items()})

    return attach


def _beside(model: Layer, parts: Mapping[str, Layer], makes: Mapping[str, Callable[[], Params]]) -> Layer:
    """Put frozen parts beside a model; `makes` are the functions that make their initial parameters."""
    call, beside = Beside(model.apply.run, frozenset(parts)), tuple(parts.items())

    def make() -> Params:
        own = model.init()
        return {**own, **{name: make_part() for name, make_part in makes.items()}}

    def rebuild(change: Change) -> Layer:
        return _beside(change("", model), {name: change(name, part) for name, part in beside}, makes)

    trainable, inside = _trainable(model, call, beside), (*model.parts, *beside)
    joined = layer(make, call, trainable=trainable, parts=inside, rebuild=rebuild, takes=model.takes)
    wide = _by_owner(model.wide, {name: part.wide for name, part in beside})
    named = renamed(model, f"with_frozen({{}}, {', '.join(parts)})")
    return replace(joined, name=named.name, label=named.label, wide=wide)


def _entry(name: str, other: object) -> tuple[Layer, Callable[[], Params]]:
    """Return a layer and the function that makes its initial parameters."""
    if not isinstance(other, tuple):
        found = as_layer(other, f"with_frozen's {name}")
        return found, found.init
    if len(other) != 2 or not isinstance(other[0], Layer):
        kinds = ", ".join(type(part).__name__ for part in other)
        raise TypeError(f"with_frozen's {name} is a layer, or a pair (layer, params); got ({kinds})")
    target, params = other
    check_given(target, params)
    return target, lambda: copy_arrays(params)


def _check_names(model: Layer, names: tuple[str, ...]) -> None:
    """Raise ValueError where a name is taken by a parameter or a part of the model."""
    own = shapes(model)
    if not isinstance(own, dict):
        raise ValueError(f"with_frozen takes a model whose parameters are a dict; those of {model.name} are a list")
    for name in names:
        check_part_name(name, {*own, *(path.partition(".")[0] for path, _ in model.parts)})


def _trainable(model: Layer, call: Beside, parts: tuple[tuple[str, Layer], ...]) -> Trainable:
    """Return the leaves and rules of the model, and after them those of the frozen parts."""
    of_parts = trainable_of_parts(parts)

    def leaves(params: Params) -> Select:
        others = {name: part.trainable.leaves(params[name]) for name, part in parts}
        return _by_owner(model.trainable.leaves(call.own(params)), others)

    return Trainable(leaves, (*model.trainable.rules, *of_parts.rules))


def _by_owner(own: Select, others: Mapping[str, Select]) -> Select:
    """Select the leaves of others, which are under their names, by their Selects, and the rest by `own`."""

    def match(path: str, leaf: object) -> bool:
        head, _, rest = path.partition(".")
        return others[head](rest, leaf) if head in others else own(path, leaf)

    return nothing if all(each is nothing for each in (own, *others.values())) else Select(match, f"{own} and others")
