"""Wrappers that change an update after the optimiser has computed it: factors by path, and projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..core._mlx import utils
from ..core._options import FUNCTION, check_options, number
from ..core._types import Array, Params, State, Tree
from ..core.backend import in_use
from ..tree._paths import flat, merge
from ..tree._select import Select, select
from ._by_rule import RuleList
from ._optimizer import Optimizer
from ._wrap import wrapped

__all__ = ["projected", "scaled"]

Verb: TypeAlias = Callable[[Optimizer], Optimizer]
tree_map = utils.tree_map


def scaled(*rules: tuple[object, float]) -> Verb:
    """Multiply the update of each parameter by the factor of the first rule that matches its path.

    The update is the change of the parameter, with weight decay. For example, lower layers of a pretrained model learn
    more slowly: `scaled(("layers.0", 0.25), ("layers.1", 0.5), (None, 1.0))`. The optimiser has one memory and one rate
    for all parameters; `groups` gives each rule an optimiser of its own.

    Args:
        rules: Pairs `(spec, factor)`. A spec chooses parameters as in `freeze`; None is every parameter. A factor is a
            number of 0 or more.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer.

    Raises:
        TypeError: A rule is not a pair of a spec and a number.
        ValueError: There is no rule, a factor is below 0, or, from `init`, no rule matches a parameter.
        KeyError: From `init`: a spec matches no parameter that trains; the message has the nearest paths.

    >>> from mlx_fp import optim
    >>> import mlx.core as mx
    >>> opt = scaled(("body", 0.5), (None, 1.0))(optim.sgd(1.0))
    >>> params, grads = ({"body": mx.array(value), "head": mx.array(value)} for value in (0.0, 2.0))
    >>> opt.update(grads, opt.init(params), params)[0]["body"].item()
    -1.0
    """
    pairs = [_rule(index, rule) for index, rule in enumerate(rules)]
    if not pairs:
        raise ValueError("scaled needs at least one (spec, factor)")
    rule_list = RuleList("scaled", [spec for spec, _ in pairs], "1.0")

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            rule_list.check(params)
            return {"inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            after, memory = in_use().update(inner.update, grads, state["inner"], params)
            parts = zip(pairs, rule_list.split(params), rule_list.split(after), strict=True)
            return merge(*(_scaled_change(factor, old, new) for (_, factor), old, new in parts)), {"inner": memory}

        text = ", ".join(f"{spec!r}: {factor:g}" for spec, factor in pairs)
        return wrapped("scaled", text, inner, init, update, by_leaf=True)

    return wrap


def projected(project: Callable[[Params], Params]) -> Verb:
    """Replace the updated parameters by their projection, for example onto weights of a bounded norm.

    The optimiser sees projected parameters only. See projected gradient descent in Parikh and Boyd, Proximal
    Algorithms, https://doi.org/10.1561/2400000003, section 4.2.

    Args:
        project: A function of the tree of the parameters that train; it returns a tree with the same paths and shapes.
            It is compiled into the step.

    Returns:
        A function of an Optimizer; it returns the wrapped Optimizer. The parameters keep their dtypes.

    Raises:
        TypeError: `project` is no function.
        ValueError: From the first update: the projection has other paths or shapes than the parameters.

    >>> from mlx_fp import optim
    >>> import mlx.core as mx
    >>> opt, params = projected(lambda p: {"w": mx.maximum(p["w"], 0)})(optim.sgd(1.0)), {"w": mx.array([1.0, 1.0])}
    >>> opt.update({"w": mx.array([3.0, -3.0])}, opt.init(params), params)[0]["w"].tolist()
    [0.0, 4.0]
    """
    check_options("projected", {"project": project}, {"project": FUNCTION})

    def wrap(inner: Optimizer) -> Optimizer:
        def init(params: Params) -> State:
            return {"inner": inner.init(params)}

        def update(grads: Tree, state: State, params: Params) -> tuple[Params, State]:
            after, memory = in_use().update(inner.update, grads, state["inner"], params)
            return _with_form(project(after), params), {"inner": memory}

        return wrapped("projected", getattr(project, "__name__", type(project).__name__), inner, init, update)

    return wrap


def _rule(index: int, rule: object) -> tuple[Select, float]:
    if not isinstance(rule, tuple) or len(rule) != 2:
        raise TypeError(f"rule {index} of scaled must be (spec, factor); got {rule!r}")
    check_options("scaled", {f"the factor of rule {index}": rule[1]}, {f"the factor of rule {index}": number(0)})
    return select(rule[0]), float(rule[1])


def _scaled_change(factor: float, before: Params, after: Params) -> Params:
    """Return the parameters that a factor of the change leads to."""
    if factor in (0, 1):
        return after if factor else before

    def moved(old: Array, new: Array) -> Array:
        return (old + factor * (new - old)).astype(old.dtype)

    params: Params = in_use().elementwise(moved, before, after)
    return params


def _with_form(projection: Params, params: Params) -> Params:
    """Cast a projection to the dtypes of the parameters; raise ValueError where its form differs."""
    form, expected = ({path: leaf.shape for path, leaf in flat(tree).items()} for tree in (projection, params))
    if form != expected:
        path = next(path for path in (*expected, *form) if form.get(path) != expected.get(path))
        given, needed = form.get(path, "nothing"), expected.get(path, "nothing")
        raise ValueError(
            f"a projection keeps the paths and shapes of the parameters; {path} is {needed}, and got {given}"
        )
    cast: Params = tree_map(lambda leaf, param: leaf.astype(param.dtype), projection, params)
    return cast
