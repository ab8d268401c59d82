"""Layers made of layers: how arguments flow, where parameters live, and what is refused."""

from __future__ import annotations

import functools

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from drawn import examples
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat

X = mx.random.normal((5, 3), key=rng.key(0))


def run(layer, *xs, seed=0, **kw):
    return layer.apply(nn.init(seed)(layer), *xs, **kw)[0]


def paths(layer):
    return fp.paths()(nn.init(0)(layer))


def affine(by, plus=0):
    return nn.fn(lambda x: by * x + plus)


@examples(30)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=5), st.integers(-3, 3))
def test_sequential_is_composition(steps, x):
    expected = functools.reduce(lambda y, step: step[0] * y + step[1], steps, x)
    layers = [affine(*step) for step in steps]
    assert run(nn.sequential(*layers), x) == expected
    for cut in range(len(layers) + 1):
        assert run(nn.sequential(nn.sequential(*layers[:cut]), nn.sequential(*layers[cut:])), x) == expected


def test_empty_is_the_identity():
    for empty in (nn.sequential(), nn.stack(0, nn.linear, 3, 3), nn.repeat(0, nn.linear(3, 3)), nn.share(0, abs)):
        assert run(empty, X) is X
        assert run(empty, 1, 2) == (1, 2)
        assert run(empty, a=1) == {"a": 1}
        assert paths(empty) == ()


def test_the_first_layer_takes_all_arguments_and_a_result_spreads():
    add = lambda *xs, **kw: (sum(xs), kw)
    assert run(nn.sequential(add), 1, 2, a=3) == (3, {"a": 3})
    assert run(nn.sequential(lambda x: (x, 2 * x), lambda a, b: a + b), 1) == 3
    assert run(nn.sequential(lambda x: [x, 2 * x], lambda a, b: a + b), 1) == 3
    assert run(nn.sequential(lambda x: {"b": x, "a": 5}, lambda *, a, b: (a, b)), 1) == (5, 1)
    assert run(nn.sequential(lambda x: (x,), lambda *xs: xs), 1) == (1,)
    assert run(nn.sequential(lambda: (), lambda: 7)) == 7


def test_a_result_that_does_not_fit_the_next_layer_is_an_error_there():
    with pytest.raises(TypeError, match="positional argument") as caught:
        run(nn.sequential(lambda x: (x, x), second=lambda x: x), 1)
    assert any("in second" in note for note in caught.value.__notes__)


def test_every_kind_of_entry_makes_the_same_model():
    mx.random.seed(0)
    module = mlx_nn.Linear(3, 3)
    entries = [nn.linear(3, 3), nn.relu, nn.relu(), mlx_nn.ReLU, mlx_nn.ReLU(), mlx_nn.relu, lambda x: mx.maximum(x, 0)]
    expected = mlx_nn.relu(module(X))
    for relu in entries[1:]:
        assert mx.allclose(run(nn.sequential(entries[0], relu), X), expected, atol=1e-6)
    held = nn.sequential(module, mx.tanh)
    assert mx.allclose(run(held, X, seed=5), mx.tanh(module(X)), atol=1e-6)


def test_paths_of_positional_and_named_parts():
    model = nn.sequential(
        nn.linear(3, 3), nn.relu, head=nn.sequential(nn.linear(3, 2), out=nn.linear(2, 1, bias=False))
    )
    assert paths(model) == (
        "layers.0.weight",
        "layers.0.bias",
        "head.layers.0.weight",
        "head.layers.0.bias",
        "head.out.weight",
    )
    assert nn.init(0)(model)["layers"][1] == {}
    assert [path for path, _ in model.parts] == ["layers.0", "layers.1", "head"]
    assert repr(model).splitlines()[:3] == [
        "sequential",
        "  layers.0: Linear(input_dims=3, output_dims=3)",
        "  layers.1: ReLU",
    ]


def test_draws_go_in_the_order_of_the_parts():
    model = nn.sequential(nn.linear(3, 4), head=nn.linear(4, 2))
    mx.random.seed(7)
    first, second = mlx_nn.Linear(3, 4), mlx_nn.Linear(4, 2)
    params = flat(nn.init(7)(model))
    assert mx.array_equal(params["layers.0.weight"], first.weight)
    assert mx.array_equal(params["head.bias"], second.bias)


def test_residual_adds_the_first_positional_input():
    assert run(nn.residual(affine(2), affine(1, 5)), 3) == 14
    assert run(nn.residual(lambda x, y: y), 1, 10) == 11
    assert run(nn.residual(lambda x, *, by: x * by), 2, by=5) == 12
    with pytest.raises(TypeError, match="first positional input"):
        run(nn.residual(lambda x: x), x=1)


