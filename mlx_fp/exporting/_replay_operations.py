"""The operations of MLX as calls of its public functions: one function for each, which computes a node of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeAlias

from ..core._mlx import mx
from ..core._types import Array
from ._graph import Node

__all__ = ["REPLAYS", "Replay"]

Replay: TypeAlias = Callable[[Node, Sequence[Array]], Any]
"""`replay(node, inputs)`: the outputs of a node."""

_SAME = {
    **{name: name.lower() for name in ("Abs", "Add", "Ceil", "Conjugate", "Contiguous", "Cos", "Cosh", "Divide")},
    **{name: name.lower() for name in ("DivMod", "Erf", "ErfInv", "Exp", "Expm1", "Floor", "Greater", "Imag", "Less")},
    **{name: name.lower() for name in ("Log1p", "LogAddExp", "Matmul", "Maximum", "Minimum", "Multiply", "Negative")},
    **{name: name.lower() for name in ("Power", "Real", "Remainder", "Round", "Sigmoid", "Sign", "Sin", "Sinh")},
    **{name: name.lower() for name in ("Square", "Subtract", "Tan", "Tanh")},
    **{f"Arc{name}": f"arc{name.lower()}" for name in ("Cos", "Cosh", "Sin", "Sinh", "Tan", "Tan2", "Tanh")},
    "FloorDivide": "floor_divide",
    "GreaterEqual": "greater_equal",
    "LessEqual": "less_equal",
    "LogicalAnd": "logical_and",
    "LogicalNot": "logical_not",
    "LogicalOr": "logical_or",
    "NotEqual": "not_equal",
    "Select": "where",
    "StopGradient": "stop_gradient",
    "BitwiseInvert": "bitwise_invert",
}
"""The operations that are one function of the same inputs: `{operation: function}`."""

functions: Any = mx
"""MLX without the types of its stubs, which know no calls with a sequence of arrays."""

_REDUCTIONS = ("all", "any", "sum", "prod", "min", "max")
_SCANS = ("cummax", "cummin", "cumsum", "cumprod", "logcumsumexp")
_LOGARITHMS = ("log2", "log10", "log")
_BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift")
_TRANSFORMS = {(False, False): "fftn", (True, False): "ifftn", (False, True): "rfftn", (True, True): "irfftn"}
_SCATTERS = ("maximum", "minimum", "add", "multiply")
"""The names of functions by the number that MLX gives to a kind."""


def _named(name: str) -> Any:
    return attrgetter(name)(functions)


def _same_inputs(name: str) -> Replay:
    return lambda node, xs: _named(_SAME[name])(*xs)


def _along(name: str) -> Replay:
    """Replay a function whose last argument is its axis."""
    return lambda node, xs: _named(name)(xs[0], *node.arguments[:-1], axis=node.arguments[-1])


def _reshape(node: Node, xs: Sequence[Array]) -> Any:
    return functions.reshape(xs[0], node.outputs[0].shape)


def _broadcast_to(node: Node, xs: Sequence[Array]) -> Any:
    return functions.broadcast_to(xs[0], node.outputs[0].shape)


def _strided(node: Node, xs: Sequence[Array]) -> Any:
    shape, strides, offset = node.arguments
    return functions.as_strided(xs[0], shape, strides, offset)


def _reduce(node: Node, xs: Sequence[Array]) -> Any:
    kind, axes = node.arguments
    return _named(_REDUCTIONS[kind])(xs[0], axis=list(axes), keepdims=True)


def _arg_reduce(node: Node, xs: Sequence[Array]) -> Any:
    kind, axis = node.arguments[:2]
    return (functions.argmax if kind else functions.argmin)(xs[0], axis=axis, keepdims=True)


def _scan(node: Node, xs: Sequence[Array]) -> Any:
    kind, axis, reverse, inclusive = node.arguments
    return _named(_SCANS[kind])(xs[0], axis=axis, reverse=reverse, inclusive=inclusive)


def _convolution(node: Node, xs: Sequence[Array]) -> Any:
    strides, low, high, dilation, input_dilation, groups, flip = node.arguments
    return functions.conv_general(*xs, strides, (list(low), list(high)), dilation, input_dilation, groups, flip)


def _pad_sides(node: Node, xs: Sequence[Array]) -> Any:
    axes, low, high = node.arguments
    sides = dict(zip(axes, zip(low, high, strict=True), strict=True))
    return functions.pad(xs[0], [sides.get(axis, (0, 0)) for axis in range(xs[0].ndim)], constant_values=xs[1])


def _slices(node: Node) -> tuple[slice, ...]:
    return tuple(slice(*each) for each in zip(*node.arguments[-3:], strict=True))


def _slice_update(node: Node, xs: Sequence[Array]) -> Any:
    copy = functions.array(xs[0])
    copy[_slices(node)] = xs[1]
    return copy


def _gather(node: Node, xs: Sequence[Array]) -> Any:
    axes, sizes = node.arguments
    source, indices = xs[0], xs[1:]
    others = [axis for axis in range(source.ndim) if axis not in axes]
    if any(sizes[axis] != source.shape[axis] for axis in others) or any(sizes[axis] != 1 for axis in axes):
        raise ValueError("a gather of parts of axes")
    return functions.reshape(functions.transpose(source, [*axes, *others])[tuple(indices)], node.outputs[0].shape)


def _scatter(node: Node, xs: Sequence[Array]) -> Any:
    kind, axes = node.arguments
    target, indices, updates = xs[0], tuple(xs[1:-1]), xs[-1]
    rest = target.shape[len(axes) :]
    if list(axes) != list(range(len(axes))) or updates.shape[updates.ndim - len(rest) :] != rest:
        raise ValueError("a scatter to parts of axes")
    values = functions.reshape(updates, (*updates.shape[: updates.ndim - target.ndim], *rest))
    if kind < len(_SCATTERS):
        return getattr(target.at[indices], _SCATTERS[kind])(values)
    copy = functions.array(target)
    copy[indices] = values
    return copy


def _scatter_axis(node: Node, xs: Sequence[Array]) -> Any:
    """Replay an assignment along an axis, or a sum of values as the derivative of `mx.take_along_axis`."""
    kind, axis = node.arguments
    if kind:
        return functions.put_along_axis(xs[0], xs[1], xs[2], axis)
    return functions.vjp(lambda x: functions.take_along_axis(x, xs[1], axis), [xs[0]], [xs[2]])[1][0]


def _random_bits(node: Node, xs: Sequence[Array]) -> Any:
    """Replay the bits of one key as new keys, which are its bits; bits of an odd number are other ones."""
    shape, width = node.arguments
    if width != 4 or xs[0].shape != (2,):
        raise ValueError("random bits of several keys or of another width")
    count = prod(shape)
    keys = functions.random.split(xs[0], max(1, -(-count // 2)))
    return functions.reshape(functions.reshape(keys, (-1,))[:count], node.outputs[0].shape)


def _transform(node: Node, xs: Sequence[Array]) -> Any:
    axes, inverse, real = node.arguments[:3]
    lengths = [node.outputs[0].shape[axis] for axis in axes]
    name = _TRANSFORMS[inverse, real]
    return _named(f"fft.{name}")(xs[0], s=lengths if name == "irfftn" else None, axes=list(axes))


def _quantized_matmul(node: Node, xs: Sequence[Array]) -> Any:
    return functions.quantized_matmul(*xs, **_quantization(node))


def _gather_quantized(node: Node, xs: Sequence[Array]) -> Any:
    options = {**_quantization(node), "sorted_indices": any(node.arguments[4:])}
    return functions.gather_qmm(*xs[:4], lhs_indices=xs[4], rhs_indices=xs[5], **options)


def _quantization(node: Node) -> dict[str, Any]:
    size, bits, mode, transpose = node.arguments[:4]
    if mode:
        raise ValueError("a product with weights that are quantised in another way than with scales and biases")
    return {"group_size": size, "bits": bits, "transpose": transpose}


REPLAYS: Mapping[str, Replay] = MappingProxyType(
    {
        **{name: _same_inputs(name) for name in _SAME},
        **dict.fromkeys(("Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"), _reshape),
        **dict.fromkeys(
            ("Broadcast", "BroadcastAxes"), lambda node, xs: functions.broadcast_to(xs[0], node.outputs[0].shape)
        ),
        **{name: _along(name.lower()) for name in ("Sort", "ArgSort", "Partition", "ArgPartition")},
        "AddMM": lambda node, xs: functions.addmm(xs[2], xs[0], xs[1], *node.arguments),
        "Arange": lambda node, xs: functions.arange(*node.arguments, dtype=node.outputs[0].dtype),
        "ArgReduce": _arg_reduce,
        "AsStrided": _strided,
        "AsType": lambda node, xs: xs[0].astype(node.outputs[0].dtype),
        "BitwiseBinary": lambda node, xs: _named(_BITWISE[node.arguments[0]])(*xs),
        "Concatenate": lambda node, xs: functions.concatenate(list(xs), axis=node.arguments[0]),
        "Convolution": _convolution,
        "Copy": lambda node, xs: functions.contiguous(xs[0]),
        "Depends": lambda node, xs: list(xs[: len(node.outputs)]),
        "Equal": lambda node, xs: functions.equal(*xs),
        "FFT": _transform,
        "Full": lambda node, xs: functions.full(node.outputs[0].shape, xs[0], node.outputs[0].dtype),
        "Gather": _gather,
        "GatherQMM": _gather_quantized,
        "GatherMM": lambda node, xs: functions.gather_mm(*xs, sorted_indices=any(node.arguments)),
        "GatherAxis": lambda node, xs: functions.take_along_axis(*xs, axis=node.arguments[0]),
        "Log": lambda node, xs: _named(_LOGARITHMS[node.arguments[0]])(*xs),
        "LogSumExp": lambda node, xs: functions.logsumexp(xs[0], axis=-1, keepdims=True),
        "Pad": _pad_sides,
        "QuantizedMatmul": _quantized_matmul,
        "RandomBits": _random_bits,
        "Reduce": _reduce,
        "Scan": _scan,
        "Scatter": _scatter,
        "ScatterAxis": _scatter_axis,
        "Slice": lambda node, xs: xs[0][_slices(node)],
        "SliceUpdate": _slice_update,
        "Softmax": lambda node, xs: functions.softmax(xs[0], axis=-1, precise=node.arguments[0]),
        "Split": lambda node, xs: functions.split(xs[0], list(node.arguments[0]), axis=node.arguments[1]),
        "Sqrt": lambda node, xs: (functions.rsqrt if node.arguments[0] else functions.sqrt)(xs[0]),
        "Transpose": lambda node, xs: functions.transpose(xs[0], list(node.arguments[0])),
        "View": lambda node, xs: functions.view(xs[0], node.outputs[0].dtype),
    }
)
"""The functions `replay(node, inputs)` by the names of the operations of MLX."""
