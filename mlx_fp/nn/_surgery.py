"""Change parts of a layer by their paths: parts of compositions, wrapped layers, and modules inside lifted modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from ..core._errors import located
from ..core._mlx import mlx_nn
from ..core._types import Params
from ..tree._paths import copy_arrays, flat
from ..tree._select import Select
from ._layer import Apply, Layer, Trainable, seeded, shapes
from ._lowered import lowered
from ._module import children, clone
from ._module_call import ModuleCall, emptied, layer_of_module, trainable_of, wide_leaves
from ._tree_path import at_path, joined, put_at

__all__ = ["Edit", "Place", "at_paths", "edited", "places_of"]


@dataclass(frozen=True, slots=True)
class Place:
    """A part by its path. `module` is the lifted module, or the module inside one; None for any other layer."""

    path: str
    module: mlx_nn.Module | None
    layer: Callable[[], Layer]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of parts.

    - `chosen(place)` tells whether a part changes; what lies inside a chosen part is not looked at.
    - `make(part)` returns the new layer.
    - `arrays(part)` returns the parameters of the new layer. The `init` of `part` returns the arrays of the old part.
    """

    chosen: Callable[[Place], bool]
    make: Callable[[Layer], Layer]
    arrays: Callable[[Layer], Params]


@dataclass(frozen=True, slots=True)
class _Change:
    """A part that changed: its path, the old layer and the new one."""

    path: str
    before: Layer
    after: Layer


def places_of(target: Layer) -> list[Place]:
    """List the layer itself and all parts in it, outer parts first."""
    places: list[Place] = []

    def add(place: Place) -> bool:
        places.append(place)
        return False

    _walked(target, "", Edit(add, _same, _no_arrays), [], _same_at)
    return places


def edited(target: Layer, edit: Edit) -> Layer:
    """Return a layer with changed parts.

    All other parts, the names and the rules of freezing stay. No array that is frozen in the old layer, or in the new
    part, trains. `init` returns the arrays of the old layer and, for each changed part, those of `edit.arrays`.
    """
    old = shapes(target)
    trains, leaves = target.trainable(old), flat(old)

    def frozen_too(part: Layer, path: str) -> Layer:
        params = shapes(part)
        own = part.trainable(params)
        held = [
            name for name, leaf in flat(params).items() if own(name, leaf) and not _trains(trains, path, name, leaf)
        ]
        return _with_frozen(part, held)

    changes: list[_Change] = []
    result = _walked(target, "", edit, changes, frozen_too)
    result = replace(result, init=_init_of(target.init, changes, edit.arrays))
    new = shapes(result)
    held = {path for path, leaf in leaves.items() if not trains(path, leaf)}
    for change in changes:
        params = at_path(new, change.path)
        own = change.after.trainable(params)
        held |= {joined(change.path, name) for name, leaf in flat(params).items() if not own(name, leaf)}
    trains_now = result.trainable(new)
    return _with_frozen(result, [path for path, leaf in flat(new).items() if path in held and trains_now(path, leaf)])


def at_paths(paths: Iterable[str], text: str) -> Select:
    """Select the leaves at exactly these paths; `text` is the repr."""
    chosen = frozenset(paths)
    return Select(lambda path, leaf: path in chosen, text)


def _same(part: Layer) -> Layer:
    return part


def _same_at(part: Layer, path: str) -> Layer:
    return part


def _no_arrays(part: Layer) -> Params:
    return {}


def _trains(trains: Select, path: str, name: str, leaf: object) -> bool:
    return trains(joined(path, name), leaf)


def _with_frozen(target: Layer, paths: list[str]) -> Layer:
    if not paths:
        return target
    return replace(target, trainable=target.trainable.with_rule(at_paths(paths, "frozen before"), False))


def _init_of(
    before: Callable[..., Params], changes: list[_Change], arrays: Callable[[Layer], Params]
) -> Callable[..., Params]:
    """Return the init of a changed layer, from the init before the changes."""

    def make() -> Params:
        tree = before()
        for change in changes:
            old = at_path(tree, change.path)
            part = replace(change.before, init=_given(old))
            tree = put_at(tree, change.path, arrays(part))
        return tree

    return seeded(make) if changes else before


def _given(params: Params) -> Callable[..., Params]:
    return seeded(lambda: copy_arrays(params))


