"""The report of dtypes: the place where float32 enters a narrow step, and nothing where it is on purpose."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import bits
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.ones((2, 4))


def mean(model, x):
    return model(x).mean()


def report(model, x=X, params=None, loss=mean, **options):
    step = fp.train_step(model, loss, optim.sgd(0.1), **options)
    return fp.dtypes(x, params=params)(step)


def narrow_params(model):
    return tree_map(lambda p: p.astype(mx.bfloat16), nn.init(0)(model))


def by_path(found):
    return {row.path: row for row in found.rows}


def constant(x):
    return x + mx.array([1.0])


def test_a_narrow_step_without_accident_has_no_warning():
    model = nn.sequential(
        nn.linear(4, 8), nn.layer_norm(8), nn.gelu, nn.residual(nn.linear(8, 8)), head=nn.linear(8, 2)
    )
    found = report(model, dtype=mx.bfloat16)
    assert found.warnings == ()
    assert found.dtype == "bfloat16"
    assert {row.outputs for row in found.rows} == {("bfloat16",)}
    paths = ["", "layers.0", "layers.1", "layers.2", "layers.3", "layers.3.layers.0", "head"]
    assert [row.path for row in found.rows] == paths


def test_a_float32_constant_is_found_by_path_with_the_bytes_that_follow():
    model = nn.sequential(nn.linear(4, 8), constant, nn.linear(8, 8), nn.linear(8, 2))
    found = report(model, dtype=mx.bfloat16)
    assert found.warnings == (
        "layers.1 (constant) returns float32 for bfloat16 inputs",
        f"3 parts return float32: {4 * (16 + 16 + 4)} B of outputs",
    )
    assert by_path(found)["layers.1"].wide_bytes == 64
    assert str(found).endswith(f"warning: {found.warnings[1]}")


def test_code_between_the_parts_is_found():
    glue = nn.define(lambda m, x: m.b(m.a(x) * mx.array([2.0])), a=nn.linear(4, 4), b=nn.linear(4, 4))
    found = report(nn.sequential(body=glue), dtype=mx.bfloat16)
    assert found.warnings[0] == (
        "body.b (Linear) is the first part with float32 inputs: the code between the parts has made them"
    )
    last = nn.define(lambda m, x: m.a(x) * mx.array([2.0]), a=nn.linear(4, 4))
    assert report(nn.sequential(body=last), dtype=mx.bfloat16).warnings[0] == (
        "body (<lambda>) returns float32 for bfloat16 inputs".replace("<lambda>", last.name)
    )


class Inner(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [mlx_nn.Linear(8, 4)]

    def __call__(self, x):
        return self.layers[0](x)


class Block(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = mlx_nn.LayerNorm(4), mlx_nn.Linear(4, 8), Inner()
        self._scale = mx.array([2.0])

    def __call__(self, x):
        return self.down(self.up(self.norm(x)) * self._scale)


def test_modules_inside_a_lifted_module_have_paths():
    found = report(nn.sequential(block=nn.lift(Block)), dtype=mx.bfloat16)
    rows = by_path(found)
    assert [row.path for row in found.rows] == [
        "",
        "block",
        "block.norm",
        "block.up",
        "block.down",
        "block.down.layers.0",
    ]
    assert rows["block.up"].outputs == ("bfloat16",)
    assert rows["block.down"].inputs == ("float32",)
    assert found.warnings[0].startswith("block.down.layers.0 (Linear) is the first part with float32 inputs")


@pytest.mark.parametrize("case", ["a narrow step", "narrow parameters"])
def test_wide_parts_are_on_purpose(case):
    model = nn.sequential(nn.linear(4, 4), nn.wide(nn.sequential(nn.layer_norm(4), constant)), head=nn.linear(4, 2))
    if case == "a narrow step":
        found = report(model, dtype=mx.bfloat16)
    else:
        found = report(model, X.astype(mx.bfloat16), narrow_params(model))
    assert found.warnings == ()
    assert by_path(found)["layers.1.layers.1"].wide
    assert by_path(found)["layers.1.layers.1"].outputs == ("float32",)


def test_a_wide_part_that_widens_the_next_one_is_named():
    model = nn.sequential(nn.wide(nn.linear(4, 4), narrow_outputs=False), nn.linear(4, 2))
    found = report(model, dtype=mx.bfloat16)
    assert found.warnings[0].endswith("layers.0 (wide(Linear)) is nn.wide and returns float32")
    head = nn.sequential(nn.linear(4, 4), nn.wide(nn.linear(4, 2), narrow_outputs=False))
    assert report(head, dtype=mx.bfloat16).warnings == ()


def test_a_float32_batch_of_a_model_with_narrow_parameters_is_named():
    model = nn.sequential(nn.linear(4, 8), nn.linear(8, 2))
    found = report(model, X, narrow_params(model))
    assert found.dtype == "bfloat16"
    assert found.warnings[0].endswith("the batch is float32; cast it, or give the step dtype=")
    assert report(model, X.astype(mx.bfloat16), narrow_params(model)).warnings == ()


def test_float32_parameters_in_a_narrow_model_are_named():
    model = nn.sequential(nn.linear(4, 32), nn.linear(32, 2))
    params = narrow_params(model)
    params["layers"][1]["weight"] = params["layers"][1]["weight"].astype(mx.float32)
    found = report(model, X.astype(mx.bfloat16), params)
    assert found.warnings[0] == (
        "layers.1 (Linear) returns float32 for bfloat16 inputs, because it has float32 parameters"
    )


def test_a_step_in_float32_has_rows_and_no_warning():
    found = report(nn.sequential(nn.linear(4, 8), constant))
    assert (found.dtype, found.warnings) == (None, ())
    assert [row.outputs for row in found.rows] == [("float32",)] * 3
    assert found.to_dict()["rows"][1]["parameters"] == ("float32",)


def test_nothing_is_computed_and_the_step_stays_as_it_was():
    model = nn.sequential(nn.lift(Block), nn.remat(nn.linear(4, 2)), nn.dropout(0.5))
    step = fp.train_step(model, mean, optim.sgd(0.1), dtype=mx.bfloat16)
    params, opt_state = step.init(0)
    mx.random.seed(3)
    before = bits(mx.random.state)
    active = mx.get_active_memory()
    fp.dtypes(mx.broadcast_to(mx.array(1.0), (1 << 20, 4)))(step)
    assert mx.get_active_memory() - active < 1 << 20
    assert bits(mx.random.state) == before
    assert step.traces == 0
    assert type(nn.lower(model, params)) is not None
    assert step(params, opt_state, X)[2]["loss"].item() is not None


def test_named_parts_and_several_calls_have_rows():
    model = nn.sequential(encode=nn.linear(4, 4), head=nn.linear(4, 2))

    def loss(model, x):
        return model.head(model.encode(x)).mean() + model(x).mean()

    found = report(model, loss=loss, dtype=mx.bfloat16)
    assert [row.path for row in found.rows].count("head") == 2
    assert found.warnings == ()


def test_another_step_is_refused():
    with pytest.raises(TypeError, match=r"dtypes takes a step of fp.train_step; got int"):
        fp.dtypes(X)(3)