def test_branch_concat_and_add_give_all_parts_the_same_arguments():
    parts = (lambda x, *, by=1: x * by, lambda x, *, by=1: x + by)
    assert run(nn.branch(*parts), 3, by=4) == (12, 7)
    assert run(nn.add(*parts, extra=lambda x, by: 100), 3, by=4) == 119
    assert run(nn.sequential(nn.branch(a=affine(2), b=affine(3)), lambda a, b: (b, a)), 1) == (3, 2)
    a = mx.ones((2, 3))
    assert run(nn.concat(affine(1), affine(2)), a).tolist() == [[1, 1, 1, 2, 2, 2]] * 2
    assert run(nn.concat(affine(1), affine(2), axis=0), a).shape == (4, 3)
    assert paths(nn.concat(nn.linear(3, 1), skip=nn.linear(3, 2, bias=False))) == (
        "layers.0.weight",
        "layers.0.bias",
        "skip.weight",
    )


@pytest.mark.parametrize("combine", [nn.residual, nn.branch, nn.concat, nn.add], ids=lambda f: f.__name__)
def test_at_least_one_part(combine):
    with pytest.raises(ValueError, match=f"{combine.__name__} needs at least one part"):
        combine()


def test_stack_makes_each_layer_anew():
    by_index = nn.stack(3, lambda i: nn.linear(2 + i, 3 + i))
    assert [p["weight"].shape for p in nn.init(0)(by_index)["layers"]] == [(3, 2), (4, 3), (5, 4)]
    assert paths(nn.stack(2, nn.linear, 3, 3)) == tuple(f"layers.{i}.{n}" for i in (0, 1) for n in ("weight", "bias"))
    assert paths(nn.stack(2, nn.linear, 3, 3, bias=False)) == ("layers.0.weight", "layers.1.weight")
    assert paths(nn.stack(2, mlx_nn.Linear, 3, 3)) == paths(nn.stack(2, nn.linear, 3, 3))
    assert paths(nn.stack(2, lambda *, index: nn.linear(3, 3))) == paths(nn.stack(2, lambda: nn.linear(3, 3)))
    assert run(nn.stack(3, nn.relu), mx.array(-1)).item() == 0
    assert run(nn.stack(3, mlx_nn.ReLU), mx.array(-1)).item() == 0
    assert run(nn.stack(4, lambda i: affine(1, i)), 0) == 6
    first, second = nn.init(0)(nn.stack(2, nn.linear, 3, 3))["layers"]
    assert not mx.array_equal(first["weight"], second["weight"])


def test_repeat_has_parameters_of_its_own_for_each():
    params = nn.init(0)(nn.repeat(2, nn.linear(3, 3)))
    assert not mx.array_equal(params["layers"][0]["weight"], params["layers"][1]["weight"])
    assert run(nn.repeat(3, affine(2)), 1) == 8
    assert nn.repeat(2, nn.linear(3, 3)).name == "repeat"
    assert nn.stack(2, nn.linear, 3, 3).name == "stack"


def test_share_has_one_set_of_parameters_and_the_sum_of_the_gradients():
    shared, unrolled = nn.share(3, nn.linear(3, 3)), nn.repeat(3, nn.linear(3, 3))
    params = nn.init(0)(shared)
    assert list(params) == ["weight", "bias"]
    loss = lambda layer: lambda p: (layer.apply(p, X)[0] ** 2).sum()
    value, grads = mx.value_and_grad(loss(shared))(params)
    expected, parts = mx.value_and_grad(loss(unrolled))({"layers": [params] * 3})
    assert mx.allclose(value, expected)
    assert mx.allclose(grads["weight"], sum(p["weight"] for p in parts["layers"]), atol=1e-4)


def test_share_spreads_what_goes_from_pass_to_pass():
    assert run(nn.share(5, lambda a, b: (b, a + b)), 0, 1) == (5, 8)
    assert run(nn.share(2, lambda *, a, by=3: {"a": a * by}), a=1) == {"a": 9}


def test_share_carries_buffers_from_pass_to_pass():
    count = nn.define(lambda m, x: m.update(n=m.n + 1) or x + m.n, n=nn.buffer(()))
    y, after = nn.share(3, count).apply(nn.init(0)(count), mx.array(0.0))
    assert [y.item(), after["n"].item()] == [6.0, 3.0]


@pytest.mark.parametrize("count", [-1, 1.0, True, "2", None])
@pytest.mark.parametrize("make", [nn.stack, nn.repeat, nn.share], ids=lambda f: f.__name__)
def test_what_is_no_count(make, count):
    with pytest.raises(ValueError, match="a count of layers is an int, 0 or more; got"):
        make(count, mlx_nn.ReLU)


