"""Parameters given to a layer are its own, or an error says what to do: weights named by path are no tree."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn
import pytest
from helpers import mean_square

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.ones((1, 4))


class Net(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = mlx.nn.Linear(4, 8)
        self.b = mlx.nn.Linear(8, 2)

    def __call__(self, x):
        return self.b(self.a(x))


MODELS = {"lifted": nn.lift(Net), "composed": nn.sequential(a=nn.linear(4, 8), b=nn.linear(8, 2))}


def step_of(model):
    return fp.train_step(model, mean_square, optim.sgd(0.1))


EDGES = {
    "predictor": lambda model, params: nn.predictor(params)(model)(X),
    "lower": nn.lower,
    "init": lambda model, params: step_of(model).init(params),
    "fit": lambda model, params: fp.fit([X], params=params, quiet=True)(fp.trainer(model, mean_square)),
    "evaluate": lambda model, params: fp.evaluate([X], params=params)(fp.trainer(model, mean_square)),
    "predict": lambda model, params: fp.predict([X])(model, params),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", MODELS)
def test_weights_named_by_path_are_refused_with_the_remedy(tmp_path, kind, edge):
    net, file = Net(), str(tmp_path / "w.safetensors")
    net.save_weights(file)
    named = mx.load(file)
    with pytest.raises(ValueError, match=r"restore_like\(nn.shapes\(model\), params\) puts them in place"):
        EDGES[edge](MODELS[kind], named)
    params = fp.restore_like(nn.shapes(MODELS[kind]), named)
    EDGES[edge](MODELS[kind], params)
    assert mx.array_equal(nn.predictor(params)(MODELS[kind])(X), net(X))


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("leaf", [mx.ones((3, 3)), 1])
def test_a_leaf_of_another_shape_is_refused(kind, edge, leaf):
    model = MODELS[kind]
    params = nn.init(0)(model)
    params["b"]["weight"] = leaf
    with pytest.raises(ValueError, match=r"b.weight is \(2, 8\), given"):
        EDGES[edge](model, params)


def test_a_lifted_module_never_computes_with_its_own_weights():
    model = MODELS["lifted"]
    with pytest.raises(KeyError, match=r"'a.weight' has no place in Net: restore_like"):
        model.apply(fp.flat(nn.init(0)(model)), X)


@pytest.mark.parametrize("edge", ["predictor", "lower", "init"])
def test_a_report_is_told_apart_from_its_parameters(edge):
    report = fp.fit([X], quiet=True)(fp.trainer(MODELS["lifted"], mean_square))
    with pytest.raises(TypeError, match=r"parameters are a tree .* got Report: give its .params"):
        EDGES[edge](MODELS["lifted"], report)


@pytest.mark.parametrize("edge", ["fit", "evaluate", "predict"])
def test_the_loop_takes_the_parameters_of_a_report(edge):
    report = fp.fit([X], quiet=True)(fp.trainer(MODELS["lifted"], mean_square))
    EDGES[edge](MODELS["lifted"], report)


@pytest.mark.parametrize("edge", ["predictor", "predict"])
def test_a_trainer_is_told_apart_from_its_model(edge):
    trainer = fp.trainer(MODELS["lifted"], mean_square)
    with pytest.raises(TypeError, match=rf"{edge} takes a Layer; got Trainer: its .model"):
        EDGES[edge](trainer, nn.init(0)(MODELS["lifted"]))


def test_lower_says_which_argument_is_which():
    with pytest.raises(TypeError, match="lower takes a Layer and its parameters; the first is dict"):
        nn.lower({}, MODELS["lifted"])
