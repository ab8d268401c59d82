"""Write a function of arrays as an ONNX file, with a free batch size."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core._files import write_whole
from ..core._mlx import mx
from ..core._types import Array, Tree
from ._graph import Graph, Node, Value, graph_of
from ._layout import array_paths
from ._onnx_graph import BatchLength, Builder, Operation, Shape, Unsupported, value_info
from ._onnx_operations import OPERATIONS, SHAPED
from ._parts import part_with
from ._traced import Flat, arguments_of, flat_function, input_paths, require_function

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = ["to_onnx"]

_SIZES = (5, 7)
"""The batch sizes of the two traces. A length that differs between them is a multiple of the batch size."""

_OPSET, _IR_VERSION = 18, 10
_MOST_BYTES = 2**31 - 1
"""The most bytes of a file of protocol buffers."""


def to_onnx(predict: Callable[..., Tree], example: Tree, path: str | os.PathLike[str]) -> Path:
    """Write a function of arrays as an ONNX file, with a free batch size.

    The batch size is the length of the first axis of the first array. Each other argument with as long a first axis has
    the batch size there, too. The parameters of a predictor are constants in the file. uint32 and uint16 become int64
    and int32, with which runtimes can compute. The extra `onnx` is needed.

    Args:
        predict: A function of arrays in evaluation mode, such as `nn.predictor` makes.
        example: Its arguments: a dict by name, a tuple by position, anything else as the one argument.
        path: The file. A leading `~` is the home folder of the user. The file is written whole or not at all.

    Returns:
        The path of the file.

    Raises:
        ImportError: onnx is missing. The error names the extra to install.
        NotImplementedError: The function contains an operation without counterpart; the message names it, and the
            layer that uses it where that is known.
        ValueError: The computation depends on the batch size in another way than by lengths that are its multiples, or
            the weights have 2 GiB or more.

    >>> import tempfile
    >>> from mlx_fp import nn
    >>> model = nn.linear(3, 2)
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> to_onnx(predict, mx.ones((4, 3)), tempfile.mkdtemp() + "/model.onnx").name  # doctest: +SKIP
    'model.onnx'
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("ONNX files need onnx: pip install 'mlx-fp[onnx]'") from error
    require_function(predict, "to_onnx")
    function = flat_function(predict, arguments_of(example))
    arrays = function.arrays(function.arguments, "example")
    with mx.stream(mx.Device(mx.cpu)):  # on GPUs MLX has further operations, each for several of these
        mx.eval(function(*arrays))
        inputs = [_resized(arrays, size) for size in _SIZES]
        graphs = [graph_of(function, each) for each in inputs]
        model = _model(function, graphs[0], graphs[1], inputs[0])
    onnx.checker.check_model(model)
    return write_whole(path, model.SerializeToString())


def _resized(arrays: Sequence[Array], size: int) -> list[Array]:
    """Return arrays with another batch size."""
    rows = arrays[0].shape[0] if arrays and arrays[0].ndim else None
    return [mx.zeros((size, *a.shape[1:]), a.dtype) if a.ndim and a.shape[0] == rows else a for a in arrays]


