"""Different optimisers for different parameters."""

from __future__ import annotations

import warnings

from ..core._types import Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import divided, flat, leaves, merge, paths
from ..tree._select import Select, select
from ..tree._strict import must_match
from ._optimizer import Optimizer

__all__ = ["groups"]

_HINT = "a text is a whole path or its beginning, re.compile('bias$') matches anywhere, and the first match wins"


def groups(*rules: tuple[object, Optimizer]) -> Optimizer:
    """Give each parameter to the optimiser of the first rule that matches its path.

    Every parameter needs a rule: end with `(everything, optimizer)` for the rest. The state of rule i is `groups.i`. If
    earlier rules take all parameters of a rule, `init` warns with a RuntimeWarning.

    Args:
        rules: Pairs `(spec, optimizer)`. A spec chooses parameters as in `freeze`; None is every parameter.

    Returns:
        An Optimizer.

    Raises:
        TypeError: A rule is not a pair of a spec and an Optimizer.
        ValueError: There is no rule, or, from `init`, no rule matches a parameter; the message names the parameters.
        KeyError: From `init`: a spec matches no parameter that trains; the message has the nearest paths. For a spec
            that may match nothing, give `select(spec, strict=False)`.

    >>> from mlx_fp import optim
    >>> groups(("encoder", optim.sgd(1e-2)), (None, optim.adamw(1e-3)))
    groups(under('encoder'): sgd(learning_rate=0.01), everything: adamw(learning_rate=0.001))
    """
    pairs = [_rule(i, rule) for i, rule in enumerate(rules)]
    if not pairs:
        raise ValueError("groups needs at least one (spec, optimizer)")

    def init(params: Params) -> State:
        for spec, _ in pairs:
            must_match(spec, flat(params).items(), f"parameter that trains: {_HINT}")
        parts = _split_by_rule(pairs, params)
        for (spec, _), part in zip(pairs, parts, strict=True):
            if spec.strict and not leaves(part):
                warnings.warn(f"{spec!r} of groups gets no parameter: {_HINT}", RuntimeWarning, stacklevel=3)
        return {"groups": [opt.init(part) for (_, opt), part in zip(pairs, parts, strict=True)]}

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        split = _split_by_rule(pairs, grads), state["groups"], _split_by_rule(pairs, params)
        results = [in_use().update(opt.update, g, s, p) for (_, opt), g, s, p in zip(pairs, *split, strict=True)]
        return merge(*(p for p, _ in results)), {"groups": [group_state for _, group_state in results]}

    name, label = (
        f"groups({', '.join(f'{spec!r}: {text(opt)}' for spec, opt in pairs)})" for text in (_name_of_optimizer, repr)
    )
    return Optimizer(init, update, name, label, all(optimizer.by_leaf for _, optimizer in pairs))


def _name_of_optimizer(optimizer: Optimizer) -> str:
    return optimizer.name


def _rule(index: int, rule: object) -> tuple[Select, Optimizer]:
    if not isinstance(rule, tuple) or len(rule) != 2 or not isinstance(rule[1], Optimizer):
        raise TypeError(f"rule {index} of groups must be (spec, optimizer); got {rule!r}")
    return select(rule[0]), rule[1]


def _split_by_rule(rules: list[tuple[Select, Optimizer]], tree: Tree) -> list[Tree]:
    """Split a tree into one part for each rule; the first match wins."""
    parts = []
    for spec, _ in rules:
        part, tree = divided(spec)(tree)
        parts.append(part)
    unmatched = paths()(tree)
    if unmatched:
        specs = ", ".join(repr(spec) for spec, _ in rules)
        raise ValueError(f"no rule of groups({specs}) matches {', '.join(unmatched)}; end with (everything, optimizer)")
    return parts
