"""mlx.nn modules in and out: the module handed in is never touched, and every nested module is told the mode."""

from __future__ import annotations

import pickle
import threading

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.optimizers as mlx_optimizers
import pytest
from helpers import assert_close, assert_same_bits, bits, cross_entropy, mean_square
from mlx.utils import tree_flatten
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat


class Block(mlx_nn.Module):
    """A third party's module: modules in lists and dicts, a private constant, a counter, a moving statistic."""

    def __init__(self, dims):
        super().__init__()
        self.towers = [mlx_nn.Linear(dims, dims), [mlx_nn.Dropout(0.5)]]
        self.heads = {"a": mlx_nn.Linear(dims, 2), "norm": {"inner": mlx_nn.BatchNorm(dims)}}
        self._table = mx.arange(dims) / dims
        self._seen = mx.array(0)
        self.count = mx.array(0)
        self.calls = 0
        self.mean = mx.zeros((dims,))
        self.freeze(keys=["mean", "count"], recurse=False)

    def unfreeze(self, *args, **kwargs):
        super().unfreeze(*args, **kwargs)
        self.freeze(keys=["mean", "count"], recurse=False)

    def __call__(self, x, *, shift=0.0):
        self.count += 1
        self._seen += 1
        self.calls += 1
        x = self.towers[0](x) + self._table
        for drop in self.towers[1]:
            x = drop(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        x = self.heads["norm"]["inner"](x)
        return self.heads["a"](x) + shift


class Tied(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = mlx_nn.Embedding(5, 4)
        self.again = self.embed
        self.out = mlx_nn.Linear(4, 4)

    def __call__(self, ids):
        return self.again.as_linear(self.out(self.embed(ids)))


X = mx.random.normal((6, 4), key=rng.key(1))


def walk(node, path=""):
    """Every array and every mode of a module, by path, as objects."""
    if isinstance(node, mlx_nn.Module):
        yield f"{path}.training", node.training
        yield f"{path}.no_grad", tuple(sorted(node._no_grad))
    if isinstance(node, (dict, list, tuple)):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(child, f"{path}.{key}")
    elif isinstance(node, mx.array):
        yield path, (id(node), node.tolist())
    else:
        yield path, node


def picture(module):
    return dict(walk(module)), {k: v for k, v in module.__dict__.items() if isinstance(v, (int, float))}


def modes(seen):
    class Probe(mlx_nn.Module):
        def __call__(self, x):
            seen.append(self.training)
            return x

    class Host(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.own = Probe()
            self.listed = [Probe(), [Probe()]]
            self.mapped = {"a": Probe(), "b": {"c": [Probe()]}}
            self._private = Probe()

        def __call__(self, x):
            for probe in (self.own, *self.listed[:1], *self.listed[1], self.mapped["a"], *self.mapped["b"]["c"]):
                x = probe(x)
            return self._private(x)

    return Host


@pytest.mark.parametrize("how", ["class", "module"])
@pytest.mark.parametrize("train", [True, False])
def test_the_mode_reaches_every_nested_module(how, train):
    seen = []
    host = modes(seen)
    layer = nn.lift(host) if how == "class" else nn.split(host().train(not train))[0]
    model = nn.sequential(nn.residual(nn.stack(2, lambda: layer)), nn.branch(a=layer))
    model.apply(nn.init(0)(model), X, train=train, key=0)
    assert seen == [train] * 18


@pytest.mark.slow
def test_validation_neither_drops_nor_moves_statistics_through_the_compiled_steps():
    """Seen wrong elsewhere: the mode was set at the root only."""
    model = nn.sequential(nn.lift(Block, 4), nn.residual(nn.sequential(nn.linear(2, 2), nn.dropout(0.5))))
    step, check = fp.train_step(model, mean_square, optim.sgd(0.0)), fp.eval_step(model, mean_square)
    params, state = step.init(0)
    one = check(params, check.init(), X)[1]["loss"]
    assert mx.array_equal(one, check(params, check.init(), X)[1]["loss"])
    assert mx.allclose(one, (model.apply(params, X)[0] ** 2).mean())
    assert flat(model.apply(params, X)[1])["layers.0.mean"].tolist() == [0.0] * 4
    after, state, first = step(params, state, X)
    _, _, second = step(after, state, X)
    assert first["loss"].item() != second["loss"].item()  # dropout is on in training
    for path in ("layers.0.mean", "layers.0.heads.norm.inner.running_mean"):
        assert not mx.array_equal(flat(after)[path], flat(params)[path])
    assert flat(after)["layers.0.count"].item() == 1


def test_the_module_handed_in_is_never_touched():
    module = Block(4)
    module.towers[0].freeze()
    module.heads["a"].eval()
    mx.eval(module.parameters())
    before = picture(module)
    layer, params = nn.split(module)
    for train in (True, False):
        layer.apply(params, X, train=train, key=3)
    step = fp.train_step(layer, lambda m, x: m(x).sum(), optim.adam(0.1))
    state = step.init(params)
    for _ in range(3):
        *state, _ = step(*state, X)
    assert picture(module) == before

    for run in (layer.apply, mx.compile(lambda p, x: layer.apply(p, x, train=True, key=1))):
        with pytest.raises(ValueError, match="addmm"):
            run(params, mx.ones((2, 5)), **({"train": True, "key": 1} if run is layer.apply else {}))
    with pytest.raises(ValueError, match="addmm"):
        step(*state, mx.ones((2, 5)))
    assert picture(module) == before
    assert module(X).shape == (6, 2)
    assert mx.isfinite(step(*state, X)[2]["loss"])


def test_a_counter_counts_in_the_parameters():
    layer = nn.lift(Block, 4)
    params = nn.init(0)(layer)
    for n in range(1, 4):
        _, params = layer.apply(params, X)
        assert params["count"].item() == n
    assert nn.init(0)(layer)["count"].item() == 0


def test_the_parameters_handed_in_are_never_touched():
    layer = nn.lift(Block, 4)
    params = nn.init(0)(layer)
    before = dict(walk(params))
    _, after = layer.apply(params, X, train=True, key=1)
    assert dict(walk(params)) == before
    assert list(flat(after)) == list(flat(params))


def test_a_private_array_is_a_constant_and_no_parameter():
    _, params = nn.split(Block(4))
    assert not any("_table" in path or "_seen" in path for path in flat(params))
    assert set(flat(params)) == set(dict(tree_flatten(Block(4).parameters())))


def test_keyword_arguments_go_through():
    layer, params = nn.split(Block(4))
    plain, shifted = layer.apply(params, X)[0], layer.apply(params, X, shift=1.0)[0]
    assert mx.allclose(shifted, plain + 1)


def test_split_gives_the_module_s_own_arrays_and_outputs():
    module = Block(4)
    layer, params = nn.split(module)
    assert mx.array_equal(flat(params)["towers.0.weight"], module.towers[0].weight)
    assert flat(nn.init(9)(layer))["towers.0.weight"].tolist() == module.towers[0].weight.tolist()
    mx.random.seed(4)
    expected = module.train()(X)
    assert mx.allclose(layer.apply(params, X, train=True, key=4)[0], expected, rtol=1e-5, atol=1e-6)


def test_split_keeps_what_is_frozen_and_buffers_apart():
    module = Block(4)
    module.towers[0].freeze()
    layer, params = nn.split(module)
    expected = set(dict(tree_flatten(module.trainable_parameters())))
    assert set(fp.paths(layer.trainable(params))(params)) == expected
    free = nn.unfreeze()(layer)
    buffers = {"mean", "count", "heads.norm.inner.running_mean", "heads.norm.inner.running_var"}
    assert set(fp.paths(free.trainable(params))(params)) == set(flat(params)) - buffers
    named = nn.unfreeze("mean")(free)
    assert set(fp.paths(named.trainable(params))(params)) == set(flat(params)) - buffers | {"mean"}


def test_what_a_module_trains_trains_but_for_integers():
    class Counted(Block):
        def __init__(self, dims):
            super().__init__(dims)
            self.order = mx.array([1, 0])

    module = Counted(4)
    mlx_nn.Module.unfreeze(module, keys="mean", recurse=False)
    layer, params = nn.split(module)
    trained = set(fp.paths(layer.trainable(params))(params))
    assert trained == set(dict(tree_flatten(module.trainable_parameters()))) - {"order"}
    assert "mean" in trained
    again = nn.unfreeze()(nn.freeze()(layer))
    assert set(fp.paths(again.trainable(params))(params)) == trained


def test_tied_modules_stay_tied():
    module = Tied()
    layer, params = nn.split(module)
    ids, labels = mx.array([1, 2, 3]), mx.array([2, 3, 4])
    step = fp.train_step(layer, cross_entropy, optim.sgd(0.5))
    state = step.init(params)
    theirs = mlx_optimizers.SGD(0.5)
    for _ in range(3):
        value, grads = mlx_nn.value_and_grad(module, cross_entropy)(module, ids, labels)
        theirs.update(module, grads)
        *state, logs = step(*state, (ids, labels))
        assert logs["loss"].item() == pytest.approx(value.item(), rel=1e-5)
    assert mx.allclose(layer.apply(state[0], ids)[0], module(ids), rtol=1e-4, atol=1e-5)


def test_a_quantised_module_comes_in_frozen():
    module = mlx_nn.Sequential(mlx_nn.Linear(64, 32), mlx_nn.Linear(32, 4))
    mlx_nn.quantize(module, 32, 8, class_predicate=lambda path, m: path == "layers.0")
    layer, params = nn.split(module)
    x = mx.random.normal((3, 64), key=rng.key(0))
    assert mx.allclose(layer.apply(params, x)[0], module(x), atol=1e-5)
    trained = set(dict(tree_flatten(module.trainable_parameters())))
    assert (
        set(fp.paths(layer.trainable(params))(params))
        == trained
        == {"layers.0.bias", "layers.1.weight", "layers.1.bias"}
    )
    step = fp.train_step(layer, mean_square, optim.sgd(0.1))
    after, _, _ = step(*step.init(params), x)
    assert mx.array_equal(after["layers"][0]["weight"], params["layers"][0]["weight"])
    assert not mx.array_equal(after["layers"][1]["weight"], params["layers"][1]["weight"])


def test_lower_gives_the_class_that_was_lifted():
    module = Block(4)
    module.towers[0].freeze()
    layer, params = nn.split(module)
    back = nn.lower(layer, params)
    assert type(back) is Block
    assert mx.array_equal(back.eval()(X), module.eval()(X))
    assert set(dict(tree_flatten(back.trainable_parameters()))) == set(
        dict(tree_flatten(module.trainable_parameters()))
    )
    assert type(nn.lower(*with_params(nn.linear(3, 2)))) is mlx_nn.Linear


def with_params(layer, seed=0):
    return layer, nn.init(seed)(layer)


COMPOSED = nn.sequential(
    encoder=nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.5)),
    body=nn.residual(nn.stack(2, nn.linear, 8, 8)),
    scale=nn.define(lambda m, x: x * m.by + m.shift, by=nn.param(8, init=2.0), shift=nn.buffer(8)),
)


def test_lower_of_a_composition_computes_trains_and_keeps_statistics():
    layer = nn.freeze("body")(COMPOSED)
    params = nn.init(0)(layer)
    module = nn.lower(layer, params)
    assert list(dict(tree_flatten(module.parameters()))) == list(flat(params))
    assert set(dict(tree_flatten(module.trainable_parameters()))) == set(fp.paths(layer.trainable(params))(params))
    assert mx.array_equal(module.eval()(X), layer.apply(params, X)[0])

    mx.random.seed(8)
    expected, after = layer.apply(params, X, train=True, key=8)
    assert mx.array_equal(module.train()(X), expected)
    moved = module.encoder["layers"][1]["running_mean"]
    assert mx.array_equal(moved, after["encoder"]["layers"][1]["running_mean"])
    assert not mx.array_equal(moved, params["encoder"]["layers"][1]["running_mean"])

    _, grads = mlx_nn.value_and_grad(module, lambda m, x: m(x).sum())(module, X)
    assert set(dict(tree_flatten(grads))) == set(fp.paths(layer.trainable(params))(params))
    mlx_optimizers.SGD(0.1).update(module, grads)
    assert not mx.array_equal(module.encoder["layers"][0]["weight"], params["encoder"]["layers"][0]["weight"])


def test_weights_are_saved_and_loaded_both_ways(tmp_path):
    file = str(tmp_path / "model.safetensors")
    params, others = nn.init(1)(COMPOSED), nn.init(2)(COMPOSED)
    nn.lower(COMPOSED, params).save_weights(file)
    loaded = fp.restore_like(others, mx.load(file))
    assert mx.array_equal(COMPOSED.apply(loaded, X)[0], COMPOSED.apply(params, X)[0])
    module = nn.lower(COMPOSED, others)
    module.load_weights(file, strict=True)
    assert mx.array_equal(module.eval()(X), COMPOSED.apply(params, X)[0])
    again = nn.lower(*nn.split(Block(4)))
    block = Block(4)
    block.save_weights(file)
    again.load_weights(file)
    assert mx.array_equal(again.eval()(X), block.eval()(X))


def test_lower_of_split_and_split_of_lower():
    params = nn.init(0)(COMPOSED)
    layer, again = nn.split(nn.lower(COMPOSED, params))
    assert list(flat(again)) == list(flat(params))
    assert mx.array_equal(layer.apply(again, X)[0], COMPOSED.apply(params, X)[0])


def test_a_module_lowered_does_not_touch_the_parameters():
    params = nn.init(0)(COMPOSED)
    before = dict(walk(params))
    module = nn.lower(COMPOSED, params)
    module.train()(X)
    mlx_optimizers.SGD(0.1).update(module, module.trainable_parameters())
    assert dict(walk(params)) == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.lift(mlx_nn.Linear, 3, 2, bais=False), "Linear: unknown option 'bais': did you mean 'bias'"),
        (
            lambda: nn.linear(3, 2, bais=False),
            "unknown option 'bais': did you mean 'bias'.*input_dims, output_dims, bias",
        ),
        (lambda: nn.linear(3), "Linear: missing a required argument: 'output_dims'"),
        (lambda: nn.lift(mlx_nn.Linear(3, 2), 3), "Linear is made already and takes no arguments"),
        (lambda: nn.lift(nn.linear(3, 2), bias=False), "Linear is made already and takes no arguments"),
        (lambda: nn.lift(3), "lift takes a module class, a module, a Layer or a function; got 3"),
        (lambda: nn.lift(lambda n: n, 3), "made int, neither a Layer nor an mlx.nn.Module"),
        (lambda: nn.split(mlx_nn.Linear), "split takes an mlx.nn.Module; got type"),
        (lambda: nn.split(nn.linear(3, 2)), "split takes an mlx.nn.Module; got Layer"),
        (lambda: nn.fn(3), "fn takes a callable; got 3"),
    ],
)
def test_what_does_not_fit_is_told_when_it_is_made(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_lift_takes_a_factory_of_a_module_or_a_layer():
    def tower(width, *, depth=1):
        return mlx_nn.Sequential(*[mlx_nn.Linear(width, width) for _ in range(depth)])

    assert len(nn.init(0)(nn.lift(tower, 4, depth=3))["layers"]) == 3
    assert nn.lift(lambda n: nn.linear(n, n), 4).name == "Linear"
    with pytest.raises(TypeError, match="tower: unknown option 'dpeth': did you mean 'depth'"):
        nn.lift(tower, 4, dpeth=3)


def test_an_error_in_a_factory_comes_out_as_itself():
    def broken():
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        nn.lift(broken)


def test_making_a_layer_does_not_move_the_stream():
    mx.random.seed(3)
    nn.linear(4, 4)
    nn.init(7)(nn.linear(4, 4))
    drawn = mx.random.uniform().item()
    mx.random.seed(3)
    assert drawn == mx.random.uniform().item()


def test_fn_is_told_the_mode_when_it_names_it_and_gets_all_arguments():
    told = nn.fn(lambda x, train: x if train else -x)
    assert [told.apply({}, mx.array(2), train=mode)[0].item() for mode in (True, False)] == [2, -2]
    assert nn.fn(lambda *xs, **kw: (xs, kw)).apply({}, 1, 2, a=3)[0] == ((1, 2), {"a": 3})
    noisy = nn.fn(lambda x, train: x + mx.random.normal(x.shape) if train else x)
    assert mx.array_equal(noisy.apply({}, X, train=True, key=1)[0], noisy.apply({}, X, train=True, key=1)[0])
    with pytest.raises(ValueError, match="no key"):
        noisy.apply({}, X, train=True)


def test_threads_may_share_a_layer():
    layer = nn.sequential(nn.lift(Block, 4), nn.dropout(0.5))
    params = nn.init(0)(layer)
    mx.eval(X)
    expected = {seed: layer.apply(params, X, train=True, key=seed)[0].tolist() for seed in range(4)}
    found, errors = {}, []

    def work(seed):
        try:
            found[seed] = [layer.apply(params, X, train=True, key=seed)[0].tolist() for _ in range(20)]
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert found == {seed: [value] * 20 for seed, value in expected.items()}


def test_a_thread_may_be_the_first_to_run_a_layer():
    """A lazy array belongs to the thread that made it: constants are computed when the layer is made."""
    layer = nn.lift(Block, 4)
    params, found = nn.init(0)(layer), []
    worker = threading.Thread(target=lambda: found.append(layer.apply(params, mx.ones((2, 4)))[0].tolist()))
    worker.start()
    worker.join()
    assert found == [layer.apply(params, mx.ones((2, 4)))[0].tolist()]


def test_a_lifted_module_trains_as_mlx_trains_it():
    """The same numbers as the idiom of mlx.nn, through the compiled step."""
    layer = nn.lift(Block, 4)
    params = nn.init(0)(layer)
    module = nn.lower(layer, params)
    step = fp.train_step(layer, mean_square, optim.sgd(0.1))
    state = step.init(params, seed=5)
    theirs = mlx_optimizers.SGD(0.1)
    key = state[1]["key"].tolist()
    mx.random.seed((key[0] << 32) | key[1])
    for _ in range(3):
        value, grads = mlx_nn.value_and_grad(module, mean_square)(module, X)
        theirs.update(module, grads)
        *state, logs = step(*state, X)
        assert logs["loss"].item() == pytest.approx(value.item(), rel=1e-4)
    assert_close(state[0], module.parameters(), rtol=1e-4)
    assert step.traces <= 1  # none where nothing compiles


def test_a_frozen_module_piped_into_a_model_keeps_its_rules():
    module = mlx_nn.Linear(4, 4)
    module.freeze(keys="weight")
    model = pipe(nn.sequential(first=module, last=mlx_nn.Linear(4, 2)))
    params = nn.init(0)(model)
    assert fp.paths(model.trainable(params))(params) == ("first.bias", "last.weight", "last.bias")


def test_parameters_that_are_missing_or_unknown_are_named():
    layer = nn.linear(4, 2)
    params = nn.init(1)(layer)
    with pytest.raises(KeyError, match="unknown path of the parameters, 'weight': did you mean 'wieght'"):
        layer.apply({"wieght": params["weight"], "bias": params["bias"]}, mx.ones((1, 4)))
    with pytest.raises(KeyError, match="unknown path of the module, 'extra'"):
        layer.apply({**params, "extra": mx.ones(1)}, mx.ones((1, 4)))


def test_what_is_done_in_place_to_split_or_lowered_arrays_stays_there():
    module = mlx_nn.Linear(4, 2)
    before = module.weight.tolist()
    layer, params = nn.split(module)
    params["weight"] += 1
    assert module.weight.tolist() == before
    assert nn.init(0)(layer)["weight"].tolist() == before
    model = nn.sequential(layer)
    own = nn.init(0)(model)
    lowered = nn.lower(model, own)
    lowered["layers"][0]["weight"] += 1
    assert own["layers"][0]["weight"].tolist() == before


def test_a_predictor_can_be_exported(tmp_path):
    model = nn.sequential(nn.linear(4, 8), nn.relu, nn.linear(8, 2))
    predict = nn.predictor(nn.init(0)(model))(model)
    path = str(tmp_path / "model.mlxfn")
    mx.export_function(path, predict, mx.ones((3, 4)))
    assert mx.allclose(mx.import_function(path)(mx.ones((3, 4)))[0], predict(mx.ones((3, 4))))


def test_a_layer_keeps_no_parameters_and_leaves_a_module_that_a_function_returns_alone():
    net = mlx_nn.Linear(300, 300)
    before = bits(net.parameters())
    layer = nn.lift(lambda: net)
    assert bits(net.parameters()) == before
    assert_same_bits(nn.init(0)(layer), net.parameters())
    assert len(pickle.dumps(nn.lift(mlx_nn.Linear, 300, 300))) < 10_000
