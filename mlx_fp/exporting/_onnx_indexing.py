"""The operations of MLX that choose elements, in ONNX."""

from __future__ import annotations

from ..core._mlx import mx
from ._onnx_graph import Builder, Operation, Rows, Unsupported, element_type

__all__ = ["add_gather", "add_gather_axis", "add_slice", "add_split", "add_strided"]

_END = 2**31 - 1
"""An end of a slice that is the end of the array."""


def add_split(b: Builder, o: Operation) -> None:
    """Add the parts of an array along an axis."""
    axis = int(o.arguments[1])
    lengths = [value.shape[axis] for value in o.node.outputs]
    b.op("Split", [o.inputs[0], b.integers(lengths)], o.outputs, axis=axis)


def add_slice(b: Builder, o: Operation) -> None:
    """Add a slice. An end that is the end of an axis stays so for every batch size."""
    start, end, step = o.arguments
    if any(each < 0 for each in step):
        raise Unsupported("with a negative step")
    lengths = o.node.inputs[0].shape
    for axis, each in enumerate(o.input_shapes[0]):
        if isinstance(each, Rows) and end[axis] != lengths[axis] and isinstance(o.shapes[0][axis], Rows):
            raise Unsupported("with an end that follows the batch size")
    ends = [_END if stop == length else stop for stop, length in zip(end, lengths, strict=True)]
    axes = list(range(len(lengths)))
    b.op("Slice", [o.inputs[0], *map(b.integers, (list(start), ends, axes, list(step)))], o.outputs)


def add_gather(b: Builder, o: Operation) -> None:
    """Add the elements at indices along some axes; whole other axes follow the axes of the indices."""
    axes, sizes = list(o.arguments[0]), list(o.arguments[1])
    shape = o.node.inputs[0].shape
    others = [axis for axis in range(len(shape)) if axis not in axes]
    if any(sizes[axis] != shape[axis] for axis in others) or any(sizes[axis] != 1 for axis in axes):
        raise Unsupported("of parts of axes")
    x = b.op("Transpose", [o.inputs[0]], perm=[*axes, *others])
    indices = [b.op("Cast", [name], to=element_type(mx.int64)) for name in o.inputs[1:]]
    if len(axes) == 1:
        found = b.op("Gather", [x, indices[0]], axis=0)
    else:
        columns = [b.op("Unsqueeze", [each, b.integers([-1])]) for each in indices]
        found = b.op("GatherND", [x, b.op("Concat", columns, axis=-1)])
    b.reshaped(found, o.shapes[0], o.outputs)


def add_gather_axis(b: Builder, o: Operation) -> None:
    """Add the elements at indices of their own along one axis."""
    index = b.op("Cast", [o.inputs[1]], to=element_type(mx.int64))
    b.op("GatherElements", [o.inputs[0], index], o.outputs, axis=int(o.arguments[0]))


def add_strided(b: Builder, o: Operation) -> None:
    """Add windows of each row, for example those of a pooling, as elements at indices that are constants."""
    import numpy as np

    shape, strides, offset = o.arguments
    rows, value = o.shapes[0][0] if o.shapes[0] else 1, o.node.inputs[0]
    inner = shape[1:] if rows == Rows(1) else shape
    size = int(np.prod(value.shape))
    per_row = size // shape[0] if rows == Rows(1) else size
    if offset or (rows == Rows(1) and strides[0] != per_row) or any(isinstance(each, Rows) for each in o.shapes[0][1:]):
        raise Unsupported("with windows that reach over several rows")
    grids = np.indices(inner)
    steps = np.array(strides[-len(inner) :]).reshape(-1, *[1] * len(inner))
    flat = b.reshaped(o.inputs[0], (rows, per_row) if rows == Rows(1) else (per_row,))
    b.op("Gather", [flat, b.integers((grids * steps).sum(axis=0))], o.outputs, axis=1 if rows == Rows(1) else 0)
