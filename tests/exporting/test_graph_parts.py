"""The parts of the operations of a graph: innermost ones, calls in turn, and values that no result needs."""

import mlx.core as mx

from mlx_fp import nn
from mlx_fp.exporting._graph_parts import graph_with_parts

X = mx.ones((2, 3))


def parts_of(fn, *arrays):
    """List `(operation, part)` of a function."""
    graph, parts = graph_with_parts(fn, arrays)
    assert len(graph.outputs) == 1
    return [(node.primitive, part) for node, part in zip(graph.nodes, parts, strict=True)]


def predictor(model):
    return nn.predictor(nn.init(0)(model))(model)


def test_an_operation_has_the_innermost_part():
    predict = predictor(nn.sequential(body=nn.sequential(nn.fn(mx.tanh), nn.fn(mx.exp)), head=nn.fn(mx.abs)))
    expected = ["body.layers.0 (tanh)", "body.layers.1 (exp)", "head (abs)"]
    assert parts_of(lambda x: [predict(x)], X) == list(zip(["Tanh", "Exp", "Abs"], expected, strict=True))


def test_each_call_of_a_part_counts():
    predict = predictor(nn.sequential(nn.fn(mx.tanh), nn.fn(mx.exp)))
    found = parts_of(lambda x, y: [predict(x) + predict(y)], X, X)
    assert found.count(("Tanh", "layers.0 (tanh)")) == 2
    assert found[-1] == ("Add", "")


def test_values_of_parts_that_no_result_needs_are_left_out():
    predict, other = predictor(nn.sequential(nn.fn(mx.tanh))), predictor(nn.sequential(nn.fn(mx.exp)))

    def fn(x):
        other(x)
        return [predict(x)]

    assert parts_of(fn, X) == [("Tanh", "layers.0 (tanh)")]
