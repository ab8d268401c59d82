"""Indices out of range give NaN: they never read, and never write, the memory of others."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim

ROWS, DIMS = 5, 32
INTEGERS = (mx.int8, mx.uint8, mx.int16, mx.int32, mx.uint32, mx.int64, mx.uint64)


class Named(mlx_nn.Embedding):
    """A table of another class, which gathers as its base does."""


class Hashed(mlx_nn.Embedding):
    """A table that brings its indices into range itself."""

    def __call__(self, x):
        return super().__call__(x % ROWS)


class Scaled(mlx_nn.Embedding):
    """A table whose own `__call__` does something to the rows."""

    def __call__(self, x):
        return super().__call__(x) * 2


class ScaledTwice(Scaled):
    def __call__(self, x):
        return super().__call__(x) * 2


class ScaledQuantized(mlx_nn.QuantizedEmbedding):
    def __call__(self, x):
        return super().__call__(x) * 2


class At(mlx_nn.Module):
    """A table that is asked for a row by an integer of Python's, or by a list of them."""

    def __init__(self, at):
        super().__init__()
        self.table, self.at = mlx_nn.Embedding(ROWS, DIMS), at

    def __call__(self, x):
        return self.table(self.at) + 0 * x.sum()


class Model(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = [mlx_nn.Embedding(ROWS, DIMS)]
        self.head = mlx_nn.Linear(DIMS, 2)

    def __call__(self, x):
        return self.head(self.tables[0](x))


TABLES = {
    "embedding": lambda: nn.embedding(ROWS, DIMS),
    "quantized": lambda: nn.quantized_embedding(ROWS, DIMS, group_size=32),
    "subclass": lambda: nn.lift(Named, ROWS, DIMS),
    "own_call": lambda: nn.lift(Scaled, ROWS, DIMS),
    "own_calls": lambda: nn.lift(ScaledTwice, ROWS, DIMS),
    "own_call_quantized": lambda: nn.lift(ScaledQuantized, ROWS, DIMS, group_size=32),
    "split": lambda: nn.split(mlx_nn.Embedding(ROWS, DIMS))[0],
    "within": lambda: nn.lift(Model),
    "sequential": lambda: nn.sequential(nn.embedding(ROWS, DIMS), nn.linear(DIMS, 2)),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("compile", [True, False])
def test_an_id_out_of_range_is_nan_and_the_others_are_their_rows(kind, compile):
    model = TABLES[kind]()
    params = nn.init(0)(model)
    predict = nn.predictor(params, compile=compile)(model)
    rows = predict(mx.array([0, ROWS, 4, 1 << 30, -ROWS - 1, -(1 << 31)]))
    assert mx.isnan(rows).all(axis=-1).tolist() == [False, True, False, True, True, True]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_ids_of_every_integer_type_gather_the_rows_that_mlx_gathers(dtype):
    model = nn.embedding(ROWS, DIMS)
    params = nn.init(0)(model)
    ids = mx.array([[0, 4], [2, 2]], dtype)
    for train in (True, False):
        assert mx.array_equal(model.apply(params, ids, train=train)[0], params["weight"][ids])


def test_negative_ids_count_from_the_end_as_in_mlx():
    model = nn.embedding(ROWS, DIMS)
    params = nn.init(0)(model)
    assert mx.array_equal(model.apply(params, mx.array([-1, -ROWS]))[0], params["weight"][mx.array([4, 0])])


def test_a_large_id_of_64_bits_does_not_come_round_to_one_in_range():
    model = nn.embedding(ROWS, DIMS)
    assert mx.isnan(model.apply(nn.init(0)(model), mx.array([1 << 32]))[0]).all()


def test_the_largest_ids_without_a_sign_are_no_rows_from_the_end():
    model = nn.embedding(ROWS, DIMS)
    largest = mx.array([0], mx.uint64) - mx.array([1], mx.uint64)
    assert mx.isnan(model.apply(nn.init(0)(model), largest)[0]).all()


@pytest.mark.parametrize("at", [ROWS, -ROWS - 1, [ROWS], [0, ROWS], [[0, -ROWS - 1]]], ids=str)
def test_integers_of_python_are_guarded_too(at):
    model = nn.lift(At, at)
    rows = nn.predictor(nn.init(0)(model))(model)(mx.array([1]))
    assert mx.isnan(rows).any()
    model = nn.lift(At, [[0, -1]])
    params = nn.init(0)(model)
    assert mx.array_equal(model.apply(params, mx.array([1]))[0], params["table"]["weight"][mx.array([[0, 4]])])


def test_a_class_that_computes_its_own_indices_is_left_alone():
    model = nn.lift(Hashed, ROWS, DIMS)
    params = nn.init(0)(model)
    assert mx.array_equal(model.apply(params, mx.array([7]))[0], params["weight"][mx.array([2])])


def test_in_training_one_id_out_of_range_makes_loss_and_gradients_nan():
    model = nn.embedding(ROWS, DIMS)
    step = fp.train_step(model, lambda model, x: model(x).sum(), optim.sgd(1.0))
    params, state = step.init(0)
    done = step.gradients(params, state, mx.array([0, ROWS]))
    assert math.isnan(done.logs["loss"].item())
    trainer = fp.trainer(model, lambda model, x: model(x).square().mean())
    with pytest.raises(FloatingPointError):
        fp.fit([mx.array([0, ROWS])], epochs=3)(trainer)


def test_the_gradient_of_ids_in_range_is_mlx_s_to_the_bit():
    model = nn.embedding(ROWS, DIMS)
    params = nn.init(0)(model)
    ids = mx.array([1, 1, 3, -1])

    def through(gather):
        return mx.grad(lambda weight: gather(weight).square().sum())(params["weight"])

    ours = through(lambda weight: model.apply({"weight": weight}, ids, train=True)[0])
    assert mx.array_equal(ours, through(lambda weight: weight[ids]))


def test_validation_reports_nan_for_an_id_out_of_range():
    model = nn.lift(Model)
    evaluated = fp.evaluate([(mx.array([0, ROWS]), mx.array([0, 1]))], params=nn.init(0)(model))
    figures = evaluated(fp.trainer(model, fp.classification()))
    assert math.isnan(figures["loss"])


# labels in a user's own loss

LOGITS = mx.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
LOSSES = {
    "cross_entropy": nn.losses.cross_entropy,
    "smoothed": lambda logits, y, **kw: nn.losses.cross_entropy(logits, y, label_smoothing=0.1, **kw),
    "nll_loss": nn.losses.nll_loss,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("label", [3, -1, -100, 1 << 30])
def test_a_label_out_of_range_is_nan_and_the_others_are_their_losses(name, label):
    loss = LOSSES[name]
    each = loss(LOGITS, mx.array([1, label, 2]))
    right = loss(LOGITS, mx.array([1, 0, 2]))
    assert math.isnan(each[1].item())
    assert [each[0].item(), each[2].item()] == [right[0].item(), right[2].item()]
    for reduction in ("mean", "sum"):
        assert math.isnan(loss(LOGITS, mx.array([1, label, 2]), reduction=reduction).item())
        assert loss(LOGITS, mx.array([1, 0, 2]), reduction=reduction).item() == pytest.approx(
            getattr(mx, reduction)(right).item()
        )


def test_a_label_out_of_range_that_the_loss_leaves_out_gives_the_gradient_of_the_others():
    y = mx.array([1, -100, 2])

    def kept(logits, y):
        return mx.where(y >= 0, nn.losses.cross_entropy(logits, y), 0.0).sum()

    grads = mx.grad(kept)(LOGITS, y)
    assert grads[1].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(np.array(grads)).all()
    assert grads[0].tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3])


def test_a_label_of_weight_0_does_not_count():
    weights = mx.array([1.0, 0.0, 1.0])
    right = mlx_nn.losses.cross_entropy(LOGITS, mx.array([1, 0, 2]), weights)
    assert mx.array_equal(nn.losses.cross_entropy(LOGITS, mx.array([1, 7, 2]), weights), right)


def test_labels_along_another_axis_are_classes_of_that_axis():
    logits = mx.zeros((2, 3))
    assert mx.isnan(nn.losses.cross_entropy(logits, mx.array([0, 2, 1]), axis=0)).tolist() == [False, True, False]


def test_targets_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="are classes, integers; they are .*float32"):
        nn.losses.cross_entropy(LOGITS, mx.array([1.0, 0.0, 2.0]))


def test_a_user_s_own_loss_ends_the_run():
    def loss(model, x, y):
        return nn.losses.cross_entropy(model(x), y).mean()

    with pytest.raises(FloatingPointError):
        fp.fit([(mx.ones((2, 4)), mx.array([0, 2]))], epochs=3)(fp.trainer(nn.linear(4, 2), loss))
