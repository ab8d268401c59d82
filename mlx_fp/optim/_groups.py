"""Different optimisers for different parameters."""

from __future__ import annotations

import warnings
from typing import Any

from ..core._types import Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import divided, flat, leaves, merge, paths
from ..tree._select import Select, select
from ..tree._strict import must_match
from ._optimizer import Optimizer

__all__ = ["groups"]

_HINT = "a text is a whole path or its beginning, re.compile('bias$') matches anywhere, and the first match wins"


def groups(*rules: tuple[Any, Optimizer]) -> Optimizer:
    """Give each parameter to the optimiser of the first rule that matches its path; a rule is `(spec, optimizer)`.

    The rules must be total: `init` raises ValueError naming the parameters that none matches; end with
    `(everything, optimizer)` for the rest. A spec that matches none of the parameters that train is a KeyError, with
    the nearest, unless it is a `select(spec, strict=False)`; a rule whose parameters all went to those before it is a
    RuntimeWarning. The state of rule i is `groups.i`.

    >>> from mlx_fp import optim
    >>> groups(("encoder", optim.sgd(1e-2)), (None, optim.adamw(1e-3)))
    groups(under('encoder'): sgd, everything: adamw)
    """
    made = [_rule(i, rule) for i, rule in enumerate(rules)]
    if not made:
        raise ValueError("groups needs at least one (spec, optimizer)")

    def init(params: Params) -> State:
        for spec, _ in made:
            must_match(spec, flat(params).items(), f"parameter that trains: {_HINT}")
        shares = _shares(made, params)
        for (spec, _), part in zip(made, shares, strict=True):
            if spec.strict and not leaves(part):
                warnings.warn(f"{spec!r} of groups gets no parameter: {_HINT}", RuntimeWarning, stacklevel=3)
        return {"groups": [opt.init(part) for (_, opt), part in zip(made, shares, strict=True)]}

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        shares = zip(made, _shares(made, grads), state["groups"], _shares(made, params), strict=True)
        done = [in_use().update(opt.update, g, memory, p) for (_, opt), g, memory, p in shares]
        return merge(*(p for p, _ in done)), {"groups": [memory for _, memory in done]}

    return Optimizer(init, update, f"groups({', '.join(f'{spec!r}: {opt.name}' for spec, opt in made)})")


def _rule(index: int, rule: Any) -> tuple[Select, Optimizer]:
    if not isinstance(rule, tuple) or len(rule) != 2 or not isinstance(rule[1], Optimizer):
        raise TypeError(f"rule {index} of groups must be (spec, optimizer); got {rule!r}")
    return select(rule[0]), rule[1]


def _shares(rules: list[tuple[Select, Optimizer]], tree: Tree) -> list[Tree]:
    """Cut a tree into one part per rule, first match first."""
    parts = []
    for spec, _ in rules:
        part, tree = divided(spec)(tree)
        parts.append(part)
    left = paths()(tree)
    if left:
        specs = ", ".join(repr(spec) for spec, _ in rules)
        raise ValueError(f"no rule of groups({specs}) matches {', '.join(left)}; end with (everything, optimizer)")
    return parts
