"""What a model is made of, as a record, a dict and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core._frozen import freeze_field
from ..core._mlx import mx
from ..core._text import table
from ..core._types import Params
from ..tree._paths import paths, size
from ..tree._select import Select
from ._combine import at
from ._layer import Layer, checked, shapes
from ._module import Module

__all__ = ["Row", "Summary", "summary"]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: where it is, what it is, the shapes of its own arrays, how many elements, how many of them train."""

    path: str
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    count: int
    trainable: int

    def __post_init__(self) -> None:
        freeze_field(self, "shapes")


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of a model and its totals; `str()` is a table, `to_dict()` is JSON."""

    rows: tuple[Row, ...]
    count: int
    trainable: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        rows = [
            {"path": r.path, "name": r.name, "shapes": {k: list(v) for k, v in r.shapes.items()}}
            | {"count": r.count, "trainable": r.trainable}
            for r in self.rows
        ]
        return {"rows": rows, "count": self.count, "trainable": self.trainable}

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("path", "layer", "arrays", "count", "trainable")]
        for r in self.rows:
            arrays = "  ".join(f"{name} {'×'.join(map(str, shape)) or '()'}" for name, shape in r.shapes.items())
            cells.append((r.path or ".", r.name, arrays, f"{r.count:,}", f"{r.trainable:,}"))
        cells.append(("total", "", "", f"{self.count:,}", f"{self.trainable:,}"))
        return table(cells, left=3)


def summary(target: Layer) -> Summary:
    """Describe a layer, part by part, without computing its parameters.

    >>> from mlx_fp import nn
    >>> print(nn.summary(nn.sequential(nn.linear(4, 8), nn.relu, head=nn.linear(8, 2))))
    path      layer   arrays              count  trainable
    layers.0  Linear  weight 8×4  bias 8     40         40
    layers.1  ReLU                            0          0
    head      Linear  weight 2×8  bias 2     18         18
    total                                    58         58
    """
    params = shapes(checked(target, "summary"))
    trains = target.trainable(params)
    rows = tuple(_rows(target, params, "", trains))
    return Summary(rows, size(params), sum(row.trainable for row in rows))


def _rows(target: Layer, params: Params, path: str, trains: Select) -> Iterator[Row]:
    inside = dict(target.parts)
    own = {key: value for key, value in params.items() if isinstance(value, mx.array)} if inside else params
    if own or not inside:
        yield from _arrays(target.name, getattr(target.apply.run, "still", None), own, path, trains)
    for key, part in inside.items():
        yield from _rows(part, at(params, key), f"{path}.{key}" if path else key, trains)


def _arrays(name: str, module: Any, params: Params, path: str, trains: Select) -> Iterator[Row]:
    """Yield a row for the arrays of a part, and one for each of the modules inside it, by its own name."""
    name = type(module).__name__ if isinstance(module, Module) else name
    items = dict(params.items() if isinstance(params, dict) else enumerate(params))
    below = f"{path}." if path else ""
    own = {str(key): value for key, value in items.items() if isinstance(value, mx.array)}
    nested = {key: value for key, value in items.items() if str(key) not in own and paths()(value)}
    if own or not nested:
        trainable = sum(value.size for key, value in own.items() if trains(below + key, value))
        yield Row(path, name, {key: tuple(value.shape) for key, value in own.items()}, size(own), trainable)
    for key, child in nested.items():
        inner = module[key] if isinstance(module, (dict, list)) else None
        yield from _arrays(name, inner, child, f"{below}{key}", trains)
