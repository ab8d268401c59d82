"""Frozen layers beside a model: arguments of the compiled step that no update reaches."""

from __future__ import annotations

import pickle

import mlx.core as mx
import mlx.nn
import pytest
from helpers import assert_close, assert_same_bits, bits, changed, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((6, 3), key=mx.random.key(1))
TEACHER = small_net()
STUDENT = nn.sequential(nn.linear(3, 5), nn.dropout(0.2), nn.linear(5, 2))


class Autoencoder(mlx.nn.Module):
    """A module with a method besides its call."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = mlx.nn.Linear(3, 2), mlx.nn.Linear(2, 3)

    def encode(self, x):
        return mlx.nn.tanh(self.inner(x))

    def __call__(self, x):
        return self.outer(self.encode(x))


def imitate(forward, x):
    return (forward(x) - forward.teacher(x)).square().mean()


def pair(model=STUDENT, **others):
    return nn.with_frozen(**(others or {"teacher": TEACHER}))(model)


def test_the_model_runs_as_before_on_its_own_paths():
    model, params = pair(), nn.init(3)(pair())
    own = {name: tree for name, tree in params.items() if name != "teacher"}
    assert_same_bits(own, nn.init(3)(STUDENT))  # the model draws first
    assert_same_bits(nn.predictor(params)(model)(X), nn.predictor(own)(STUDENT)(X))
    assert fp.paths(model.trainable(params))(params) == fp.paths()(own)


@pytest.mark.parametrize("base", [STUDENT, nn.lift(Autoencoder), nn.linear(3, 2)], ids=["layers", "module", "layer"])
def test_the_gradient_is_that_of_a_loss_with_the_outputs_of_the_teacher(base):
    target = mx.random.normal((6, 3 if base.name == "Autoencoder" else 2), key=mx.random.key(2))
    teacher = nn.linear(3, target.shape[1])
    model = pair(base, teacher=teacher)
    params = nn.init(0)(model)
    teacher_out = nn.predictor(params["teacher"])(teacher)(X)
    one = fp.train_step(model, imitate, optim.sgd(0.1))
    other = fp.train_step(base, lambda forward, x, y: (forward(x) - y).square().mean(), optim.sgd(0.1))
    own = {name: tree for name, tree in params.items() if name != "teacher"}
    params, _, logs = one(*one.init(params, seed=5), X)
    own, _, expected = other(*other.init(own, seed=5), (X, teacher_out))
    assert_close(logs["loss"], expected["loss"])
    assert_close({name: tree for name, tree in params.items() if name != "teacher"}, own)


@pytest.mark.parametrize("options", [{}, {"dtype": mx.bfloat16}, {"parts": 3}, {"compile": False}], ids=str)
@pytest.mark.usual("{}", "{'dtype': mlx.core.bfloat16}", "{'compile': False}")
def test_no_bit_of_the_frozen_side_changes_and_the_optimiser_keeps_nothing_of_it(options):
    step = fp.train_step(pair(), imitate, pipe(optim.adamw(0.1), optim.ema(0.9)), **options)
    params, state = step.init(0)
    begun = bits(params["teacher"])
    assert "teacher.norm.running_mean" in fp.flat(params)
    for _ in range(5):
        params, state, _ = step(params, state, X)
    assert bits(params["teacher"]) == begun
    assert not [path for path in fp.flat(state) if "teacher" in path]
    assert step.traces == (0 if options == {"compile": False} else 1)


def test_the_frozen_side_is_an_argument_of_the_step():
    model = pair(nn.linear(3, 2))
    step = fp.train_step(model, imitate, optim.sgd(0.0))
    params, state = step.init(0)
    for seed in (1, 2):
        params["teacher"] = nn.init(seed)(TEACHER)
        student = X @ params["weight"].T + params["bias"]
        teacher = nn.predictor(params["teacher"])(TEACHER)(X)
        assert_close(step(params, state, X)[2]["loss"], (student - teacher).square().mean())
    assert step.traces == 1


def test_arrays_that_both_sides_have_exist_once_until_the_update():
    big = nn.linear(1000, 1000, bias=False)
    params = nn.init(0)(big)
    model = pair(big, teacher=(big, params))
    step = fp.train_step(model, lambda f, x: (f(x) - f.teacher(x)).square().mean() + f(x).mean(), optim.sgd(0.1))
    before = mx.get_active_memory()
    both, state = step.init({**params, "teacher": params})
    taken = mx.get_active_memory() - before - sum(leaf.nbytes for leaf in fp.flat(state).values())
    assert taken < 1_000_000  # a copy of the weights has 4 MB
    begun = bits(params)
    for _ in range(3):
        both, state, _ = step(both, state, mx.ones((2, 1000)))
    mx.eval(both)
    assert bits(both["teacher"]) == begun == bits(params)
    assert changed({"weight": both["weight"]}, params) == {"weight"}


def test_a_pair_or_a_module_gives_its_own_arrays():
    module = Autoencoder()
    layer, params = nn.split(module)
    for entry in (module, (layer, params), nn.split(module)):
        assert_same_bits(nn.init(4)(pair(teacher=entry))["teacher"], params)


def test_methods_of_the_module_stay_callable():
    model = pair(nn.lift(Autoencoder), teacher=nn.lift(Autoencoder))
    step = fp.train_step(model, lambda f, x: f.encode(x).sum() - f.teacher(x).sum() * 0, optim.sgd(0.1))
    params, state = step.init(0)
    expected = mx.tanh(X @ params["inner"]["weight"].T + params["inner"]["bias"]).sum()
    after, _, logs = step(params, state, X)
    assert_close(logs["loss"], expected)
    assert changed(params, after) == {"inner.weight", "inner.bias"}


def test_freezing_a_part_of_the_model_before_leaves_the_rest_to_train():
    model = pair(nn.freeze("layers.0")(STUDENT))
    params = nn.init(0)(model)
    assert fp.paths(model.trainable(params))(params) == ("layers.2.weight", "layers.2.bias")
    frozen = {path for path, leaf in fp.flat(params).items() if not model.trainable(params)(path, leaf)}
    assert {path for path in fp.flat(params) if path.startswith("teacher.")} < frozen


def test_wide_parts_stay_the_parts_of_their_owner():
    model = pair(nn.wide(nn.linear(3, 2)), teacher=nn.sequential(nn.linear(3, 2), nn.wide(nn.linear(2, 2))))
    chosen = [path for path in fp.flat(nn.shapes(model)) if model.wide(path, None)]
    assert chosen == ["weight", "bias", "teacher.layers.1.weight", "teacher.layers.1.bias"]


@pytest.mark.parametrize("base", [STUDENT, nn.lift(Autoencoder)], ids=["layers", "module"])
def test_a_summary_counts_all_arrays_once(base):
    model = pair(base)
    params = nn.init(0)(model)
    summary = nn.summary(model)
    assert (summary.count, summary.trainable) == (fp.size(params), fp.size(nn.init(0)(base)))
    assert sum(row.count for row in summary.rows) == summary.count
    assert {row.path.partition(".")[0] for row in summary.rows} >= {*params} - {""}


def test_a_lowered_pair_computes_what_the_model_computes():
    model = pair(nn.lift(Autoencoder))
    params = nn.init(0)(model)
    module = nn.lower(model, params)
    module.eval()
    assert_close(module(X), nn.predictor(params)(model)(X))
    assert sorted(fp.flat(module.trainable_parameters())) == sorted(fp.paths(model.trainable(params))(params))


def test_wrong_entries_are_named():
    with pytest.raises(ValueError, match="by name"):
        nn.with_frozen()
    with pytest.raises(ValueError, match="cannot be called 'layers'"):
        pair(layers=TEACHER)
    with pytest.raises(TypeError, match=r"a layer, or a pair \(layer, params\); got \(Layer, dict, int\)"):
        nn.with_frozen(teacher=(TEACHER, {}, 1))
    with pytest.raises(ValueError, match="not those of"):
        nn.with_frozen(teacher=(TEACHER, nn.init(0)(STUDENT)))
    with pytest.raises(TypeError, match="with_frozen takes a Layer; got dict"):
        nn.with_frozen(teacher=TEACHER)({})


def test_parameters_without_the_frozen_side_are_an_error_that_names_it():
    step = fp.train_step(pair(), imitate, optim.sgd(0.1))
    with pytest.raises(ValueError, match="teacher"):
        step.init(nn.init(0)(STUDENT))


def test_a_model_with_a_teacher_goes_through_pickle():
    model = pair()
    again = pickle.loads(pickle.dumps(model))
    params = nn.init(0)(model)
    assert repr(again) == repr(model)
    assert_same_bits(nn.init(0)(again), params)
    assert fp.paths(again.trainable(params))(params) == fp.paths(model.trainable(params))(params)


@pytest.mark.parametrize("base", [nn.sequential(nn.linear(3, 3), nn.linear(3, 3)), nn.lift(Autoencoder)], ids=str)
@pytest.mark.usual("Autoencoder")
def test_adapters_go_into_the_model_before_or_after_the_teacher_comes(base):
    teacher = nn.lift(Autoencoder)
    spec = "layers.1" if base.parts else "outer"
    one = pair(nn.lora(spec, rank=2)(base), teacher=teacher)
    other = nn.lora(spec, rank=2)(pair(base, teacher=teacher))
    params = nn.init(0)(one)
    trains = [fp.paths(model.trainable(params))(params) for model in (one, other)]
    assert trains[0] == trains[1] == (f"{spec}.lora_a", f"{spec}.lora_b")
    assert nn.shapes(one).keys() == nn.shapes(other).keys()
    begun = nn.predictor(params)(other)(X)
    step = fp.train_step(other, imitate, optim.sgd(0.1))
    after, _, _ = step(*step.init(params), X)
    assert changed(params, after) == {f"{spec}.lora_b"}  # lora_b begins at zero, so lora_a has no gradient yet
    assert_close(nn.predictor(nn.without_adapters(after))(other)(X), begun)


def test_a_frozen_part_can_be_quantised():
    wide = nn.linear(64, 2)
    model = nn.quantized("teacher", group_size=32)(pair(nn.linear(64, 2), teacher=wide))
    params = nn.init(0)(model)
    assert {"teacher.scales", "teacher.biases"} < {*fp.flat(params)}
    assert fp.paths(model.trainable(params))(params) == ("weight", "bias")