def _model(function: Flat, graph: Graph, other: Graph, arrays: Sequence[Array]) -> ModelProto:
    """Return the ONNX model of a function from its graphs at two batch sizes."""
    from onnx import helper

    pairs = _pairs(graph, other)
    _check_constants(graph, other)
    inputs, outputs = input_paths(function.arguments), array_paths(function.results[0], "output")
    names = {value.name: name for value, name in zip(graph.inputs, inputs, strict=True)}
    builder = Builder()
    batched = [i for i, value in enumerate(graph.inputs) if value.shape != other.inputs[i].shape]
    if batched:
        builder.start_batch(inputs[batched[0]])
    for name, array in graph.constants:
        builder.array(array, name)
    for node, twin in pairs:
        _add_operation(builder, function, arrays, _operation(node, twin, names))
    for value, name in zip(graph.outputs, outputs, strict=True):
        builder.op("Identity", [names.get(value.name, value.name)], [name])
    described = helper.make_graph(
        builder.nodes,
        "mlx_fp",
        _value_infos(graph.inputs, other.inputs, inputs),
        _value_infos(graph.outputs, other.outputs, outputs),
        builder.constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(described, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="mlx_fp")


def _add_operation(builder: Builder, function: Flat, arrays: Sequence[Array], operation: Operation) -> None:
    """Add the nodes of an operation; NotImplementedError names the layer where there are none."""
    primitive = operation.node.primitive
    try:
        if primitive not in OPERATIONS:
            raise Unsupported("")
        OPERATIONS[primitive](builder, operation)
    except Unsupported as error:
        part = part_with(primitive, function, arrays)
        raise NotImplementedError(
            f"the operation {f'{primitive} {error}'.strip()} has no counterpart in ONNX here"
            f"{f', and {part} uses it' if part else ''}: compute it with other operations, or outside of the file"
        ) from None


def _pairs(graph: Graph, other: Graph) -> list[tuple[Node, Node]]:
    """Return the nodes of two graphs side by side."""
    one, two = ([len(each.constants), *(node.primitive for node in each.nodes)] for each in (graph, other))
    if one != two:
        raise ValueError("the batch size decides which operations the function has: ONNX needs the same for all sizes")
    return list(zip(graph.nodes, other.nodes, strict=True))


def _operation(node: Node, twin: Node, names: dict[str, str]) -> Operation:
    """Describe an operation for every batch size."""
    fixed, others = (_fixed_arguments(each) for each in (node, twin))
    if fixed != others:
        raise ValueError(f"the batch size is a number in the operation {node.primitive}: {fixed} and {others}")
    return Operation(
        node,
        tuple(names.get(value.name, value.name) for value in node.inputs),
        tuple(_shape(one, two, node) for one, two in zip(node.outputs, twin.outputs, strict=True)),
        tuple(_shape(one, two, node) for one, two in zip(node.inputs, twin.inputs, strict=True)),
    )


def _fixed_arguments(node: Node) -> tuple[object, ...]:
    """Return the arguments that are the same for every batch size."""
    if node.primitive in ("Slice", "Arange"):
        return node.arguments[::2]  # the start and the step
    if node.primitive == "AsStrided":
        return node.arguments[1:]
    if node.primitive == "Gather":
        return node.arguments[:1]
    return () if node.primitive in SHAPED else node.arguments


def _shape(one: Value, two: Value, node: Node | None = None) -> Shape:
    """Return the shape of an array for every batch size."""
    where = f" in the operation {node.primitive}" if node else ""
    return tuple(_length(a, b, where) for a, b in zip(one.shape, two.shape, strict=True))


def _length(one: int, two: int, where: str) -> int | BatchLength:
    if one == two:
        return one
    factor = one // _SIZES[0]
    if (factor * _SIZES[0], factor * _SIZES[1]) != (one, two):
        raise ValueError(
            f"a length{where} is {one} for {_SIZES[0]} rows and {two} for {_SIZES[1]}: in ONNX it has to be a multiple "
            "of the batch size"
        )
    return BatchLength(factor)


def _value_infos(values: Sequence[Value], others: Sequence[Value], names: Sequence[str]) -> list[ValueInfoProto]:
    rows = zip(values, others, names, strict=True)
    return [value_info(name, one.dtype, _shape(one, two)) for one, two, name in rows]


def _check_constants(graph: Graph, other: Graph) -> None:
    """Raise ValueError where a constant depends on the batch size, or where there are too many bytes."""
    if sum(array.nbytes for _, array in graph.constants) >= _MOST_BYTES:
        raise ValueError("the weights have 2 GiB or more, and an ONNX file of one piece has less; export them to MLX")
    for (_, one), (_, two) in zip(graph.constants, other.constants, strict=True):
        if one.shape != two.shape or (one.size == 1 and not mx.array_equal(one, two, equal_nan=True).item()):
            raise ValueError(
                f"a constant depends on the batch size: {one.tolist() if one.size == 1 else one.shape} for "
                f"{_SIZES[0]} rows, {two.tolist() if two.size == 1 else two.shape} for {_SIZES[1]}, as in a mean over "
                "the rows"
            )
