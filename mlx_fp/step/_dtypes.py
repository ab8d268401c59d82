"""The dtypes in which a step computes, part by part, with the places where float32 enters a narrow step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from ..compile import rng
from ..core._bytes import bytes_text
from ..core._mlx import mx
from ..core._text import dtype_name, table
from ..core._types import Array, Batch, Params, Tree
from ..nn._given import check_given
from ..nn._layer import shapes
from ..nn._observing import Call, observed_calls
from ..tree._casting import is_narrow
from ..tree._conversion import as_arrays
from ..tree._paths import leaves
from ._bound_model import BoundModel, call_loss
from ._train_step import TrainStep

__all__ = ["DtypeRow", "Dtypes", "dtypes"]


@dataclass(frozen=True, slots=True)
class DtypeRow:
    """The dtypes of one call of a part.

    - `path` and `layer` name the part, or the module inside a lifted module. The model itself has the path "".
    - `parameters`, `inputs` and `outputs` are the names of the dtypes of its arrays.
    - `wide` tells whether it computes in float32 on purpose: it is `nn.wide`, or inside such a part.
    - `wide_bytes` are the bytes of its outputs that have a floating dtype of 32 bits or more.
    """

    path: str
    layer: str
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wide: bool
    wide_bytes: int


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtypes of a step. `str()` is a table, with the warnings below it. `dtypes` makes it.

    - `dtype` is the narrow dtype of the step, or of most of its parameters; None: the step is not narrow.
    - `rows` has a row for each call of a part, in order.
    - `warnings` names the parts that return float32 in a narrow step by accident. It is empty where there are none.
    """

    dtype: str | None
    rows: tuple[DtypeRow, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Return plain dicts, lists and numbers."""
        return {"dtype": self.dtype, "rows": [asdict(row) for row in self.rows], "warnings": list(self.warnings)}

    def __str__(self) -> str:
        cells: list[tuple[str, ...]] = [("path", "layer", "parameters", "inputs", "outputs")]
        for row in self.rows:
            kinds = (" ".join(each) for each in (row.parameters, row.inputs, row.outputs))
            cells.append((row.path or ".", row.layer, *kinds))
        return "\n".join([table(cells, left=5), *(f"warning: {text}" for text in self.warnings)])


def dtypes(batch: Batch, *, params: Params | None = None) -> Callable[[TrainStep], Dtypes]:
    """Report the dtypes in which a step computes, part by part. Nothing is computed.

    In a narrow step (bfloat16 parameters, or `dtype=mx.bfloat16`) one float32 array promotes all that follows: a
    constant, a mask or an input. The report has warnings with the paths where this begins, and with the bytes of the
    outputs that stay float32. Parts that are `nn.wide` compute in float32 on purpose, and have no warning.

    Args:
        batch: A batch, as the step takes it.
        params: The parameters, if their dtypes differ from those that the model's `init` makes.

    Returns:
        A function from a step, as `train_step` makes it, to a `Dtypes`.

    Raises:
        TypeError: The step is not from `train_step`.
        ValueError: The parameters are not those of the model.

    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.sequential(nn.linear(3, 4), nn.fn(lambda x: x * mx.array([2.0]), "scale"), head=nn.linear(4, 1))
    >>> step = train_step(model, lambda model, x: model(x).mean(), optim.sgd(0.1), dtype=mx.bfloat16)
    >>> print(dtypes(mx.ones((2, 3)))(step))
    path      layer       parameters  inputs    outputs
    .         sequential  bfloat16    bfloat16  float32
    layers.0  Linear      bfloat16    bfloat16  bfloat16
    layers.1  scale                   bfloat16  float32
    head      Linear      bfloat16    float32   float32
    warning: layers.1 (scale) returns float32 for bfloat16 inputs
    warning: 2 parts return float32: 40 B of outputs
    """

    def report(step: TrainStep) -> Dtypes:
        if not isinstance(step, TrainStep):
            raise TypeError(f"dtypes takes a step of fp.train_step; got {type(step).__name__}")
        work = step.computation
        if params is not None:
            check_given(work.model, params)
        tree = shapes(work.model) if params is None else as_arrays(params)
        forward = BoundModel(work.model, tree, True, work.dtype)
        calls = observed_calls(lambda: rng.run(0, lambda: call_loss(work.loss, forward, as_arrays(batch))))
        dtype = work.dtype if work.dtype is not None else _main_dtype(tree)
        rows = tuple(map(_row, calls))
        if dtype is None or not is_narrow(dtype):
            return Dtypes(None, rows, ())
        return Dtypes(dtype_name(dtype), rows, tuple(_warnings(rows)))

    return report


def _row(call: Call) -> DtypeRow:
    wide_bytes = sum(leaf.nbytes for leaf in _arrays(call.outputs) if _is_wide(leaf))
    parameters, inputs, outputs = (_names(tree) for tree in (call.params, call.inputs, call.outputs))
    return DtypeRow(call.path, call.name, parameters, inputs, outputs, call.wide, wide_bytes)


def _main_dtype(params: Params) -> mx.Dtype | None:
    """Return the floating dtype of most elements of parameters."""
    sizes: dict[mx.Dtype, int] = {}
    for leaf in leaves(params):
        if mx.issubdtype(leaf.dtype, mx.floating):
            sizes[leaf.dtype] = sizes.get(leaf.dtype, 0) + leaf.size
    return max(sizes, key=lambda dtype: sizes[dtype], default=None)


def _warnings(rows: tuple[DtypeRow, ...]) -> list[str]:
    """Describe where float32 begins, and how much of it there is."""
    texts, returned = [], [row for row in rows if row.wide_bytes and not row.wide and _is_innermost(row, rows)]
    before = False
    for row in returned:
        if not _has_wide(row.inputs):
            texts.append(f"{_named_part(row)} returns float32 for {' '.join(row.inputs) or 'no'} inputs{_hint(row)}")
        elif not before:
            texts.append(f"{_named_part(row)} is the first part with float32 inputs: {_origin(row, rows)}")
        before = True
    if returned:
        count, total = len({row.path for row in returned}), sum(row.wide_bytes for row in returned)
        texts.append(f"{count} part{'s return' if count > 1 else ' returns'} float32: {bytes_text(total)} of outputs")
    return texts


def _is_innermost(row: DtypeRow, rows: tuple[DtypeRow, ...]) -> bool:
    """Tell whether no part inside a part returns float32, so that the float32 of its outputs is its own."""
    prefix = f"{row.path}." if row.path else ""
    return not any(other.path.startswith(prefix) and other.path != row.path and other.wide_bytes for other in rows)


def _origin(row: DtypeRow, rows: tuple[DtypeRow, ...]) -> str:
    """Describe the origin of float32 inputs that no part before has returned by accident."""
    if _has_wide(rows[0].inputs):
        return "the batch is float32; cast it, or give the step dtype="
    wide = [other for other in rows[: rows.index(row)] if other.wide and other.wide_bytes]
    if wide:
        return f"{_named_part(wide[-1])} is nn.wide and returns float32"
    return "the code between the parts has made them"


def _hint(row: DtypeRow) -> str:
    return ", because it has float32 parameters" if _has_wide(row.parameters) else ""


def _named_part(row: DtypeRow) -> str:
    return f"{row.path or 'the model'} ({row.layer})"


def _has_wide(names: tuple[str, ...]) -> bool:
    return "float32" in names or "float64" in names


def _is_wide(leaf: Array) -> bool:
    return mx.issubdtype(leaf.dtype, mx.floating) and not is_narrow(leaf.dtype)


def _arrays(tree: Tree) -> list[Array]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, mx.array)]


def _names(tree: Tree) -> tuple[str, ...]:
    return tuple(sorted({dtype_name(leaf.dtype) for leaf in _arrays(tree)}))
