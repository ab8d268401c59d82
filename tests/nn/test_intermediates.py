"""The outputs of parts by path."""

from __future__ import annotations

import re

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close

import mlx_fp as fp
from mlx_fp import nn

X = mx.random.normal((4, 3), key=mx.random.key(0))


def model():
    return nn.sequential(enc=nn.sequential(nn.linear(3, 5), nn.relu), drop=nn.dropout(0.9), head=nn.linear(5, 2))


def test_all_parts_by_path_and_the_model_itself():
    params = nn.init(0)(model())
    outputs = fp.intermediates()(model())(params, X)
    assert list(outputs) == ["", "enc", "enc.layers.0", "enc.layers.1", "drop", "head"]
    inner = params["enc"]["layers"][0]
    by_hand = X @ inner["weight"].T + inner["bias"]
    assert_close(outputs["enc.layers.0"], by_hand)
    assert_close(outputs["drop"], mx.maximum(by_hand, 0))
    assert_close(outputs[""], nn.predictor(params)(model())(X))


def test_chosen_parts_and_a_spec_that_matches_none():
    params = nn.init(0)(model())
    assert list(fp.intermediates(["head", re.compile(r"layers\.1$")])(model())(params, X)) == ["enc.layers.1", "head"]
    with pytest.raises(KeyError, match="'haed' matches no part of the model; nearest: head"):
        fp.intermediates("haed")(model())(params, X)


def test_modules_inside_a_lifted_module():
    layer = nn.lift(mlx_nn.Sequential(mlx_nn.Linear(3, 4), mlx_nn.Tanh()))
    outputs = fp.intermediates()(layer)(nn.init(0)(layer), X)
    assert list(outputs) == ["", "layers.0", "layers.1"]
    assert_close(outputs["layers.1"], mx.tanh(outputs["layers.0"]))


def test_a_part_that_is_called_twice():
    layer = nn.define(lambda m, x: m.body(m.body(x)), body=nn.linear(3, 3))
    outputs = fp.intermediates("body")(layer)(nn.init(0)(layer), X)
    assert list(outputs) == ["body", "body[1]"]
    assert_close(outputs["body[1]"], fp.intermediates("body")(layer)(nn.init(0)(layer), outputs["body"])["body"])


def test_it_compiles_and_has_gradients():
    layer, params = model(), nn.init(0)(model())
    run = fp.intermediates("enc")(layer)
    assert_close(mx.compile(run)(params, X), run(params, X))
    slope = mx.grad(lambda x: run(params, x)["enc"].sum())(X)
    assert slope.shape == X.shape
    assert mx.abs(slope).sum().item() > 0
