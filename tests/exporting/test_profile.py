"""`profile`: the shares of operations, the operations that cannot be computed alone, and the trace."""

import json
from dataclasses import FrozenInstanceError

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.exporting import _replay
from mlx_fp.exporting._graph import graph_of
from mlx_fp.exporting._profile_record import OTHERS, OUTSIDE
from mlx_fp.exporting._replay import replayed
from mlx_fp.exporting._traced import flat_function

LABELS = mx.array([0, 1] * 8)


def loss(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


def case(model, x, optimizer=None, y=LABELS):
    """Return the arguments of `profile`."""
    step = fp.train_step(model, loss, optimizer or pipe(optim.adamw(1e-3), optim.clip_norm(1.0)))
    return step, *step.init(0), (x, y)


class Block(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = mlx_nn.TransformerEncoderLayer(16, 2, 32)

    def __call__(self, x):
        return self.layer(x, None).mean(axis=1)


def mlp():
    model = nn.sequential(nn.linear(8, 32), nn.gelu, nn.dropout(0.1), nn.layer_norm(32), nn.linear(32, 2))
    return case(model, mx.random.normal((16, 8), key=mx.random.key(0)))


def conv():
    flatten = nn.fn(lambda x: x.reshape(x.shape[0], -1), "flatten")
    body = [nn.conv2d(3, 4, 3), nn.batch_norm(4), nn.relu, nn.max_pool2d(2), flatten, nn.linear(36, 2)]
    return case(nn.sequential(*body), mx.random.normal((16, 8, 8, 3), key=mx.random.key(0)), optim.lion(1e-3))


def transformer():
    model = nn.sequential(nn.embedding(20, 16), nn.lift(Block()), nn.linear(16, 2))
    return case(model, mx.random.randint(0, 20, (16, 6), key=mx.random.key(0)))


CASES = pytest.mark.parametrize("make", [mlp, conv, transformer], ids=lambda make: make.__name__)


@CASES
@pytest.mark.usual("mlp")
def test_shares_sum_to_one_and_nothing_is_left_out(make):
    step, params, opt_state, batch = make()
    found = fp.profile(step, params, opt_state, batch, repeats=1)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert sum(row.share for row in found.parts) == pytest.approx(1)
    assert sum(row.milliseconds for row in found.rows) == pytest.approx(found.milliseconds)
    assert [row.milliseconds for row in found.rows] == sorted((row.milliseconds for row in found.rows), reverse=True)
    assert sum(row.calls for row in found.rows) == len(found.calls)
    assert found.others == ()
    assert found.plain > 0
    assert found.compiled > 0


@CASES
@pytest.mark.usual("mlp", "conv")
def test_the_operations_one_after_another_compute_the_step(make):
    step, *arguments = make()
    function = flat_function(step, (tuple(arguments), {}))
    arrays = function.arrays((tuple(arguments), {}), "the call")
    graph = graph_of(function, arrays)
    values = {value.name: x for value, x in zip(graph.inputs, arrays, strict=True)}
    for timed in replayed(graph, arrays, 1):
        values |= {value.name: x for value, x in zip(timed.node.outputs, timed.outputs, strict=True)}
    assert_close([values[value.name] for value in graph.outputs], function(*arrays))


@pytest.mark.slow
def test_products_have_the_largest_share_of_a_wide_mlp():
    model = nn.sequential(nn.linear(512, 512), nn.relu, nn.linear(512, 512))
    found = fp.profile(*case(model, mx.ones((512, 512)), optim.sgd(0.1), mx.zeros((512,), mx.int32)), repeats=3)
    assert found.rows[0].name in ("Matmul", "AddMM")
    assert {call.name for call in found.calls} >= {"Matmul", "AddMM", "Reduce"}


@pytest.mark.slow
def test_operations_of_the_forward_pass_have_their_innermost_part():
    found = fp.profile(*transformer(), repeats=1)
    parts = {row.name: {call.name for call in found.calls if call.part == row.name} for row in found.parts}
    assert "Gather" in parts["layers.0 (Embedding)"]
    assert "Softmax" in parts["layers.1.layer.attention (MultiHeadAttention)"]
    assert parts["layers.1.layer.attention.query_proj (Linear)"] == {"Transpose", "Flatten", "Matmul", "Unflatten"}
    assert {"Scatter", "Sqrt"} <= parts[OUTSIDE]


def test_a_model_that_is_vmapped_is_measured_without_parts():
    def mapped(model, x, y):
        return nn.losses.cross_entropy(mx.vmap(model)(x), y, reduction="mean")

    step = fp.train_step(nn.linear(8, 2), mapped, optim.sgd(0.1))
    found = fp.profile(step, *step.init(0), (mx.ones((16, 8)), LABELS), repeats=1)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert found.others == ()


def test_an_operation_that_cannot_be_computed_alone_is_among_the_others(monkeypatch):
    monkeypatch.setattr(_replay, "REPLAYS", {k: v for k, v in _replay.REPLAYS.items() if k not in ("Erf", "Sqrt")})
    found = fp.profile(*mlp(), repeats=1)
    (others,) = [row for row in found.rows if row.name == OTHERS]
    assert set(found.others) == {"Erf", "Sqrt"}
    assert others.calls > 2
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert "others: " in str(found)


def test_the_trace_is_json_of_events_one_after_another(tmp_path):
    found = fp.profile(*mlp(), repeats=1)
    path = found.save(tmp_path / "trace.json")
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == [call.name for call in found.calls]
    assert all(event["dur"] > 0 for event in events)
    ends = [event["ts"] + event["dur"] for event in events]
    assert [event["ts"] for event in events[1:]] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(1e3 * found.milliseconds)
    assert "float32 (16, 8)" in events[[event["name"] for event in events].index("AddMM")]["args"]["inputs"]


def test_a_profile_is_a_table_html_and_plain_values():
    found = fp.profile(*mlp(), repeats=1)
    lines = str(found).splitlines()
    assert lines[0].split() == ["operation", "calls", "ms", "share"]
    assert lines[1].split()[0] == found.rows[0].name
    assert "The compiled step takes" in str(found)
    assert found.rows[0].name in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["share"] == found.rows[0].share
    with pytest.raises(FrozenInstanceError):
        found.plain = 0.0


def test_the_parameters_stay_as_they_are():
    step, params, opt_state, batch = mlp()
    before = [x.tolist() for x in fp.flat(params).values()]
    fp.profile(step, params, opt_state, batch, repeats=1)
    assert [x.tolist() for x in fp.flat(params).values()] == before


def test_wrong_arguments_are_refused():
    step, params, opt_state, batch = mlp()
    with pytest.raises(TypeError, match=r"takes a training step.*got function"):
        fp.profile(loss, params, opt_state, batch)
    with pytest.raises(TypeError, match="got EvalStep"):
        fp.profile(fp.eval_step(nn.linear(8, 2), loss), params, opt_state, batch)
    with pytest.raises(ValueError, match="repeats is an int of 1 or more; got 0"):
        fp.profile(step, params, opt_state, batch, repeats=0)
