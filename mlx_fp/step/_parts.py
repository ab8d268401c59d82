"""Parts of a batch: computed one after another, or in parallel."""

from __future__ import annotations

from functools import partial

from ..core._errors import is_count
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, Params, State
from ..core.backend import in_use
from ..tree._paths import leaves
from ._enclosing import NamedVerb
from ._pass import Backward, Pass, Verb, joined
from ._rows import cut_rows, split_key

__all__ = ["abreast", "in_parts"]


def in_parts(count: int) -> Verb:
    """Cut each batch by rows into parts, and compute one part after another.

    Only the activations of one part are in memory at a time. The result equals that of the whole batch, to rounding, if
    the loss is a mean over rows or a `Mean`. Batch norm is the exception: it sees one part at a time.

    Args:
        count: The number of parts. There are fewer where a part would have a single row.

    Returns:
        A verb, for `train_step(through=[…])`.

    Raises:
        ValueError: For a `count` that is no int of 1 or more. In a step: the arrays of a batch differ in their rows.

    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.linear(2, 1, bias=False)
    >>> step = train_step(model, lambda model, x: model(x).mean(), optim.sgd(0.1), through=[in_parts(2)])
    >>> step(*step.init(0), mx.zeros((4, 2)))[2]["loss"].item()
    0.0
    """
    _check_count("in_parts", count)

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            first, *others = cut_rows(batch, count, "parts")
            done = backward(params, opt_state, first)
            for part in others:
                done = joined(done, backward(params, done.opt_state, _computed_after(leaves(done.grads), part)))
            return done

        return run

    return NamedVerb("in_parts", f"in_parts({count})", verb)


def abreast(count: int) -> Verb:
    """Cut each batch by rows into parts, and compute the parts in parallel on CPUs.

    On other devices the batch stays whole. The result equals that of the whole batch, as for `in_parts`.

    Args:
        count: The number of parts. There are fewer where a part would have a single row.

    Returns:
        A verb, for `train_step(through=[…])`.

    Raises:
        ValueError: For a `count` that is no int of 1 or more. In a step: the arrays of a batch differ in their rows.
    """
    _check_count("abreast", count)

    def verb(backward: Backward) -> Backward:
        def run(params: Params, opt_state: State, batch: Batch) -> Pass:
            parallel = in_use().parallel
            parts = [batch] if parallel is None else cut_rows(batch, count, "streams")
            if parallel is None or len(parts) == 1:
                return backward(params, opt_state, batch)
            passes: list[Pass] = []

            def call(key: Array, part: Batch) -> Pass:
                metrics = passes[-1].opt_state["metrics"] if passes else opt_state["metrics"]
                passes.append(backward(params, {**opt_state, "key": key, "metrics": metrics}, part))
                return passes[-1]

            keys = split_key(opt_state["key"], len(parts))
            done: Pass
            done, *others = parallel([partial(call, key, part) for key, part in zip(keys, parts, strict=True)])
            for other in others:
                state = {**done.opt_state, "metrics": other.opt_state["metrics"]}
                done = joined(done, other)._replace(opt_state=state)
            return done

        return run

    return NamedVerb("abreast", f"abreast({count})", verb)


def _computed_after(computed: list[Array], batch: Batch) -> Batch:
    """Return a batch whose arrays are read after other arrays have been computed."""
    return utils.tree_map(lambda leaf: mx.depends([leaf], computed)[0] if isinstance(leaf, mx.array) else leaf, batch)


def _check_count(name: str, count: object) -> None:
    if not is_count(count, least=1):
        raise ValueError(f"{name} takes a count of parts, 1 or more; got {count!r}")
