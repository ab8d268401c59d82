"""Different optimisers for different parameters."""

from __future__ import annotations

from ..core._types import Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import merge
from ..tree._select import Select, select
from ._by_rule import RuleList
from ._optimizer import Optimizer

__all__ = ["groups"]


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
    rule_list = RuleList("groups", [spec for spec, _ in pairs], "optimizer")

    def init(params: Params) -> State:
        rule_list.check(params)
        return {"groups": [opt.init(part) for (_, opt), part in zip(pairs, rule_list.split(params), strict=True)]}

    def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
        split = rule_list.split(grads), state["groups"], rule_list.split(params)
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
