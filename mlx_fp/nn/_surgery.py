"""Change parts of a layer by their paths: parts of compositions, wrapped layers, and modules inside lifted modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial

from ..core._errors import located
from ..core._mlx import mlx_nn
from ..core._types import Params
from ..tree._paths import copy_arrays, flat
from ..tree._select import Select
from ._layer import Apply, Layer, Trainable, seeded, shapes
from ._lowered import lowered
from ._module import children, clone
from ._module_call import ModuleCall, emptied, layer_of_module, trainable_of, wide_leaves
from ._rebuilt import rebuilt
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

    - `chosen(place)` tells whether a part changes. It is not called for parts inside a chosen part.
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

    _Walk(Edit(add, lambda part: part, lambda part: {}), lambda part, path: part, []).through(target, "")
    return places


def edited(target: Layer, edit: Edit) -> Layer:
    """Return a layer with changed parts.

    All other parts, the names and the rules of freezing stay. No array that is frozen in the old layer, or in the new
    part, trains. `init` returns the arrays of the old layer and, for each changed part, those of `edit.arrays`.
    """
    old = shapes(target)
    trains = target.trainable(old)

    def frozen_too(part: Layer, path: str) -> Layer:
        own = flat(shapes(part)).items()
        return _with_frozen(part, {name for name, leaf in own if not trains(joined(path, name), leaf)})

    changes: list[_Change] = []
    result = _Walk(edit, frozen_too, changes).through(target, "")
    result = replace(result, init=_init_of(target.init, changes, edit.arrays))
    new, frozen = shapes(result), {path for path, leaf in flat(old).items() if not trains(path, leaf)}
    for change in changes:
        params = at_path(new, change.path)
        own = change.after.trainable(params)
        frozen |= {joined(change.path, name) for name, leaf in flat(params).items() if not own(name, leaf)}
    return _with_frozen(result, frozen, new)


def at_paths(paths: Iterable[str], text: str) -> Select:
    """Select the leaves at exactly these paths; `text` is the repr."""
    chosen = frozenset(paths)
    return Select(lambda path, leaf: path in chosen, text)


def _with_frozen(target: Layer, paths: set[str], params: Params | None = None) -> Layer:
    """Freeze the leaves at these paths, where they train."""
    tree = shapes(target) if params is None else params
    trains = target.trainable(tree)
    thawed = [path for path, leaf in flat(tree).items() if path in paths and trains(path, leaf)]
    if not thawed:
        return target
    return replace(target, trainable=target.trainable.with_rule(at_paths(thawed, "frozen before"), False))


def _init_of(
    before: Callable[..., Params], changes: list[_Change], arrays: Callable[[Layer], Params]
) -> Callable[..., Params]:
    """Return the init of a changed layer, from the init before the changes. It keeps no arrays of old or new parts."""
    places = [(change.path, replace(change.before, init=dict)) for change in changes]

    def make() -> Params:
        tree = before()
        for path, part in places:
            tree = put_at(tree, path, arrays(replace(part, init=_given(at_path(tree, path)))))
        return tree

    return seeded(make) if changes else before


def _given(params: Params) -> Callable[..., Params]:
    return seeded(lambda: copy_arrays(params))


@dataclass(frozen=True, slots=True)
class _Walk:
    """A walk through a layer, which edits its parts and adds each change to `changes`.

    `prepared(part, path)` is called for each part that changes, before it changes.
    """

    edit: Edit
    prepared: Callable[[Layer, str], Layer]
    changes: list[_Change]

    def through(self, target: Layer, path: str) -> Layer:
        """Edit a layer, or else all parts in it."""
        run, rebuild = target.apply.run, target.apply.rebuild
        module = run.template if isinstance(run, ModuleCall) else None
        called = (
            replace(target, apply=Apply(replace(run, method="__call__"))) if isinstance(run, ModuleCall) else target
        )
        if self.edit.chosen(Place(path, module, lambda: called)):
            return _with_method(self.changed(called, path).after, run, path)

        def walk(name: str, part: Layer) -> Layer:
            return self.through(part, joined(path, name))

        if rebuild is not None:
            return rebuilt(target, walk)
        if isinstance(run, ModuleCall):
            return self.inside(target, run, path)
        if any(walk(name, part) is not part for name, part in target.parts):
            raise TypeError(f"{target.name} cannot get another part: give `nn.layer` a function `rebuild`")
        return target

    def changed(self, part: Layer, path: str) -> _Change:
        """Make the new layer for a part."""
        before = self.prepared(part, path)
        with located(path=path or "the whole layer"):
            change = _Change(path, before, self.edit.make(before))
        self.changes.append(change)
        return change

    def inside(self, target: Layer, run: ModuleCall, path: str) -> Layer:
        """Edit the modules inside a lifted module."""
        changes: list[_Change] = []
        replacements: dict[int, mlx_nn.Module] = {}
        arrays = cache(lambda: shapes(target))

        def part_at(module: mlx_nn.Module, below: str) -> Layer:
            return layer_of_module(module, lambda: copy_arrays(at_path(arrays(), below)))

        def visit(outer: mlx_nn.Module, above: str) -> None:
            for name, module in children(outer):
                below = joined(above, name)
                if id(module) in seen:
                    continue
                seen.add(id(module))
                if self.edit.chosen(place := Place(joined(path, below), module, partial(part_at, module, below))):
                    change = self.changed(place.layer(), place.path)
                    changes.append(replace(change, path=below))
                    replacements[id(module)] = emptied(lowered(change.after, shapes(change.after)))
                else:
                    visit(module, below)

        seen = {id(run.template)}
        visit(run.template, "")
        if not changes:
            return target
        init = _init_of(target.init, changes, self.edit.arrays)
        return _with_template(replace(target, init=init), run, clone(run.template, replacements=replacements))


def _with_method(made: Layer, run: object, path: str) -> Layer:
    """Run in a new part the method that ran in the old part."""
    if not isinstance(run, ModuleCall) or run.method == "__call__":
        return made
    if not isinstance(made.apply.run, ModuleCall):
        raise TypeError(f"{path}: the method {run.method!r} runs there; {made.name} is no lifted module")
    return replace(made, apply=Apply(replace(made.apply.run, method=run.method)))


def _with_template(target: Layer, run: ModuleCall, template: mlx_nn.Module) -> Layer:
    """Return a lifted layer with another template, and with its own rules."""
    before, after = trainable_of(run.template), trainable_of(template)
    trainable = Trainable(after.leaves, (*after.rules, *target.trainable.rules[len(before.rules) :]))
    apply = Apply(replace(run, template=template))
    return replace(target, apply=apply, trainable=trainable, wide=wide_leaves(template))
