"""The operations of MLX that choose elements, in ONNX."""

from __future__ import annotations

from ..core._mlx import mx
from ._onnx_graph import BatchLength, Builder, Operation, Unsupported, element_type

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
        if isinstance(each, BatchLength) and end[axis] != lengths[axis] and isinstance(o.shapes[0][axis], BatchLength):
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
    is_batched = bool(shape) and o.shapes[0][0] == BatchLength(1)
    size, inner = int(np.prod(o.node.inputs[0].shape)), shape[1:] if is_batched else shape
    row_size = size // shape[0] if is_batched else size
    reaches_over = any(isinstance(length, BatchLength) for length in o.shapes[0][is_batched:])
    if offset or reaches_over or (is_batched and strides[0] != row_size):
        raise Unsupported("with windows that reach over several rows")
    steps = np.array(strides[is_batched:]).reshape(-1, *[1] * len(inner))
    rows = b.reshaped(o.inputs[0], (BatchLength(1), row_size) if is_batched else (row_size,))
    b.op("Gather", [rows, b.integers((np.indices(inner) * steps).sum(axis=0))], o.outputs, axis=int(is_batched))