def _walked(
    target: Layer, path: str, edit: Edit, changes: list[_Change], prepared: Callable[[Layer, str], Layer]
) -> Layer:
    """Edit a layer and all parts in it; add each change to `changes`. `prepared` gets each part that changes first."""
    run, rebuild = target.apply.run, target.apply.rebuild
    called = replace(target, apply=Apply(replace(run, method="__call__"))) if isinstance(run, ModuleCall) else target
    module = run.template if isinstance(run, ModuleCall) else None
    if edit.chosen(Place(path, module, lambda: called)):
        change = _changed(prepared(called, path), path, edit)
        changes.append(change)
        return _with_method(change.after, run, path)

    def walk(name: str, part: Layer) -> Layer:
        return _walked(part, joined(path, name), edit, changes, prepared)

    if rebuild is not None:
        return _rebuilt(target, walk)
    if isinstance(run, ModuleCall):
        return _with_inner(target, run, path, edit, changes, prepared)
    if any(walk(name, part) is not part for name, part in target.parts):
        raise TypeError(f"{target.name} cannot get another part: give `nn.layer` a function `rebuild`")
    return target


def _changed(part: Layer, path: str, edit: Edit) -> _Change:
    with located(path=path or "the whole layer"):
        return _Change(path, part, edit.make(part))


def _with_method(made: Layer, run: object, path: str) -> Layer:
    """Run in a new part the method that ran in the old part."""
    if not isinstance(run, ModuleCall) or run.method == "__call__":
        return made
    if not isinstance(made.apply.run, ModuleCall):
        raise TypeError(f"{path}: the method {run.method!r} runs there; {made.name} is no lifted module")
    return replace(made, apply=Apply(replace(made.apply.run, method=run.method)))


def _rebuilt(target: Layer, change: Callable[[str, Layer], Layer]) -> Layer:
    """Rebuild a layer from changed parts; it keeps its own rules, and its name if it is a composition."""
    old: list[tuple[str, Layer]] = []
    new: list[tuple[str, Layer]] = []

    def recorded(name: str, part: Layer) -> Layer:
        made = change(name, part)
        old.append((name, part))
        new.append((name, made))
        return made

    assert target.apply.rebuild is not None
    made = target.apply.rebuild(recorded)
    if all(before is after for (_, before), (_, after) in zip(old, new, strict=True)):
        return target
    own = target.trainable.rules[len(_rules_of(old)) :]
    made = replace(made, trainable=replace(made.trainable, rules=(*_rules_of(new), *own)))
    return replace(made, name=target.name, label=target.label) if target.parts else made


def _rules_of(parts: list[tuple[str, Layer]]) -> tuple[tuple[Select, bool], ...]:
    """Return the rules that a layer has from its parts."""
    rules = (part.trainable.inside(name) if name else part.trainable.rules for name, part in parts)
    return tuple(rule for each in rules for rule in each)


def _with_inner(
    target: Layer,
    run: ModuleCall,
    path: str,
    edit: Edit,
    changes: list[_Change],
    prepared: Callable[[Layer, str], Layer],
) -> Layer:
    """Edit the modules inside a lifted module."""
    here: list[_Change] = []
    replacements: dict[int, mlx_nn.Module] = {}
    seen, trees = {id(run.template)}, list[Params]()

    def part_at(module: mlx_nn.Module, below: str) -> Layer:
        if not trees:
            trees.append(shapes(target))  # once for all modules inside
        return layer_of_module(module, lambda: copy_arrays(at_path(trees[0], below)))

    def visit(outer: mlx_nn.Module, prefix: str) -> None:
        for name, module in children(outer):
            below = joined(prefix, name)
            if id(module) in seen:
                continue
            seen.add(id(module))
            place = Place(joined(path, below), module, partial(part_at, module, below))
            if edit.chosen(place):
                change = _changed(prepared(place.layer(), place.path), place.path, edit)
                here.append(replace(change, path=below))
                changes.append(change)
                replacements[id(module)] = emptied(lowered(change.after, shapes(change.after)))
            else:
                visit(module, below)

    visit(run.template, "")
    if not here:
        return target
    template = clone(run.template, replacements=replacements)
    return _with_template(target, replace(run, template=template), _init_of(target.init, here, edit.arrays))


def _with_template(target: Layer, run: ModuleCall, init: Callable[..., Params]) -> Layer:
    old = target.apply.run
    assert isinstance(old, ModuleCall)
    before, after = trainable_of(old.template), trainable_of(run.template)
    trainable = Trainable(after.leaves, (*after.rules, *target.trainable.rules[len(before.rules) :]))
    return replace(target, init=init, apply=Apply(run), trainable=trainable, wide=wide_leaves(run.template))
