"""The layers of a model with their arrays and counts: as a record, a dict and a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, cast

from ..compile import rng
from ..core._bytes import bytes_text
from ..core._frozen import freeze_field
from ..core._html import html_table
from ..core._mlx import mx
from ..core._text import dtype_name, shape_text, table
from ..core._types import Array, Params, Tree
from ..tree._conversion import as_arrays
from ..tree._paths import leaves, paths, size
from ..tree._select import Select
from ._beside import Beside
from ._given import check_given
from ._layer import Layer, require_layer, shapes
from ._lift import split
from ._module import Module
from ._module_call import ModuleCall
from ._observing import Call, observed_calls, run_observed
from ._tree_path import at_path

__all__ = ["Row", "Summary", "summary"]


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its path, its name, and its own arrays.

    - `shapes` and `dtypes` are those of its arrays, by name.
    - `count` is the number of elements of its arrays, `trainable` the number of those that train.
    - `nbytes` is the memory of its arrays, in bytes.
    - `output` has the shape of each array that the layer returned for the batch. It is empty without a batch, and for
      a layer that the model did not call.
    """

    path: str
    name: str
    shapes: Mapping[str, tuple[int, ...]]
    count: int
    trainable: int
    nbytes: int
    dtypes: Mapping[str, str]
    output: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        freeze_field(self, "shapes", "dtypes")

    def to_dict(self) -> dict[str, object]:
        """Return plain dicts, lists and numbers."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        plain = {"path": self.path, "name": self.name, "shapes": shapes, "dtypes": dict(self.dtypes)}
        numbers = {"count": self.count, "trainable": self.trainable, "nbytes": self.nbytes}
        return {**plain, **numbers, "output": [list(shape) for shape in self.output]}


@dataclass(frozen=True, slots=True)
class Summary:
    """The rows of a model and its totals; `str()` is a table, `to_dict()` is JSON, and a notebook shows it as HTML.

    `count` is the number of elements of all arrays, `trainable` the number of those that train, `nbytes` their memory.
    """

    rows: tuple[Row, ...]
    count: int
    trainable: int
    nbytes: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return plain dicts, lists and numbers."""
        totals = {"count": self.count, "trainable": self.trainable, "nbytes": self.nbytes}
        return {"rows": [row.to_dict() for row in self.rows], **totals}

    def __str__(self) -> str:
        cells = self._table()
        return table(cells, left=len(cells[0]) - 3)

    def _repr_html_(self) -> str:
        """Return the table as HTML, for a notebook."""
        cells = self._table()
        return html_table(cells, left=len(cells[0]) - 3)

    def _table(self) -> list[tuple[str, ...]]:
        """Return the cells of the table. Without a batch it has no column of outputs."""
        outputs: list[tuple[str, ...]] = [()] * (len(self.rows) + 2)
        if any(row.output for row in self.rows):
            outputs = [("output",), *((_shapes_text(row.output),) for row in self.rows), ("",)]
        cells = [("path", "layer", "arrays", "dtype", "count", "trainable", "bytes"), *map(_cells, self.rows)]
        cells.append(("total", "", "", "", f"{self.count:,}", f"{self.trainable:,}", bytes_text(self.nbytes)))
        return [(*row[:4], *output, *row[4:]) for row, output in zip(cells, outputs, strict=True)]


def summary(target: object, params: Params | None = None, *, batch: object = None) -> Summary:
    """Describe a model, part by part, without computing its parameters or its outputs.

    Args:
        target: A Layer, an mlx.nn module, or a record with a `model`, such as a trainer.
        params: The parameters of the model; by default those that its `init` makes. For example,
            `nn.summary(model, report.params)`.
        batch: Data for the shape of the output of each layer. Of a trainer, a batch as its data give it. Of a model,
            its inputs: an array, a tuple of arrays, or a dict of arrays by name.

    Returns:
        A Summary, with a row for each layer that has arrays or no parts. A layer that is called several times has the
        shape of its first output.

    Raises:
        TypeError: The target is none of these. Parameters alone are an error, because they do not name their layers.
        ValueError: The parameters are not those of the model.

    >>> from mlx_fp import nn
    >>> model = nn.sequential(nn.linear(4, 8), nn.relu, head=nn.linear(8, 2))
    >>> print(nn.summary(model, batch=mx.zeros((32, 4))))
    path      layer   arrays              dtype    output  count  trainable  bytes
    layers.0  Linear  weight 8×4  bias 8  float32  32×8       40         40  160 B
    layers.1  ReLU                                 32×8        0          0    0 B
    head      Linear  weight 2×8  bias 2  float32  32×2       18         18   72 B
    total                                                     58         58  232 B
    """
    model = _model_of(target)
    if params is not None:
        check_given(model, params)
    tree = shapes(model) if params is None else params
    trains = model.trainable(tree)
    outputs = {} if batch is None else _out_shapes(target, model, as_arrays(tree), batch)
    rows = tuple(replace(row, output=outputs.get(row.path, ())) for row in _summary_rows(model, tree, "", trains))
    totals = (sum(values) for values in ((row.trainable for row in rows), (row.nbytes for row in rows)))
    return Summary(rows, size(tree), *totals)