@pytest.mark.parametrize("entry", [3, "linear", None, X, object(), int, [nn.relu]])
@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda e: nn.sequential(nn.relu, e), "entry 1"),
        (lambda e: nn.sequential(head=e), "entry 'head'"),
        (lambda e: nn.residual(e), "entry 0"),
        (lambda e: nn.branch(nn.relu, nn.relu, e), "entry 2"),
        (lambda e: nn.concat(e), "entry 0"),
        (lambda e: nn.add(a=e), "entry 'a'"),
        (lambda e: nn.repeat(2, e), "repeat's entry"),
        (lambda e: nn.share(2, e), "share's entry"),
        (lambda e: nn.define(lambda m, x: x, proj=e), "part 'proj'"),
        (lambda e: nn.stack(2, lambda i: e), "layer 0"),
    ],
)
def test_a_wrong_entry_is_named_when_the_model_is_built(make, where, entry):
    kind = type(entry).__name__
    with pytest.raises(
        TypeError, match=f"{where} must be a Layer, an mlx.nn.Module or its class, or a callable; got {kind}"
    ):
        make(entry)


def test_what_stack_cannot_make():
    with pytest.raises(TypeError, match="repeat takes a layer"):
        nn.stack(2, nn.linear(3, 3))
    with pytest.raises(TypeError, match=r"stack factory '<lambda>' requires 'depth'.*it may name: index"):
        nn.stack(2, lambda i, depth: nn.linear(3, 3))
    with pytest.raises(TypeError, match="unknown option 'bais': did you mean 'bias'"):
        nn.stack(2, nn.linear, 3, 3, bais=True)


def test_a_part_cannot_be_called_like_a_path_or_layers():
    for bad in ({"a.b": nn.relu}, {"layers": nn.relu}, {"": nn.relu}):
        with pytest.raises(ValueError, match="a part cannot be called"):
            nn.sequential(nn.relu, **bad)
    assert run(nn.sequential(layers=affine(2)), 3) == 6


def test_an_error_says_where_level_by_level():
    model = nn.sequential(body=nn.residual(nn.relu, nn.sequential(nn.relu, deep=nn.linear(4, 4))))
    params = nn.init(0)(model)
    for apply in (model.apply, mx.compile(lambda p, x: model.apply(p, x)[0])):
        with pytest.raises(ValueError, match="addmm") as caught:
            apply(params, X)
        assert caught.value.__notes__[:3] == ["in deep (Linear)", "in layers.1 (sequential)", "in body (residual)"]


def test_a_composition_hands_back_buffers_and_leaves_parameters_alone():
    model = nn.residual(nn.linear(3, 3), norm=nn.batch_norm(3))
    params = nn.init(0)(model)
    before = {path: leaf.tolist() for path, leaf in flat(params).items()}
    _, after = model.apply(params, X, train=True, key=0)
    moved = {path for path, leaf in flat(after).items() if leaf.tolist() != before[path]}
    assert moved == {"norm.running_mean", "norm.running_var"}
    assert {path: leaf.tolist() for path, leaf in flat(params).items()} == before
    assert mx.array_equal(model.apply(params, X)[1]["norm"]["running_mean"], params["norm"]["running_mean"])


def test_a_composition_trains_as_its_flat_equivalent_compiled_and_eager():
    nested = nn.sequential(nn.linear(3, 8), nn.residual(nn.sequential(nn.linear(8, 8), nn.relu)), out=nn.linear(8, 1))
    loss = lambda m, x: ((m(x) - x[:, :1]) ** 2).mean()
    ends = []
    for compile in (True, False):
        step = fp.train_step(nested, loss, optim.adam(0.01), compile=compile)
        state = step.init(0)
        for _ in range(5):
            *state, logs = step(*state, X)
        ends.append((logs["loss"].item(), state[0]))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-5)
    assert_close(ends[0][1], ends[1][1], rtol=1e-3, atol=1e-5)


def test_dropout_layers_draw_in_order_from_one_key():
    model = nn.sequential(nn.dropout(0.5), nn.dropout(0.5))
    drawn = run(model, mx.ones((64,)), train=True, key=3)
    mx.random.seed(3)
    expected = mlx_nn.Dropout(0.5)(mlx_nn.Dropout(0.5)(mx.ones((64,))))
    assert mx.array_equal(drawn, expected)
    with pytest.raises(ValueError, match="train=True and no key"):
        run(model, mx.ones((64,)), train=True)
