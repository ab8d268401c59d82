"""What a lifted module keeps beside its arrays: a part in two places, its own methods, functions."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import pytest
from helpers import cross_entropy, mse
from mlx.utils import tree_flatten
from toolz import compose, curry, pipe

import mlx_fp as fp
from mlx_fp import nn, optim

IDS = mx.array([1, 2, 3])
X, Y = mx.random.normal((8, 3), key=mx.random.key(0)), mx.ones((8, 1))


def trained(model, loss, *batch, steps=3):
    step = fp.train_step(model, loss, optim.sgd(0.1))
    params, opt_state = step.init(nn.init(0)(model))
    for _ in range(steps):
        params, opt_state, _ = step(params, opt_state, batch)
    return params


def plainly(module, loss, *batch, steps=3):
    """The same training in MLX, from the same weights."""
    optimizer, grad = mlx.optimizers.SGD(0.1), mlx.nn.value_and_grad(module, loss)
    for _ in range(steps):
        optimizer.update(module, grad(module, *batch)[1])
    return module


# a module that stands in two places


class Tied(mlx.nn.Module):
    def __init__(self, names=("embed", "head")):
        super().__init__()
        self.first, self.second = names
        self[self.first] = mlx.nn.Embedding(5, 3)
        self.body = mlx.nn.Linear(3, 3)
        self[self.second] = self[self.first]

    def __call__(self, ids):
        return self[self.second].as_linear(self.body(self[self.first](ids)))


def entropy(model, ids):
    return cross_entropy(model, ids, ids)


def test_its_parameters_are_in_the_first_place_alone():
    params = nn.init(0)(nn.lift(Tied))
    assert list(fp.flat(params)) == ["embed.weight", "body.weight", "body.bias"]
    assert params["head"] == {}
    assert nn.summary(nn.lift(Tied)).count == fp.size(params)


@pytest.mark.parametrize("names", [("embed", "head"), ("z", "a"), ("wte", "lm_head")])
@pytest.mark.usual("names1", "names2")
def test_it_trains_as_in_mlx_and_its_file_loads_there(names, tmp_path):
    model = nn.lift(Tied, names)
    params = trained(model, entropy, IDS)
    module = plainly(nn.lower(model, nn.init(0)(model)), entropy, IDS)
    assert mx.allclose(nn.predictor(params)(model)(IDS), module(IDS), rtol=1e-5, atol=1e-6)
    loaded = Tied(names)
    loaded.load_weights(str(fp.save(tmp_path / "w")(params)), strict=False)
    assert mx.array_equal(loaded(IDS), nn.predictor(params)(model)(IDS))
    assert loaded[names[0]] is loaded[names[1]]


def test_frozen_it_stays():
    model = pipe(nn.lift(Tied), nn.freeze("embed"))
    before, after = nn.init(0)(model), trained(model, entropy, IDS)
    assert mx.array_equal(before["embed"]["weight"], after["embed"]["weight"])
    assert not mx.array_equal(before["body"]["weight"], after["body"]["weight"])
    assert list(dict(tree_flatten(nn.lower(model, before).trainable_parameters()))) == ["body.weight", "body.bias"]
    with pytest.raises(KeyError, match="'head' matches no parameter of Tied"):
        nn.freeze("head")(model)


def test_it_may_stand_in_lists_and_dicts():
    class Deep(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            one = mlx.nn.Linear(3, 3)
            self.layers, self.named = [one, mlx.nn.Linear(3, 3), one], {"a": one}

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.named["a"](x)

    model = nn.lift(Deep)
    params = nn.init(0)(model)
    assert list(fp.flat(params)) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert mx.array_equal(nn.predictor(params)(model)(X), nn.lower(model, params)(X))


# methods and functions


class Chooses(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = mlx.nn.Linear(3, 1)
        self.path = self.fast
        self.act = mlx.nn.gelu

    def fast(self, x):
        return self.act(self.lin(x))

    def __call__(self, x):
        return self.path(x)


@pytest.mark.parametrize("make", [lambda: nn.lift(Chooses), lambda: nn.split(Chooses())[0]], ids=["class", "module"])
@pytest.mark.usual("module")
def test_a_method_kept_as_an_attribute_is_that_of_the_parameters_at_hand(make):
    model = make()
    params = trained(model, mse, X, Y)
    module = plainly(nn.lower(model, nn.init(0)(model)), mse, X, Y)
    assert mx.allclose(nn.predictor(params)(model)(X), module(X), rtol=1e-5, atol=1e-6)
    zeros = fp.restore_like(params, {path: mx.zeros_like(leaf) for path, leaf in fp.flat(params).items()})
    assert nn.predictor(zeros)(model)(X).tolist() == [[0.0]] * 8


REMEDY = (
    "a function that holds a module of this one. It would always compute with the arrays that the module has now. "
    "Make it in the method that calls it, or keep the module itself as an attribute."
)


def refused(make):
    """The error with which each way of lifting a class refuses its modules."""
    messages = set()
    for lifting in (lambda: nn.lift(make), lambda: nn.split(make()), lambda: nn.lift(make())):
        with pytest.raises(TypeError) as error:
            lifting()
        messages.add(str(error.value))
    (message,) = messages
    return message


@pytest.mark.parametrize(
    "over",
    [
        mlx.nn.utils.checkpoint,
        mx.compile,
        lambda lin: mx.compile(lin.__call__),
        lambda lin: mx.value_and_grad(lin.__call__),
        lambda lin: partial(mx.compile(lin.__call__)),
        lambda lin: partial(lambda f, x: f(x), mx.compile(lin)),
        lambda lin: lambda x: lin(x),
        lambda lin: lambda x, lin=lin: lin(x),
        lambda lin: lambda x, *, lin=lin: lin(x),
        lambda lin: (lambda inner: lambda x: inner(x))(lambda x: lin(x)),
        lambda lin: (lambda layers: lambda x: layers[0](x))([lin]),
        lambda lin: partial(lambda lin, x: lin(x), lin),
        lambda lin: partial(lambda x, lin: lin(x), lin=lin),
        lambda lin: partial(lin.__call__),
        lambda lin: compose(mx.tanh, lin),
        lambda lin: curry(lambda lin, x: lin(x), lin),
    ],
)
def test_a_function_that_holds_a_part_is_refused(over):
    class Holds(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = mlx.nn.Linear(3, 1)
            self.run = over(self.lin)

        def __call__(self, x):
            return self.run(x)

    assert refused(Holds) == f"Holds.run is {REMEDY}"


@pytest.mark.parametrize(
    "within",
    [
        lambda f: [f],
        lambda f: (f,),
        lambda f: {"each": f},
        lambda f: {"each": [mlx.nn.gelu, (1, f)]},
    ],
)
@pytest.mark.parametrize(
    "over", [lambda one: lambda x: one.lin(x), lambda one: one.first, lambda one: mx.compile(one.lin)]
)
def test_it_is_refused_in_a_list_or_dict_and_in_a_part(within, over):
    class Holds(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = mlx.nn.Linear(3, 1)
            self.runs = within(over(self))

        def first(self, x):
            return self.lin(x)

    assert refused(Holds) == f"Holds.runs contains {REMEDY}"
    assert refused(lambda: mlx.nn.Sequential(Holds(), mlx.nn.Linear(1, 1))) == f"Holds.runs contains {REMEDY}"


def test_a_function_that_holds_the_module_itself_is_refused():
    class Scales(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 3
            self.scale = lambda x: x / self.width

    assert refused(Scales) == f"Scales.scale is {REMEDY}"


def test_a_method_of_another_module_is_that_of_the_parameters_at_hand():
    class Outer(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.parts = mlx.nn.Linear(3, 3), (mlx.nn.Linear(3, 1),)
            self.first.after = self.activated
            self["last"] = self.parts[0].__call__

        def activated(self, x):
            return mlx.nn.gelu(x)

        def __call__(self, x):
            return self.last(self.first.after(self.first(x)))

    module = Outer()
    layer, params = nn.split(module)
    assert mx.array_equal(nn.predictor(params)(layer)(X), module(X))
    copy = nn.lower(layer, params)
    assert copy.first.after.__self__ is copy
    assert copy.last.__self__ is copy.parts[0]


GLOBAL = mlx.nn.Linear(3, 1)


def test_functions_that_hold_no_module_are_kept():
    class Keeps(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = GLOBAL
            self.parts = (self.lin,)
            self.acts = mlx.nn.gelu, partial(mlx.nn.leaky_relu, negative_slope=0.2)
            self.last = lambda x: x * 2 if GLOBAL is not None else x
            self.kinds = {"part": mlx.nn.Linear, "double": mx.compile(lambda x: x * 2)}
            self.other = partial(lambda other, x: other(x), mlx.nn.Linear(3, 3))  # a module that is no part of this one

        def __call__(self, x):
            for act in self.acts:
                x = act(x)
            x = self.kinds["double"](self.other(x))
            return self.last(self.parts[0](x))

    module = Keeps()
    layer, params = nn.split(module)
    assert mx.array_equal(nn.predictor(params)(layer)(X), module(X))


def test_a_method_lowered_is_that_method():
    class Coder(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = mlx.nn.Linear(3, 2), mlx.nn.Linear(2, 3)

        def encode(self, x):
            return self.encoder(x)

        def __call__(self, x):
            return self.decoder(self.encode(x))

    encode = nn.method(nn.lift(Coder), "encode")
    params = nn.init(0)(encode)
    assert mx.array_equal(nn.lower(encode, params)(X), nn.predictor(params)(encode)(X))


# names


class Named(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.output = mlx.nn.Linear(3, 3), mlx.nn.Linear(3, 1)

    def __call__(self, query, key, train=1.0):
        return self.output(self.lin(query) * key * train)


def test_arguments_may_be_called_key():
    model = nn.lift(Named)
    params = nn.init(0)(model)
    wanted = nn.lower(model, params)(X, X)
    assert mx.array_equal(nn.predictor(params)(model)(query=X, key=X), wanted)
    step = fp.eval_step(model, lambda model, x: model(query=x, key=x).sum())
    assert step(params, {}, X)[1]["loss"].item() == pytest.approx(wanted.sum().item(), rel=1e-5)


def test_a_module_may_be_called_output():
    model = nn.lift(Named)
    step = fp.eval_step(model, lambda model, x: model.output(model.lin(x)).mean())
    params = nn.init(0)(model)
    module = nn.lower(model, params)
    assert step(params, {}, X)[1]["loss"].item() == pytest.approx(module.output(module.lin(X)).mean().item(), rel=1e-5)


def test_a_summary_of_modules_by_number():
    class Numbered(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = {0: mlx.nn.Linear(2, 2), 1: mlx.nn.Linear(2, 3)}

    assert [row.path for row in nn.summary(nn.lift(Numbered)).rows] == ["parts.0", "parts.1"]


@pytest.mark.parametrize(("logits", "targets"), [((4, 10), (1,)), ((4, 1, 10), (4, 3)), ((4, 10), (4, 1))])
def test_targets_that_mlx_refuses_are_refused(logits, targets):
    one, other = mx.zeros(logits), mx.zeros(targets, mx.int32)
    for entropy_of in (mlx.nn.losses.cross_entropy, nn.losses.cross_entropy):
        with pytest.raises(ValueError, match="Targets shape"):
            entropy_of(one, other)


# arrays that stand in two places


class TiedArrays(mlx.nn.Module):
    def __init__(self, copied=False):
        super().__init__()
        self.embed, self.head = mlx.nn.Embedding(5, 3), mlx.nn.Linear(3, 5, bias=False)
        self.head.weight = mx.array(self.embed.weight) if copied else self.embed.weight

    def __call__(self, ids):
        return self.head(self.embed(ids))


class TiedInLists(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = [{"w": mx.ones((2,))}]
        self.parts.append(self.parts[0]["w"])

    def __call__(self, x):
        return x * self.parts[1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TiedArrays, "TiedArrays: embed.weight and head.weight are one array.*self.head.as_linear"),
        (TiedInLists, "TiedInLists: parts.0.w and parts.1 are one array"),
    ],
)
def test_an_array_that_is_two_parameters_is_an_error_with_the_remedy(kind, words):
    makers = (lambda: nn.lift(kind), lambda: nn.lift(kind()), lambda: nn.split(kind()), lambda: nn.sequential(kind()))
    for make in makers:
        with pytest.raises(ValueError, match=words):
            make()


def test_a_copy_of_an_array_is_a_parameter_of_its_own():
    params = nn.init(0)(nn.lift(TiedArrays, copied=True))
    assert list(fp.flat(params)) == ["embed.weight", "head.weight"]
