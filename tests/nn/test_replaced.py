"""Parts replaced by path: in compositions, in wrappers, inside lifted modules; all else stays."""

from __future__ import annotations

import pickle
import re

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_same_bits, bits, changed, mean_square

import mlx_fp as fp
from mlx_fp import nn, optim, rng

X = mx.random.normal((5, 4), key=rng.key(0))


class Net(mlx_nn.Module):
    """A module with modules in a list, a shared module, and a bound method as an attribute."""

    def __init__(self):
        super().__init__()
        self.layers = [mlx_nn.Linear(4, 4), mlx_nn.Linear(4, 4)]
        self.heads = {"a": mlx_nn.Linear(4, 2)}
        self.again = self.layers[0]
        self.norm = mlx_nn.BatchNorm(4)

    def __call__(self, x):
        for layer in (*self.layers, self.again):
            x = mx.tanh(layer(x))
        return self.heads["a"](self.norm(x))


def doubled(part):
    return nn.sequential(part, twice)


def twice(x):
    return 2 * x


WRAPPERS = {
    "plain": lambda layer: layer,
    "remat": nn.remat,
    "wide": nn.wide,
    "frozen": nn.frozen,
    "residual": nn.residual,
    "share": lambda layer: nn.share(2, layer),
    "repeat": lambda layer: nn.repeat(2, layer),
    "stack": lambda layer: nn.stack(2, lambda: layer),
    "branch": lambda layer: nn.sequential(nn.branch(layer, layer), mx.add),
    "concat": lambda layer: nn.sequential(nn.concat(layer, nn.relu), lambda x: x[:, 2:6]),
    "add": lambda layer: nn.add(layer, nn.relu),
    "define": lambda layer: nn.define(lambda m, x: m.inner(x) * m.scale, inner=layer, scale=nn.param(4, init=2.0)),
    "nested": lambda layer: nn.remat(nn.wide(nn.residual(nn.share(2, layer)))),
    "method": lambda layer: nn.method(layer, "__call__"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_replacing_each_part_by_itself_changes_nothing(wrap):
    model = nn.sequential(first=wrap(nn.linear(4, 4)), last=nn.dropout(0.5))
    same = nn.replaced(lambda path, part: isinstance(part, mlx_nn.Linear), lambda part: part)(model)
    params = nn.init(3)(model)
    assert_same_bits(nn.init(3)(same), params)
    for train in (True, False):
        before, after = (each.apply(params, X, train=train, key=1) for each in (model, same))
        assert_same_bits(before, after)
    assert fp.paths(same.trainable(params))(params) == fp.paths(model.trainable(params))(params)
    assert repr(same) == repr(model)
    wide = [fp.paths(each.wide)(params) for each in (same, model)]
    assert wide[0] == wide[1]


@pytest.mark.parametrize("wrap", list(WRAPPERS.values())[:-1], ids=list(WRAPPERS)[:-1])
def test_a_part_inside_a_wrapper_is_replaced_and_the_wrapper_stays(wrap):
    def model(layer):
        return nn.sequential(first=wrap(layer), last=nn.linear(4, 4))

    old = model(nn.linear(4, 4))
    linear = nn.replaced(lambda path, part: isinstance(part, mlx_nn.Linear) and "last" not in path, doubled)(old)
    expected = model(doubled(nn.linear(4, 4)))
    params = nn.init(0)(linear)
    assert fp.paths()(params) == fp.paths()(nn.shapes(expected))
    assert_same_bits(linear.apply(params, X)[0], expected.apply(params, X)[0])
    assert fp.paths(linear.trainable(params))(params) == fp.paths(expected.trainable(params))(params)
    assert list(bits(params).values()) == list(bits(nn.init(0)(old)).values())


def test_modules_inside_a_lifted_module_are_replaced_wherever_they_stand():
    layer, params = nn.split(Net())
    model = nn.replaced("layers.0", doubled)(layer)
    start = nn.init(1)(model)
    assert "layers.0.layers.0.weight" in fp.paths()(start)
    assert not any(path.startswith("again") for path in fp.paths()(start))
    net = nn.lower(layer, params).eval()
    x = X
    for linear, by in ((net.layers[0], 2), (net.layers[1], 1), (net.layers[0], 2)):
        x = mx.tanh(by * linear(x))
    assert mx.allclose(model.apply(start, X)[0], net.heads["a"](net.norm(x)), atol=1e-6)


def test_the_arrays_of_a_split_model_stay_and_new_parts_bring_their_own():
    layer, params = nn.split(Net())
    model = nn.replaced("heads", lambda part: nn.linear(4, 3))(nn.freeze("layers")(layer))
    start = nn.init(5)(model)
    assert start["heads"]["a"]["weight"].shape == (3, 4)
    assert_same_bits({**start, "heads": {}}, {**params, "heads": {}})
    assert fp.paths(model.trainable(start))(start) == (
        "heads.a.weight",
        "heads.a.bias",
        "norm.weight",
        "norm.bias",
    )
    step = fp.train_step(model, mean_square, optim.sgd(0.1))
    after, _, _ = step(*step.init(start), X)
    assert changed(start, after) == {
        "heads.a.weight",
        "heads.a.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    }


def test_all_other_arrays_are_those_of_the_same_seed():
    model = nn.sequential(a=nn.linear(4, 4), b=nn.linear(4, 4), c=nn.linear(4, 4))
    start, before = (
        nn.init(7)(each) for each in (nn.replaced("a", lambda part: nn.linear(4, 4, bias=False))(model), model)
    )
    assert_same_bits([start["b"], start["c"]], [before["b"], before["c"]])
    assert set(start["a"]) == {"weight"}


def test_frozen_stays_frozen_and_names_stay():
    inner = nn.freeze("layers.0")(nn.stack(2, nn.linear, 4, 4))
    model = nn.freeze(re.compile("bias"))(nn.sequential(body=inner, head=nn.linear(4, 2)))
    new = nn.replaced(["body.layers.0", "head"], lambda part: nn.residual(part))(model)
    params = nn.init(0)(new)
    assert fp.paths(new.trainable(params))(params) == ("body.layers.1.weight", "head.layers.0.weight")
    assert dict(new.parts)["body"].name == "stack"
    thawed = nn.replaced("head", nn.unfreeze())(nn.freeze("head")(model))
    assert fp.paths(thawed.trainable(params := nn.shapes(thawed)))(params) == ("body.layers.1.weight",)
    still = nn.replaced("head", nn.freeze("weight"))(nn.unfreeze("head")(model))
    assert fp.paths(still.trainable(params := nn.shapes(still)))(params) == ("body.layers.1.weight", "head.bias")


def test_make_may_return_a_module_or_a_class_or_a_function():
    model = nn.sequential(nn.linear(4, 4), nn.lift(Net))
    for new in (mlx_nn.Identity, mlx_nn.Identity(), lambda x: x):
        changed_model = nn.replaced(["layers.0", "layers.1.layers.1"], lambda part, new=new: new)(model)
        params = nn.init(0)(changed_model)
        assert "layers.1.layers.1.weight" not in fp.paths()(params)
        assert changed_model.apply(params, X)[0].shape == (5, 2)


def test_a_replaced_model_goes_through_pickle_with_named_functions():
    model = nn.replaced("layers.1.layers.1", doubled)(nn.sequential(nn.linear(4, 4), nn.lift(Net)))
    again = pickle.loads(pickle.dumps(model))
    params = nn.init(2)(model)
    assert_same_bits(nn.init(2)(again), params)
    assert_same_bits(again.apply(params, X)[0], model.apply(params, X)[0])


def test_a_method_of_a_part_stays():
    model = nn.method(nn.lift(mlx_nn.Embedding, 6, 4), "as_linear")
    new = nn.replaced(lambda path: True, lambda part: nn.lift(mlx_nn.Embedding, 9, 4))(model)
    assert new.apply(nn.init(0)(new), X)[0].shape == (5, 9)
    with pytest.raises(TypeError, match="'as_linear' runs there; sequential is no lifted module"):
        nn.replaced(lambda path: True, doubled)(model)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("layers.2", KeyError, "'layers.2' matches no part of Net; nearest: layers"),
        (re.compile("hed"), KeyError, r"matching\('hed'\) matches no part of Net"),
        (lambda path: False, KeyError, "matches no part of Net"),
        (3, TypeError, "a spec is None, a path"),
    ],
)
def test_a_spec_that_chooses_nothing_is_an_error(spec, error, words):
    with pytest.raises(error, match=words):
        nn.replaced(spec, doubled)(nn.lift(Net))


def test_wrong_parts_are_told_with_their_path():
    with pytest.raises(TypeError, match="replaced takes a function that makes the new part; got 'head'"):
        nn.replaced("head", "head")
    with pytest.raises(TypeError, match="the new part must be a Layer") as caught:
        nn.replaced("heads.a", lambda part: 3)(nn.lift(Net))
    assert "at path=heads.a" in caught.value.__notes__


def test_a_layer_of_ones_own_says_how_it_is_rebuilt():
    inner = nn.linear(4, 4)

    def tripled(inner, rebuild=None):
        def run(params, xs, kw, train):
            y, after = inner.apply.run(params["inner"], xs, kw, train)
            return 3 * y, {"inner": after}

        return nn.layer(
            lambda: {"inner": inner.init()}, run, name="tripled", parts=(("inner", inner),), rebuild=rebuild
        )

    with pytest.raises(TypeError, match="tripled cannot get another part: give `nn.layer` a function `rebuild`"):
        nn.replaced("inner", doubled)(tripled(inner))
    model = nn.replaced("inner", doubled)(tripled(inner, lambda change: tripled(change("inner", inner))))
    params = nn.init(0)(model)
    expected = 6 * inner.apply(params["inner"]["layers"][0], X)[0]
    assert mx.allclose(model.apply(params, X)[0], expected, atol=1e-5)


def test_pretrained_gives_the_arrays_and_checks_them():
    model = nn.sequential(nn.linear(4, 3), head=nn.linear(3, 2))
    params = nn.init(4)(model)
    kept = nn.pretrained(params)(model)
    assert_same_bits(nn.init(9)(kept), params)
    params["head"]["weight"] += 1
    assert not mx.array_equal(nn.init(9)(kept)["head"]["weight"], params["head"]["weight"])
    with pytest.raises(ValueError, match=r"head.bias is \(2,\), given nothing"):
        nn.pretrained({**params, "head": {"weight": params["head"]["weight"]}})(model)
    with pytest.raises(TypeError, match="parameters are a tree"):
        nn.pretrained(3)
