"""The operations of MLX in ONNX: one function for each, which adds nodes to a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..core._mlx import mx
from ._onnx_graph import Builder, Operation, Unsupported, element_type
from ._onnx_indexing import add_gather, add_gather_axis, add_slice, add_split, add_strided

__all__ = ["OPERATIONS", "SHAPED"]

SHAPED = frozenset(
    {"Broadcast", "Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze", "Slice", "AsStrided", "Gather"}
)
"""The operations whose arguments may follow the batch size."""

_SAME = {
    **{
        name: name
        for name in ("Abs", "Ceil", "Cos", "Cosh", "Equal", "Erf", "Exp", "Floor", "Greater", "Less", "Round")
    },
    **{name: name for name in ("Round", "Sigmoid", "Sign", "Sin", "Sinh", "Tan", "Tanh")},
    **{f"Arc{name.title()}": f"A{name}" for name in ("cos", "cosh", "sin", "sinh", "tan", "tanh")},
    "Add": "Add",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Divide": "Div",
    "Negative": "Neg",
    "Power": "Pow",
    "Maximum": "Max",
    "Minimum": "Min",
    "Matmul": "MatMul",
    "Select": "Where",
    "GreaterEqual": "GreaterOrEqual",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "LogicalNot": "Not",
    **dict.fromkeys(("StopGradient", "Copy", "Contiguous", "Full"), "Identity"),
}
"""The operations that are one node with the same inputs: `{MLX: ONNX}`."""

_LOGARITHMS = {0: 2.0, 1: 10.0, 2: math.e}
"""The base of a logarithm by the number that MLX gives it."""


def _same(name: str) -> Callable[[Builder, Operation], object]:
    return lambda b, o: b.op(_SAME[name], o.inputs, o.outputs)


def _reshape(b: Builder, o: Operation) -> None:
    b.reshaped(o.inputs[0], o.shapes[0], o.outputs)


def _broadcast(b: Builder, o: Operation) -> None:
    b.op("Expand", [o.inputs[0], b.shape(o.shapes[0])], o.outputs)


def _square(b: Builder, o: Operation) -> None:
    b.op("Mul", [o.inputs[0], o.inputs[0]], o.outputs)


def _sqrt(b: Builder, o: Operation) -> None:
    if o.arguments[0]:
        b.op("Reciprocal", [b.op("Sqrt", o.inputs)], o.outputs)
    else:
        b.op("Sqrt", o.inputs, o.outputs)


def _log(b: Builder, o: Operation) -> None:
    base = _LOGARITHMS[o.arguments[0]]
    if base == math.e:
        b.op("Log", o.inputs, o.outputs)
    else:
        b.op("Div", [b.op("Log", o.inputs), b.scalar(math.log(base), o.node.outputs[0].dtype)], o.outputs)


def _log1p(b: Builder, o: Operation) -> None:
    b.op("Log", [b.op("Add", [o.inputs[0], b.scalar(1, o.node.outputs[0].dtype)])], o.outputs)


def _expm1(b: Builder, o: Operation) -> None:
    b.op("Sub", [b.op("Exp", o.inputs), b.scalar(1, o.node.outputs[0].dtype)], o.outputs)


def _logaddexp(b: Builder, o: Operation) -> None:
    """Add `max(x, y) + log(1 + exp(-|x - y|))`."""
    power = b.op("Exp", [b.op("Neg", [b.op("Abs", [b.op("Sub", o.inputs)])])])
    rest = b.op("Log", [b.op("Add", [power, b.scalar(1, o.node.outputs[0].dtype)])])
    b.op("Add", [b.op("Max", o.inputs), rest], o.outputs)


def _not_equal(b: Builder, o: Operation) -> None:
    b.op("Not", [b.op("Equal", o.inputs)], o.outputs)


def _bitwise(b: Builder, o: Operation) -> None:
    name = {0: "And", 1: "Or", 2: "Xor"}.get(o.arguments[0])
    if name is None or o.node.outputs[0].dtype != mx.bool_:
        raise Unsupported("of integers")
    b.op(name, o.inputs, o.outputs)


def _floor_divide(b: Builder, o: Operation) -> None:
    if not mx.issubdtype(o.node.outputs[0].dtype, mx.floating):
        raise Unsupported("of integers")
    b.op("Floor", [b.op("Div", o.inputs)], o.outputs)


def _remainder(b: Builder, o: Operation) -> None:
    if not mx.issubdtype(o.node.outputs[0].dtype, mx.floating):
        b.op("Mod", o.inputs, o.outputs)
        return
    whole = b.op("Floor", [b.op("Div", o.inputs)])
    b.op("Sub", [o.inputs[0], b.op("Mul", [whole, o.inputs[1]])], o.outputs)


def _addmm(b: Builder, o: Operation) -> None:
    if tuple(o.arguments) != (1.0, 1.0):
        raise Unsupported(f"with factors {o.arguments}")
    b.op("Add", [b.op("MatMul", o.inputs[:2]), o.inputs[2]], o.outputs)


def _transpose(b: Builder, o: Operation) -> None:
    b.op("Transpose", o.inputs, o.outputs, perm=list(o.arguments[0]))


def _change_type(b: Builder, o: Operation) -> None:
    b.op("Cast", o.inputs, o.outputs, to=element_type(o.node.outputs[0].dtype))


def _reduce(b: Builder, o: Operation) -> None:
    kinds = {2: "ReduceSum", 3: "ReduceProd", 4: "ReduceMin", 5: "ReduceMax"}
    kind, axes = o.arguments[0], b.integers(list(o.arguments[1]))
    if kind in kinds:
        b.op(kinds[kind], [o.inputs[0], axes], o.outputs, keepdims=1)
        return
    as_integers = b.op("Cast", o.inputs, to=element_type(mx.int32))  # all or any of some flags
    result = b.op("ReduceMax" if kind else "ReduceMin", [as_integers, axes], keepdims=1)
    b.op("Cast", [result], o.outputs, to=element_type(mx.bool_))


def _arg_reduce(b: Builder, o: Operation) -> None:
    b.op("ArgMax" if o.arguments[0] else "ArgMin", o.inputs, o.outputs, axis=int(o.arguments[1]), keepdims=1)


def _softmax(b: Builder, o: Operation) -> None:
    b.op("Softmax", o.inputs, o.outputs, axis=-1)


def _logsumexp(b: Builder, o: Operation) -> None:
    b.op("ReduceLogSumExp", [o.inputs[0], b.integers([-1])], o.outputs, keepdims=1)


def _concatenate(b: Builder, o: Operation) -> None:
    b.op("Concat", o.inputs, o.outputs, axis=int(o.arguments[0]))


def _arange(b: Builder, o: Operation) -> None:
    start, stop, step = o.arguments
    value = o.node.outputs[0]
    if isinstance(o.shapes[0][0], int):
        b.array(mx.arange(start, stop, step, dtype=value.dtype), value.name)
        return
    count = b.op("Squeeze", [b.shape(o.shapes[0]), b.integers([0])])
    numbers = b.op("Cast", [b.op("Range", [b.integers(0), count, b.integers(1)])], to=element_type(value.dtype))
    steps = b.op("Mul", [numbers, b.scalar(step, value.dtype)])
    b.op("Add", [steps, b.scalar(start, value.dtype)], o.outputs)


def _scan(b: Builder, o: Operation) -> None:
    kind, axis, reverse, inclusive = o.arguments
    if kind != 2:
        raise Unsupported("of another kind than a sum")
    b.op("CumSum", [o.inputs[0], b.integers(int(axis))], o.outputs, reverse=int(reverse), exclusive=int(not inclusive))


def _pad(b: Builder, o: Operation) -> None:
    axes, low, high = o.arguments
    b.op("Pad", [o.inputs[0], b.integers([*low, *high]), o.inputs[1], b.integers(list(axes))], o.outputs)


def _depends(b: Builder, o: Operation) -> None:
    for name, output in zip(o.inputs, o.outputs, strict=False):
        b.op("Identity", [name], [output])


def _convolution(b: Builder, o: Operation) -> None:
    """Add a convolution; MLX has the channels last, ONNX has them second."""
    strides, low, high, dilation, input_dilation, groups, flip = o.arguments
    dims = len(o.input_shapes[0]) - 2
    space = range(1, dims + 1)
    x = b.op("Transpose", [o.inputs[0]], perm=[0, dims + 1, *space])
    if not flip and all(each == 1 for each in input_dilation):
        weight = b.op("Transpose", [o.inputs[1]], perm=[0, dims + 1, *space])
        options: dict[str, Any] = {
            "strides": list(strides),
            "pads": [*low, *high],
            "dilations": list(dilation),
            "group": int(groups),
        }
        y = b.op("Conv", [x, weight], **options)
    elif flip and groups == 1 and all(each == 1 for each in strides):
        weight = b.op("Transpose", [o.inputs[1]], perm=[dims + 1, 0, *space])
        lengths = [each for each in o.input_shapes[1][1:-1] if isinstance(each, int)]
        spans = [d * (k - 1) for d, k in zip(dilation, lengths, strict=True)]
        pads = [span - pad for ends in (low, high) for span, pad in zip(spans, ends, strict=True)]
        beyond = [max(0, -pad) for pad in pads[dims:]]
        options = {"strides": list(input_dilation), "dilations": list(dilation), "output_padding": beyond}
        y = b.op("ConvTranspose", [x, weight], pads=[*pads[:dims], *(max(0, pad) for pad in pads[dims:])], **options)
    else:
        raise Unsupported(f"with groups {groups}, input dilation {list(input_dilation)} and flip {flip}")
    b.op("Transpose", [y], o.outputs, perm=[0, *range(2, dims + 2), 1])


OPERATIONS: Mapping[str, Callable[[Builder, Operation], object]] = MappingProxyType(
    {
        **{name: _same(name) for name in _SAME},
        **dict.fromkeys(("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"), _reshape),
        "Broadcast": _broadcast,
        "Square": _square,
        "Sqrt": _sqrt,
        "Log": _log,
        "Log1p": _log1p,
        "Expm1": _expm1,
        "LogAddExp": _logaddexp,
        "NotEqual": _not_equal,
        "BitwiseBinary": _bitwise,
        "FloorDivide": _floor_divide,
        "Remainder": _remainder,
        "AddMM": _addmm,
        "Transpose": _transpose,
        "AsType": _change_type,
        "Reduce": _reduce,
        "ArgReduce": _arg_reduce,
        "Softmax": _softmax,
        "LogSumExp": _logsumexp,
        "Concatenate": _concatenate,
        "Arange": _arange,
        "Scan": _scan,
        "Pad": _pad,
        "Depends": _depends,
        "Convolution": _convolution,
        "Split": add_split,
        "Slice": add_slice,
        "Gather": add_gather,
        "GatherAxis": add_gather_axis,
        "AsStrided": add_strided,
    }
)
"""The functions `add(builder, operation)` by the names of the operations of MLX."""
