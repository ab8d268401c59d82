"""The parts of an ONNX graph while it is built: nodes, constants, and shapes that follow the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core._mlx import mx
from ..core._text import dtype_name
from ..core._types import Array
from ._graph import Node

if TYPE_CHECKING:
    import numpy as np
    from onnx import NodeProto, TensorProto, ValueInfoProto

__all__ = ["BatchLength", "Builder", "Operation", "Shape", "Unsupported", "element_type", "value_info"]

_TYPES = {
    "float32": "FLOAT",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "INT32",
    "uint32": "INT64",
    "bool": "BOOL",
}
"""The element types of ONNX. Runtimes compute little with the wider unsigned ones, so these become signed."""


@dataclass(frozen=True, slots=True)
class BatchLength:
    """A length that is a multiple of the batch size."""

    factor: int


Shape = tuple["int | BatchLength", ...]
"""A shape for every batch size."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of MLX, with the shapes of its arrays for every batch size."""

    node: Node
    inputs: tuple[str, ...]
    """The names of the inputs in the ONNX graph."""
    shapes: tuple[Shape, ...]
    """The shapes of the outputs."""
    input_shapes: tuple[Shape, ...]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The options of the operation."""
        return self.node.arguments

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, which are the same in both graphs."""
        return [value.name for value in self.node.outputs]


def element_type(dtype: mx.Dtype) -> int:
    """Return the number of an element type in ONNX; TypeError for a dtype without one."""
    from onnx import TensorProto

    name = dtype_name(dtype)
    if name not in _TYPES:
        raise TypeError(f"ONNX has no element type here for {name}; it has those of {', '.join(_TYPES)}")
    number: int = TensorProto.DataType.Value(_TYPES[name])
    return number


class Unsupported(Exception):
    """An operation of MLX has no counterpart in ONNX here. The message describes its options."""


class Builder:
    """Collect the nodes and the constants of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._count = 0
        self._batch = ""

    def new_name(self) -> str:
        """Return a name that MLX gives to no array."""
        self._count += 1
        return f"onnx_{self._count}"

    def op(self, kind: str, inputs: Sequence[str], outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        from onnx import helper

        names = list(outputs) or [self.new_name()]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def integers(self, values: object) -> str:
        """Add a constant of int64."""
        import numpy as np

        return self.constant(np.array(values, np.int64))

    def constant(self, values: np.ndarray[Any, Any], name: str = "") -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = name or self.new_name()
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def array(self, array: Array, name: str) -> str:
        """Add an array of MLX as a constant."""
        import numpy as np
        from onnx import TensorProto, helper

        if array.dtype == mx.bfloat16:
            raw = np.array(array.view(mx.uint16)).tobytes()
            self.constants.append(helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, raw, raw=True))
            return name
        wider = {mx.uint16: np.int32, mx.uint32: np.int64}.get(array.dtype)
        values = np.array(array)
        return self.constant(values if wider is None else values.astype(wider), name)

    def scalar(self, value: float, like: mx.Dtype) -> str:
        """Add a constant of one element."""
        return self.array(mx.array(value, like), self.new_name())

    def start_batch(self, name: str) -> None:
        """Take the batch size from the first axis of an input."""
        shape = self.op("Shape", [name])
        self._batch = self.op("Slice", [shape, self.integers([0]), self.integers([1])])

    def shape(self, shape: Shape) -> str:
        """Add a shape as int64, which may follow the batch size."""
        if not any(isinstance(length, BatchLength) for length in shape):
            return self.integers([length for length in shape if isinstance(length, int)])
        return self.op("Concat", [self._length(length) for length in shape], axis=0)

    def _length(self, length: int | BatchLength) -> str:
        if not isinstance(length, BatchLength):
            return self.integers([length])
        return self._batch if length.factor == 1 else self.op("Mul", [self._batch, self.integers([length.factor])])

    def reshaped(self, name: str, shape: Shape, outputs: Sequence[str] = ()) -> str:
        """Add a node that reshapes an array."""
        return self.op("Reshape", [name, self.shape(shape)], outputs)


def value_info(name: str, dtype: mx.Dtype, shape: Shape) -> ValueInfoProto:
    """Describe an input or an output of the graph."""
    from onnx import helper

    lengths = [("batch" if each.factor == 1 else None) if isinstance(each, BatchLength) else each for each in shape]
    return helper.make_tensor_value_info(name, element_type(dtype), lengths)
