"""The layers of a model with their arrays and counts: as a record, a dict and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..core._frozen import freeze_field
from ..core._mlx import mx
from ..core._text import table
from ..core._types import Array, Params
from ..tree._paths import paths, size
from ..tree._select import Select
from ._beside import Beside
from ._given import check_given
from ._layer import Layer, require_layer, shapes
from ._lift import split
from ._module import Module
from ._module_call import ModuleCall
from ._tree_path import at_path

__all__ = ["Row", "Summary", "summary"]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its path, its name, the shapes of its own arrays, and how many elements it has and trains."""

    path: str
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    count: int
    trainable: int

    def __post_init__(self) -> None:
        freeze_field(self, "shapes")


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of a model and its totals; `str()` is a table, `to_dict()` is JSON.

    `count` is the number of elements of all arrays, `trainable` the number of those that train.
    """

    rows: tuple[Row, ...]
    count: int
    trainable: int

    def to_dict(self) -> dict[str, object]:
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


def summary(target: object, params: Params | None = None) -> Summary:
    """Describe a model, part by part, without computing its parameters.

    Args:
        target: A Layer, an mlx.nn module, or a record with a `model`, such as a trainer.
        params: The parameters of the model; by default those that its `init` makes. For example,
            `nn.summary(model, report.params)`.

    Returns:
        A Summary, with a row for each layer that has arrays or no parts.

    Raises:
        TypeError: The target is none of these. Parameters alone are an error, because they do not name their layers.
        ValueError: The parameters are not those of the model.

    >>> from mlx_fp import nn
    >>> print(nn.summary(nn.sequential(nn.linear(4, 8), nn.relu, head=nn.linear(8, 2))))
    path      layer   arrays              count  trainable
    layers.0  Linear  weight 8×4  bias 8     40         40
    layers.1  ReLU                            0          0
    head      Linear  weight 2×8  bias 2     18         18
    total                                    58         58
    """
    model = _model_of(target)
    if params is not None:
        check_given(model, params)
    tree = shapes(model) if params is None else params
    trains = model.trainable(tree)
    rows = tuple(_rows(model, tree, "", trains))
    return Summary(rows, size(tree), sum(row.trainable for row in rows))


def _model_of(target: object) -> Layer:
    """Return the Layer of a layer, a module or a record; TypeError with the remedy for parameters and other values."""
    if isinstance(target, Module):
        return split(target)[0]
    model = getattr(target, "model", target)
    if isinstance(target, (dict, list, tuple)):
        raise TypeError(
            f"summary takes a Layer, an mlx.nn module or a trainer; got {type(target).__name__}: "
            "for parameters, give their model, too: nn.summary(model, params)"
        )
    return model if isinstance(model, Layer) else require_layer(target, "summary")


def _rows(target: Layer, params: Params, path: str, trains: Select) -> Iterator[Row]:
    parts = dict(target.parts)
    of_parts = {key.partition(".")[0] for key in parts}
    arrays = {key: value for key, value in params.items() if key not in of_parts} if parts else params
    if arrays or not parts:
        run = target.apply.run.inner if isinstance(target.apply.run, Beside) else target.apply.run
        module = run.template if isinstance(run, ModuleCall) else None
        yield from _rows_of_arrays(target.name, module, arrays, path, trains)
    for key, part in parts.items():
        yield from _rows(part, at_path(params, key), f"{path}.{key}" if path else key, trains)


def _rows_of_arrays(name: str, module: object, params: Params, path: str, trains: Select) -> Iterator[Row]:
    """Yield a row for the arrays of a part, and a row for each module inside it, with the name of its class."""
    name = type(module).__name__ if isinstance(module, Module) else name
    items = dict(params.items() if isinstance(params, dict) else enumerate(params))
    prefix = f"{path}." if path else ""
    arrays: dict[str, Array] = {str(key): value for key, value in items.items() if isinstance(value, mx.array)}
    nested = {key: value for key, value in items.items() if str(key) not in arrays and paths()(value)}
    if arrays or not nested:
        trainable = sum(value.size for key, value in arrays.items() if trains(prefix + key, value))
        yield Row(path, name, {key: tuple(value.shape) for key, value in arrays.items()}, size(arrays), trainable)
    for key, child in nested.items():
        inner = module[key] if isinstance(module, (dict, list)) else None
        yield from _rows_of_arrays(name, inner, child, f"{prefix}{key}", trains)
