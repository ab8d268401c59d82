"""Find the part of a model that uses an operation."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence

from ..core._mlx import mx
from ..core._types import Array
from ..nn._observing import Call, observed_calls
from ..tree._flattening import list_arrays

__all__ = ["part_with"]

_BOX = re.compile(r'(\d+) \[label ="(\w+)"')
"""An operation in the DOT text of MLX: an identity and its name."""


def part_with(primitive: str, fn: Callable[..., Sequence[Array]], arrays: Sequence[Array]) -> str:
    """Name the first part of a model that uses an operation; empty where no part is known to.

    >>> from mlx_fp import nn
    >>> model = nn.sequential(nn.linear(2, 3), nn.fn(lambda x: mx.sort(x), "sorted"))
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> part_with("Sort", lambda x: [predict(x)], [mx.ones((1, 2))])
    'layers.1 (sorted)'
    """
    found: list[str] = []

    def traced(*inputs: Array) -> list[Array]:
        results: list[Array] = []
        calls = observed_calls(lambda: results.extend(fn(*inputs)))
        users = [call for call in calls if call.path and primitive in _operations(call)]
        found.extend(f"{call.path} ({call.name})" for call in users if not _has_inner(call, users))
        return results

    mx.export_function(lambda event: None, traced, *arrays)
    return found[0] if found else ""


def _operations(call: Call) -> set[str]:
    """Return the names of the operations of a call of a part."""
    before, after = (_boxes(list_arrays(tree)) for tree in (call.inputs, call.outputs))
    return {name for identity, name in after.items() if identity not in before}


def _boxes(arrays: list[Array]) -> dict[str, str]:
    if not arrays:
        return {}
    text = io.StringIO()
    mx.export_to_dot(text, *arrays)
    return dict(_BOX.findall(text.getvalue()))


def _has_inner(call: Call, users: Sequence[Call]) -> bool:
    return any(user.path.startswith(f"{call.path}.") for user in users)
