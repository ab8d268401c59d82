"""What a model is made of: the counts are those of its parameters, whatever it is made of."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest

import mlx_fp as fp
from mlx_fp import nn

MODEL = nn.sequential(
    nn.sequential(nn.conv2d(1, 4, 3), nn.batch_norm(4), nn.relu),
    nn.fn(lambda x: x.mean(axis=(1, 2))),
    nn.define(
        lambda m, x: m.proj(x) * m.scale, proj=nn.linear(4, 4), scale=nn.param(4), n=nn.buffer((), dtype=mx.int32)
    ),
    body=nn.residual(nn.stack(2, nn.linear, 4, 4)),
    head=nn.remat(nn.linear(4, 2)),
)

MODELS = {
    "layers of every kind": MODEL,
    "frozen in part": nn.freeze("body")(MODEL),
    "frozen": nn.frozen(MODEL),
    "all frozen but one": nn.unfreeze("head.bias")(nn.freeze()(MODEL)),
    "a buffer thawed": nn.unfreeze("layers.2.n")(MODEL),
    "one layer": nn.linear(4, 2),
    "no parameters": nn.sequential(nn.relu, nn.dropout(0.5)),
    "nothing": nn.sequential(),
    "transformer": nn.transformer(8, 2, 1, 2, 16),
    "inside a transformer": nn.freeze("encoder.layers.0.attention")(nn.transformer(8, 2, 1, 2, 16)),
    "a module": nn.split(mlx_nn.Sequential(mlx_nn.Linear(2, 2), mlx_nn.BatchNorm(2)))[0],
    "shared": nn.share(3, nn.sequential(nn.linear(4, 4))),
    "lstm": nn.sequential(nn.lstm(4, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_the_parameters(name):
    model = MODELS[name]
    params = nn.init(0)(model)
    kept, _ = fp.partition(model.trainable(params))(params)
    found = nn.summary(model)
    assert found.count == fp.size(params) == sum(row.count for row in found.rows)
    assert found.trainable == fp.size(kept) == sum(row.trainable for row in found.rows)
    spelled = {f"{row.path}.{array}".lstrip("."): shape for row in found.rows for array, shape in row.shapes.items()}
    assert spelled == {path: tuple(leaf.shape) for path, leaf in fp.flat(params).items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_dict_is_json_and_comes_back_the_same(name):
    found = nn.summary(MODELS[name])
    back = json.loads(json.dumps(found.to_dict()))
    assert back == found.to_dict()
    assert (back["count"], back["trainable"]) == (found.count, found.trainable)
    assert [(r["path"], r["name"], r["count"], r["trainable"]) for r in back["rows"]] == [
        (r.path, r.name, r.count, r.trainable) for r in found.rows
    ]
    assert [{k: tuple(v) for k, v in r["shapes"].items()} for r in back["rows"]] == [r.shapes for r in found.rows]


def test_the_rows_of_a_table():
    model = nn.freeze("head")(nn.sequential(nn.linear(40, 80), nn.relu, head=nn.linear(80, 2)))
    lines = [line.split() for line in str(nn.summary(model)).splitlines()]
    assert lines == [
        ["path", "layer", "arrays", "dtype", "count", "trainable", "bytes"],
        ["layers.0", "Linear", "weight", "80×40", "bias", "80", "float32", "3,280", "3,280", "13.1", "KB"],
        ["layers.1", "ReLU", "0", "0", "0", "B"],
        ["head", "Linear", "weight", "2×80", "bias", "2", "float32", "162", "0", "648", "B"],
        ["total", "3,442", "3,280", "13.8", "KB"],
    ]
    widths = {len(line) for line in str(nn.summary(model)).splitlines()}
    assert len(widths) == 1


def test_the_root_and_a_scalar_have_names_in_a_table():
    lines = str(nn.summary(nn.define(lambda m, x: x, scale=nn.param(())))).splitlines()
    assert lines[1].split() == [".", "define", "scale", "()", "float32", "1", "1", "4", "B"]


def test_a_row_for_each_part_in_order():
    assert [(row.path, row.name) for row in nn.summary(MODEL).rows] == [
        ("layers.0.layers.0", "Conv2d"),
        ("layers.0.layers.1", "BatchNorm"),
        ("layers.0.layers.2", "ReLU"),
        ("layers.1", "<lambda>"),
        ("layers.2", "define"),
        ("layers.2.proj", "Linear"),
        ("body.layers.0.layers.0", "Linear"),
        ("body.layers.0.layers.1", "Linear"),
        ("head", "remat(Linear)"),
    ]


def test_inside_a_transformer_there_is_a_row_for_each_module_with_arrays():
    rows = {row.path: row for row in nn.summary(nn.transformer(8, 2, 1, 2, 16)).rows}
    assert rows["encoder.layers.0.attention.query_proj"].shapes == {"weight": (8, 8)}
    assert rows["decoder.layers.1.linear1"].shapes == {"weight": (16, 8), "bias": (16,)}
    assert rows["encoder.ln"].count == 16


def test_a_summary_is_a_frozen_record_and_computes_nothing():
    found = nn.summary(nn.linear(10_000, 10_000))
    assert found.count == 100_010_000
    with pytest.raises(FrozenInstanceError):
        found.count = 1
    with pytest.raises(FrozenInstanceError):
        found.rows[0].count = 1


def test_a_summary_does_not_move_the_stream():
    mx.random.seed(1)
    nn.summary(MODEL)
    drawn = mx.random.uniform().item()
    mx.random.seed(1)
    assert drawn == mx.random.uniform().item()


# other targets than a layer


def test_a_module_a_trainer_and_a_layer_have_the_same_summary():
    module = mlx_nn.Sequential(mlx_nn.Linear(4, 8), mlx_nn.ReLU(), mlx_nn.Linear(8, 2))
    model = nn.lift(module)
    trainer = fp.trainer(model, fp.classification())
    assert nn.summary(module) == nn.summary(model) == nn.summary(trainer)
    assert nn.summary(fp.freeze("layers.0")(trainer)).trainable == 18


def test_parameters_are_described_with_their_model():
    model = nn.linear(4, 2)
    params = nn.init(0)(model)
    assert nn.summary(model, params) == nn.summary(model)
    with pytest.raises(ValueError, match=r"weight is \(2, 4\), given \(2, 5\)"):
        nn.summary(model, nn.init(0)(nn.linear(5, 2)))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"weight": mx.ones((2, 2))}, "got dict: for parameters, give their model, too: nn.summary(model, params)"),
        ([mx.ones(2)], "got list: for parameters, give their model"),
        (mx.ones(2), "summary takes a Layer; got array"),
        (mlx_nn.Linear, "summary takes a Layer; got type: lift or split it"),
        (nn.relu, "summary takes a Layer; got Activation: lift or split it"),
    ],
)
def test_what_is_no_model_is_an_error_with_the_remedy(target, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        nn.summary(target)


# for a batch


def test_each_layer_has_the_shape_of_its_output():
    model = nn.sequential(nn.linear(4, 8), nn.relu, nn.share(2, nn.linear(8, 8)), head=nn.linear(8, 2))
    found = nn.summary(model, batch=mx.zeros((32, 4)))
    assert {row.path: row.output for row in found.rows} == {
        "layers.0": ((32, 8),),
        "layers.1": ((32, 8),),
        "layers.2": ((32, 8),),
        "head": ((32, 2),),
    }
    assert str(found).splitlines()[0].split()[3:] == ["dtype", "output", "count", "trainable", "bytes"]
    assert "32×8" in str(found)
    assert found.to_dict()["rows"][-1]["output"] == [[32, 2]]


def test_several_outputs_several_inputs_and_modules_inside_modules():
    lstm = nn.summary(nn.lstm(4, 3), batch=mx.zeros((2, 5, 4)))
    assert lstm.rows[0].output == ((2, 5, 3), (2, 5, 3))
    x = mx.zeros((2, 5, 8))
    rows = {row.path: row for row in nn.summary(nn.transformer(8, 2, 1, 1, 16), batch=(x, x, None, None, None)).rows}
    assert rows["encoder.layers.0.linear1"].output == ((2, 5, 16),)
    named = nn.fn(lambda a, b: a + b, "sum")
    assert nn.summary(named, batch={"a": mx.zeros(3), "b": mx.zeros(3)}).rows[0].output == ((3,),)


def test_a_trainer_takes_a_batch_as_its_data_give_it():
    trainer = fp.trainer(nn.sequential(body=nn.linear(4, 8), head=nn.linear(8, 2)), fp.classification())
    pair = (mx.zeros((16, 4)), mx.zeros((16,), mx.int32))
    for batch in (pair, {"input": pair[0], "label": pair[1]}):
        assert [row.output for row in fp.summary(trainer, batch=batch).rows] == [((16, 8),), ((16, 2),)]


def test_outputs_are_not_computed():
    row = nn.summary(nn.linear(4, 1_000_000), batch=mx.zeros((1_000_000, 4))).rows[0]
    assert row.output == ((1_000_000, 1_000_000),)


def test_bytes_and_dtypes_are_those_of_the_parameters():
    model = nn.linear(4, 2)
    params = {name: leaf.astype(mx.bfloat16) for name, leaf in nn.init(0)(model).items()}
    found = nn.summary(model, params)
    assert (found.nbytes, found.rows[0].nbytes, dict(found.rows[0].dtypes)) == (
        20,
        20,
        {"weight": "bfloat16", "bias": "bfloat16"},
    )


def test_a_notebook_shows_the_table_with_its_names_escaped():
    found = nn.summary(nn.sequential(body=nn.fn(lambda x: x, "<b>")))
    assert "&lt;b&gt;" in found._repr_html_()
    assert "<b>" not in found._repr_html_()