class Observable(Protocol):
    """A record that knows how its model takes a batch, such as a trainer."""

    def observed(self, params: Params, batch: object) -> list[Call]:
        """Return the calls of the parts of the model on a batch."""


def _out_shapes(target: object, model: Layer, params: Params, batch: object) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the shapes of the first outputs of each part, by path. The arrays stay lazy."""
    if hasattr(target, "observed"):
        calls = cast(Observable, target).observed(params, batch)
    else:
        xs = batch if isinstance(batch, (tuple, list)) else () if isinstance(batch, dict) else (batch,)
        kw = batch if isinstance(batch, dict) else {}
        calls = observed_calls(
            lambda: rng.run(0, lambda: run_observed(model, "", params, as_arrays(tuple(xs)), kw, False))
        )
    first = {call.path: call for call in reversed(calls)}
    return {path: _shapes_of(call.outputs) for path, call in first.items()}


def _shapes_of(outputs: Tree) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(leaf.shape) for leaf in leaves(outputs) if isinstance(leaf, mx.array))


def _cells(row: Row) -> tuple[str, ...]:
    arrays = "  ".join(f"{name} {shape_text(shape)}" for name, shape in row.shapes.items())
    dtypes = " ".join(dict.fromkeys(row.dtypes.values()))
    numbers = (f"{row.count:,}", f"{row.trainable:,}", bytes_text(row.nbytes))
    return (row.path or ".", row.name, arrays, dtypes, *numbers)


def _shapes_text(shapes: tuple[tuple[int, ...], ...]) -> str:
    return "  ".join(map(shape_text, shapes))


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


def _summary_rows(target: Layer, params: Params, path: str, trains: Select) -> Iterator[Row]:
    parts = dict(target.parts)
    of_parts = {key.partition(".")[0] for key in parts}
    arrays = {key: value for key, value in params.items() if key not in of_parts} if parts else params
    if arrays or not parts:
        run = target.apply.run.inner if isinstance(target.apply.run, Beside) else target.apply.run
        module = run.template if isinstance(run, ModuleCall) else None
        yield from _rows_of_arrays(target.name, module, arrays, path, trains)
    for key, part in parts.items():
        yield from _summary_rows(part, at_path(params, key), f"{path}.{key}" if path else key, trains)


def _rows_of_arrays(name: str, module: object, params: Params, path: str, trains: Select) -> Iterator[Row]:
    """Yield a row for the arrays of a part, and a row for each module inside it, with the name of its class."""
    name = type(module).__name__ if isinstance(module, Module) else name
    items = dict(params.items() if isinstance(params, dict) else enumerate(params))
    prefix = f"{path}." if path else ""
    arrays: dict[str, Array] = {str(key): value for key, value in items.items() if isinstance(value, mx.array)}
    nested = {key: value for key, value in items.items() if str(key) not in arrays and paths()(value)}
    if arrays or not nested:
        trainable = sum(value.size for key, value in arrays.items() if trains(prefix + key, value))
        shapes = {key: tuple(value.shape) for key, value in arrays.items()}
        dtypes = {key: dtype_name(value.dtype) for key, value in arrays.items()}
        nbytes = sum(value.nbytes for value in arrays.values())
        yield Row(path, name, shapes, size(arrays), trainable, nbytes, dtypes)
    for key, child in nested.items():
        inner = module[key] if isinstance(module, (dict, list)) else None
        yield from _rows_of_arrays(name, inner, child, f"{prefix}{key}", trains)
