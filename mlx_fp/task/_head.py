"""The hidden vectors before the head of a model, and the computation after it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple

from ..compile import rng
from ..core._errors import unknown
from ..core._mlx import mlx_nn, mx, utils
from ..core._types import Array, Forward, Tree
from ..nn._head_tap import HeadCall, Tap, head_arrays, intercepting

__all__ = ["HeadInput", "head_input"]

Call = Callable[[Forward], Tree]
"""Call a model on the inputs of a batch."""

_LINEAR = (mlx_nn.Linear, mlx_nn.QuantizedLinear, mlx_nn.Embedding, mlx_nn.QuantizedEmbedding)

_LARGE, _SMALL = 2.0**20, 2.0**-10
"""Logits at which a soft cap is constant, and at which it is linear."""


class HeadInput(NamedTuple):
    """The call of the head in one call of a model, and the scores that the model computes of its logits."""

    call: HeadCall
    soft_cap: float | None
    scale: float


def head_input(head: str | bool, forward: Forward, call: Call) -> HeadInput:
    """Call a model, with constant logits in place of the product of its head.

    The output of the model then shows the computation after the head: nothing, a factor, or a soft cap.

    Args:
        head: The path of the head; True to find it.
        forward: The model of a step.
        call: Calls the model.

    Raises:
        TypeError: The head is no linear layer of mlx.nn.
        ValueError: There is no such head, or the output of the model is something else than scaled and capped logits.
    """
    path = head if isinstance(head, str) else _find(forward, call)
    calls, logits, output = _with_constant_logits(path, forward, call)
    if len(calls) != 1:
        _refuse(path, calls, forward, call)
    soft_cap, scale = (None, 1.0) if output is logits else _tail(path, forward, call)
    return HeadInput(calls[0], soft_cap, scale)


def _with_constant_logits(path: str, forward: Forward, call: Call) -> tuple[list[HeadCall], Array | None, Tree]:
    """Call a model with constant logits: `(calls of the head, logits, output)`."""
    calls: list[HeadCall] = []
    logits: list[Array] = []

    def replace(head_call: HeadCall) -> Array:
        calls.append(head_call)
        head_arrays(head_call)  # an error for a head of another kind comes first
        logits.append(_constant_logits(head_call))
        return logits[-1]

    output = intercepting(Tap(lambda place, _: place == path, replace), lambda: call(forward))
    return calls, logits[-1] if logits else None, output


def _find(forward: Forward, call: Call) -> str:
    """Return the path of the linear module that a model calls last."""
    paths = _linear_paths(forward, call)
    if not paths:
        raise ValueError(
            "head=True finds the linear layer that a model calls last, and the model called none of mlx.nn"
        )
    return paths[-1]


def _linear_paths(forward: Forward, call: Call) -> list[str]:
    """List the paths of the linear modules in the order of their calls, without an effect on the model."""
    paths: list[str] = []

    def note(head_call: HeadCall) -> Array:
        paths.append(head_call.path)
        return head_call.compute()

    tap = Tap(lambda _, module: isinstance(module, _LINEAR), note)
    rng.run(0, lambda: intercepting(tap, lambda: call(copy(forward))))
    return paths


def _constant_logits(head_call: HeadCall) -> Array:
    """Return logits of one row with numbers of every size, in the form of the logits of the head."""
    weight: Array = head_call.module["weight"]
    column = mx.arange(weight.shape[0])
    values = ((column * 37) % 101 - 50) / 5.0
    values = mx.where(column == 0, _LARGE, mx.where(column == 1, 1.0, mx.where(column == 2, _SMALL, values)))
    return values.reshape((1,) * (head_call.hidden.ndim - 1) + (-1,))


def _tail(path: str, forward: Forward, call: Call) -> tuple[float | None, float]:
    """Return the soft cap and the scale by which a model computes its output of constant logits.

    The parameters are NaN in this call. So an output that depends on them is no output of constant logits alone.
    """
    blank = copy(forward)
    blank.params = utils.tree_map(_as_nan, forward.params)
    (_, logits, output), _ = rng.run(0, lambda: _with_constant_logits(path, blank, call))
    is_like = logits is not None and getattr(output, "shape", None) == logits.shape
    found = _fit(logits, output) if logits is not None and is_like else None
    if found is None:
        kind = f"an array {output.shape}" if isinstance(output, mx.array) else type(output).__name__
        raise ValueError(
            f"the output of the model is not the logits of its head {path!r}, times a number or with a tanh soft cap: "
            f"it is {kind}; give the path of the part that makes the logits, as in "
            'head="lm_head", or use the task without head='
        )
    return found


def _as_nan(leaf: Array) -> Array:
    return mx.full(leaf.shape, mx.nan, leaf.dtype) if mx.issubdtype(leaf.dtype, mx.floating) else leaf


def _fit(logits: Array, output: Any) -> tuple[float | None, float] | None:
    """Return the soft cap and the scale of scores, or None if they are of another form."""
    try:
        large, one, small = (output.reshape(-1)[i].astype(mx.float32).item() for i in range(3))
    except (RuntimeError, ValueError):  # the output depends on the parameters, which are not known in a trace
        return None
    is_linear = abs(large - one * _LARGE) <= 1e-5 * abs(large)
    soft_cap, scale = (None, one) if is_linear else (abs(large), small / _SMALL)
    scale = 1.0 if abs(scale - 1) < 1e-5 else scale
    scores = logits * scale if soft_cap is None else soft_cap * mx.tanh(logits * scale / soft_cap)
    is_same: Array = mx.allclose(output.astype(mx.float32), scores, rtol=1e-4, atol=1e-6)
    return (soft_cap, scale) if is_same.item() else None


def _refuse(path: str, calls: list[HeadCall], forward: Forward, call: Call) -> None:
    """Raise ValueError for a head that a model called several times, or not at all."""
    if calls:
        raise ValueError(f"the model called its head {path!r} {len(calls)} times; a loss without logits needs one call")
    candidates = list(dict.fromkeys(_linear_paths(forward, call)))
    raise ValueError(
        f"{unknown('head', path, candidates)}; a head is a linear layer of mlx.nn, or an embedding used by as_linear, "
        "that the model calls outside of nn.remat"
    )
