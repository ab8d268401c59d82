"""The record itself: init, apply, what trains, and a model as a plain function."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
from helpers import assert_same_bits, changed, mean_square
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat

X = mx.random.normal((6, 4), key=rng.key(0))
MODEL = nn.sequential(
    encoder=nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.5)),
    head=nn.linear(8, 2),
)
HEAD = ("head.weight", "head.bias")
WEIGHTS = (
    "encoder.layers.0.weight",
    "encoder.layers.0.bias",
    "encoder.layers.1.weight",
    "encoder.layers.1.bias",
    *HEAD,
)
STATISTICS = ("encoder.layers.1.running_mean", "encoder.layers.1.running_var")


def trains(layer):
    params = nn.shapes(layer)
    return fp.paths(layer.trainable(params))(params)


def stepped(model, count=3, **options):
    step = fp.train_step(model, mean_square, optim.adam(0.1), **options)
    params, state = start = step.init(0)
    for _ in range(count):
        params, state, _ = step(params, state, X)
    return start[0], params, state


def test_init_is_a_function_of_the_key():
    one, again, other = (nn.init(seed)(MODEL) for seed in (1, mx.random.key(1), 2))
    assert_same_bits(one, again)
    assert HEAD[0] in changed(one, other)
    assert list(flat(nn.shapes(MODEL))) == list(flat(one))


def test_apply_is_a_function_of_its_arguments():
    params = nn.init(0)(MODEL)
    run = lambda **kw: MODEL.apply(params, X, **kw)[0]
    assert mx.array_equal(run(), run())
    assert mx.array_equal(run(train=True, key=3), run(train=True, key=rng.key(3)))
    assert not mx.array_equal(run(train=True, key=3), run(train=True, key=4))
    with pytest.raises(ValueError, match=r"train=True and no key: pass key=mlx_fp.rng.key\(seed\)"):
        run(train=True)
    assert nn.linear(4, 2).apply(nn.init(0)(nn.linear(4, 2)), X, train=True)[0].shape == (6, 2)


def test_a_layer_is_frozen_and_draws_itself():
    with pytest.raises(FrozenInstanceError):
        MODEL.name = "other"
    assert repr(nn.freeze("head")(MODEL)) == repr(MODEL)
    assert repr(MODEL).splitlines()[1] == "  encoder: sequential"


class Tower(mlx_nn.Module):
    def __init__(self, depth, *widths, **options):
        super().__init__()
        self.layers = [mlx_nn.Linear(2, 2) for _ in range(depth)]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.linear(64, 10), "Linear(input_dims=64, output_dims=10)"),
        (lambda: nn.linear(64, output_dims=10, bias=False), "Linear(input_dims=64, output_dims=10, bias=False)"),
        (lambda: nn.dropout(0.5), "Dropout(p=0.5)"),
        (lambda: nn.dropout(), "Dropout"),
        (lambda: nn.leaky_relu(negative_slope=0.2), "LeakyReLU(negative_slope=0.2)"),
        (lambda: nn.softmax(axis=1), "softmax(axis=1)"),
        (lambda: nn.conv2d(3, 8, (3, 5)), "Conv2d(in_channels=3, out_channels=8, kernel_size=(3, 5))"),
        (lambda: nn.lift(Tower, 2, 8, 16, mode="fast"), "Tower(depth=2, 8, 16, mode='fast')"),
        (lambda: nn.lift(Tower, 1, mx.zeros((100, 3))), "Tower(depth=1, array(100, 3))"),
        (lambda: nn.lift(Tower, 1, "a" * 100), "Tower(depth=1, str)"),
        (lambda: nn.split(mlx_nn.Linear(4, 2))[0], "Linear(input_dims=4, output_dims=2, bias=True)"),
        (lambda: nn.split(Tower(2))[0], "Tower"),
        (lambda: nn.remat(nn.linear(2, 3)), "remat(Linear(input_dims=2, output_dims=3))"),
        (lambda: nn.frozen(nn.linear(2, 3)), "frozen(Linear(input_dims=2, output_dims=3))"),
        (lambda: nn.share(2, nn.linear(3, 3)), "share(Linear(input_dims=3, output_dims=3))"),
        (lambda: nn.wide(nn.layer_norm(4)), "wide(LayerNorm(dims=4))"),
        (lambda: nn.method(nn.embedding(5, 2), "as_linear"), "Embedding(num_embeddings=5, dims=2).as_linear"),
    ],
)
def test_a_lifted_layer_prints_the_arguments_that_were_given(make, text):
    assert repr(make()) == text


def test_a_layer_of_two_functions():
    scale = nn.layer(lambda: {"by": mx.random.normal()}, lambda p, xs, kw, train: (xs[0] * p["by"], p), name="scale")
    mx.random.seed(5)
    assert nn.init(5)(scale)["by"].item() == mx.random.normal().item()
    assert trains(nn.sequential(scale)) == ("layers.0.by",)


FREEZES = {
    "nothing": ((), WEIGHTS),
    "subtree": ((nn.freeze("encoder"),), HEAD),
    "exact": ((nn.freeze("head.bias"),), WEIGHTS[:-1]),
    "all": ((nn.freeze(),), ()),
    "all but": ((nn.freeze(), nn.unfreeze("head")), HEAD),
    "last wins": ((nn.unfreeze("head"), nn.freeze()), ()),
    "narrower later": ((nn.freeze("encoder"), nn.unfreeze("encoder.layers.0.bias")), (WEIGHTS[1], *HEAD)),
    "wider later": ((nn.freeze("encoder.layers.0.bias"), nn.unfreeze("encoder")), WEIGHTS),
    "by function": (
        (nn.freeze(lambda path: path.endswith("weight")),),
        tuple(p for p in WEIGHTS if p.endswith("bias")),
    ),
    "by leaf": ((nn.freeze(fp.ndim(1)),), tuple(p for p in WEIGHTS if p in (WEIGHTS[0], HEAD[0]))),
    "unfreeze is no buffer's": ((nn.freeze(), nn.unfreeze()), WEIGHTS),
}


@pytest.mark.parametrize("case", FREEZES)
def test_freeze_and_unfreeze(case):
    verbs, expected = FREEZES[case]
    assert trains(pipe(MODEL, *verbs)) == expected
    assert trains(MODEL) == WEIGHTS


def test_a_child_frozen_inside_thaws_from_outside():
    inside = nn.sequential(body=nn.residual(nn.freeze("weight")(nn.linear(4, 4))), head=nn.linear(4, 2))
    assert trains(inside) == ("body.layers.0.bias", *HEAD)
    assert trains(nn.unfreeze("body")(inside)) == ("body.layers.0.weight", "body.layers.0.bias", *HEAD)
    assert trains(nn.unfreeze()(inside)) == ("body.layers.0.weight", "body.layers.0.bias", *HEAD)
    stack = nn.stack(2, lambda i: nn.freeze()(nn.linear(4, 4)) if i == 0 else nn.linear(4, 4))
    assert trains(stack) == ("layers.1.weight", "layers.1.bias")
    assert trains(nn.unfreeze("layers.0.bias")(stack))[0] == "layers.0.bias"


@pytest.mark.parametrize("verb", [nn.freeze, nn.unfreeze], ids=lambda f: f.__name__)
def test_a_spec_that_chooses_nothing_is_an_error_with_the_nearest_paths(verb):
    words = r"'haed.weight' matches no parameter of sequential; nearest: .*head.weight"
    for spec in ("haed.weight", ["head", "haed.weight"]):
        with pytest.raises(KeyError, match=words):
            verb(spec)(MODEL)
    with pytest.raises(KeyError, match=r"matching\('\^decoder'\) matches no parameter"):
        verb(fp.matching("^decoder"))(MODEL)
    assert trains(verb("haed.weight", strict=False)(MODEL)) == WEIGHTS
    verb("encoder.layers.1")(MODEL)


def test_freeze_takes_a_record_with_a_model_and_nothing_else():
    @dataclass(frozen=True)
    class Trainer:
        model: Any
        other: int = 3

    trainer = nn.freeze("encoder")(Trainer(MODEL))
    assert trains(trainer.model) == HEAD
    assert trainer.other == 3
    for odd in (3, Trainer(4), {"model": MODEL}):
        with pytest.raises(TypeError, match="freeze and unfreeze take a Layer or a record with one; got"):
            nn.freeze()(odd)
    with pytest.raises(TypeError, match="a spec is None, a path"):
        nn.freeze(3)


def test_frozen_leaves_get_no_memory_and_no_update_and_buffers_follow_the_mode():
    before, after, state = stepped(nn.freeze("encoder")(MODEL))
    assert changed(before, after) == {*HEAD, *STATISTICS}
    kept = [path for path in fp.paths()(state["optimizer"]) if "encoder" in path]
    assert not kept
    assert any("head.weight" in path for path in fp.paths()(state["optimizer"]))


def test_the_step_narrows_and_never_widens():
    before, after, _ = stepped(nn.freeze("encoder")(MODEL), trainable=fp.matching("weight$"))
    assert changed(before, after) == {"head.weight", *STATISTICS}


def test_freezing_makes_another_step_and_does_not_change_one():
    step = fp.train_step(MODEL, mean_square, optim.sgd(0.1))
    params, state = step.init(0)
    step(params, state, X)
    nn.freeze()(MODEL)
    after, _, _ = step(params, state, X)
    assert changed(params, after) == {*WEIGHTS, *STATISTICS}
    assert step.traces <= 1  # none where nothing compiles
    with pytest.raises(ValueError, match="nothing trains"):
        fp.train_step(nn.freeze()(MODEL), mean_square, optim.sgd(0.1)).init(0)


def test_frozen_runs_in_evaluation_mode_always():
    still = nn.sequential(encoder=nn.frozen(MODEL), out=nn.linear(2, 1))
    before, after, _ = stepped(still)
    assert changed(before, after) == {"out.weight", "out.bias"}
    alone = nn.frozen(MODEL)
    params = nn.init(0)(alone)
    assert mx.array_equal(alone.apply(params, X, train=True)[0], MODEL.apply(params, X)[0])
    assert alone.name == "frozen(sequential)"
    thawed = nn.unfreeze("encoder")(still)
    assert changed(*stepped(thawed)[:2]) == {f"encoder.{path}" for path in WEIGHTS} | {"out.weight", "out.bias"}


def test_gradients_are_computed_for_what_trains_only():
    step = fp.train_step(nn.freeze("encoder")(MODEL), mean_square, optim.sgd(0.1))
    grads, rest, *_ = step.gradients(*step.init(0), X)
    assert fp.paths()(grads) == HEAD
    assert set(fp.paths()(rest)) == {*WEIGHTS[:-2], *STATISTICS}


@pytest.mark.parametrize("compile", [False, True])
def test_a_predictor_is_a_plain_function(compile):
    params = nn.init(0)(MODEL)
    predict = pipe(MODEL, nn.predictor(params, compile=compile))
    expected = MODEL.apply(params, X)[0]
    for x in (X, np.array(X)):
        assert mx.allclose(predict(x), expected, atol=1e-6)
        assert mx.allclose(predict(x), expected, atol=1e-6)
    assert predict(X[:2]).shape == (2, 2)


@pytest.mark.parametrize("compile", [False, True])
def test_a_predictor_does_not_train_even_after_training(compile):
    step = fp.train_step(MODEL, mean_square, optim.adam(0.1))
    params, state = step.init(0)
    params, state, _ = step(params, state, X)
    predict = nn.predictor(params, compile=compile)(MODEL)
    before = flat(params)[STATISTICS[0]].tolist()
    first = predict(X)
    step(params, state, X)
    mx.random.seed(1)
    assert mx.array_equal(predict(X), first)
    assert flat(params)[STATISTICS[0]].tolist() == before


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.usual("False")
def test_a_predictor_takes_trees_with_numpy_arrays_in_them(compile):
    model = nn.fn(lambda batch, pair: batch["x"] @ mx.ones((4, 1)) + pair[0])
    predict = nn.predictor({}, compile=compile)(model)
    y = predict({"x": np.ones((2, 4), np.float32)}, (np.float32(1.0), 2))
    assert isinstance(y, mx.array)
    assert y.tolist() == [[5.0], [5.0]]


def test_a_predictor_takes_keywords_and_many_arrays():
    attention = nn.multi_head_attention(4, 2)
    params = nn.init(0)(attention)
    x, mask = X[None], np.array(mlx_nn.MultiHeadAttention.create_additive_causal_mask(6))
    masked = nn.predictor(params)(attention)(x, x, x, mask=mask)
    assert mx.allclose(masked, attention.apply(params, x, x, x, mx.array(mask))[0])
    assert not mx.allclose(masked, nn.predictor(params)(attention)(x, x, x))


def test_a_notebook_shows_the_parameters_of_each_part():
    page = nn.freeze("head")(MODEL)._repr_html_()
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>.*?</td>", page)]
    assert cells[:3] == ["sequential", str(40 + 32 + 18), str(40 + 16)]
    assert cells[-3:] == ["  head: Linear(input_dims=8, output_dims=2)", "18", "0"]
    assert "&lt;b&gt;" in nn.fn(abs, "<b>")._repr_html_()


def test_a_notebook_shows_a_large_layer_without_computing_it():
    assert "100,010,000" in nn.linear(10_000, 10_000)._repr_html_()
