"""Layers in layers: a hundred deep as they are, and as deep as Python's stack bears."""

from __future__ import annotations

import sys

import mlx.core as mx
import pytest
from helpers import python_process

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.tree._flattening import builder, flattening

USES = """
def used(nest, depth, folder):
    model = nn.linear(2, 2)
    for _ in range(depth):
        model = nest(model)
    params, x = nn.init(0)(model), mx.ones((4, 2))
    assert str(nn.summary(model)).count("weight") == 1 and repr(model)
    y = model.apply(params, x)[0]
    for compile in (True, False):
        assert mx.allclose(nn.predictor(params, compile=compile)(model)(x), y, rtol=1e-4)
    assert mx.allclose(nn.lower(model, params)(x), y, rtol=1e-4)
    for suffix in ("safetensors", "npz"):
        assert fp.flat(fp.load(fp.save(f"{folder}/a.{suffix}")(params)).params).keys() == fp.flat(params).keys()
    trainer = fp.trainer(model, lambda model, x: model(x).square().mean())
    trainer = fp.checkpoints(f"{folder}/ep-{{epoch}}")(trainer)
    assert fp.fit([x], epochs=1, quiet=True)(trainer).epochs_completed == 1
    assert fp.fit([x], epochs=2, quiet=True, resume="latest")(trainer).epochs_completed == 2
"""
NESTS = {
    "sequential": "lambda inner: nn.sequential(inner)",
    "residual": "lambda inner: nn.sequential(nn.residual(lambda x: 0 * x), inner)",
    "named": "lambda inner: nn.sequential(inner=inner)",
    "add": "lambda inner: nn.add(inner, lambda x: 0 * x)",
    "define": "lambda inner: nn.define(lambda m, x: m.inner(x) * m.scale, inner=inner, scale=nn.param(1, init=1.0))",
}
scope = {"nn": nn, "mx": mx, "fp": fp}
exec(USES, scope)


@pytest.mark.parametrize("nest", [name for name in NESTS if name != "define"])
@pytest.mark.usual("sequential", "named")
def test_layers_a_hundred_deep_are_used_as_any_others(nest, tmp_path):
    scope["used"](eval(NESTS[nest], scope), 100, tmp_path)


@pytest.mark.slow
def test_layers_five_hundred_deep_are_used_under_a_higher_limit(tmp_path):
    code = f"""
import sys
sys.setrecursionlimit(3800)
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn
{USES}
used({NESTS["sequential"]}, 500, {str(tmp_path)!r})
"""
    done = python_process(code, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_layers_that_are_nested_too_deep_are_refused_with_the_remedy():
    def nested():
        model = nn.linear(2, 2)
        for _ in range(sys.getrecursionlimit()):
            model = nn.sequential(model)

    with pytest.raises(RecursionError, match=r"nested \d+ deep.* call sys.setrecursionlimit\(\d+\) first"):
        nested()


def test_layers_that_stand_in_many_places_are_counted_once():
    model = nn.linear(2, 2)
    for _ in range(6):
        model = nn.repeat(20, model)
    assert len(model.parts) == 20


@pytest.mark.parametrize("depth", [100, 200])
def test_the_structure_of_a_deep_tree_has_no_nested_brackets(depth):
    tree = {"x": mx.array(1)}
    for i in range(depth):
        tree = ({"y": tree}, [tree], (tree, None), {"z": [mx.array(i)], "y": tree})[i % 4] if i % 20 == 0 else [tree]
    known = flattening(tree)
    arrays = known.flatten(tree)
    assert builder(tree)(arrays) == known.build(arrays)[0]
