"""Softmax, attention and cross entropy of plain operations: MLX's own numbers, gradients and errors."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core.backend import using
from mlx_fp.cpu import _composed as plain
from mlx_fp.cpu import _native
from mlx_fp.cpu._backend import NATIVE

X = mx.random.normal((5, 7), key=mx.random.key(0)) * 3
LARGE = mx.array([[1e4, -1e4, 0.0], [-1e30, -1e30, -1e30], [88.0, 89.0, 90.0]])


@pytest.fixture
def engaged(monkeypatch):
    """Take the fast forms, whichever way kernels are built."""
    monkeypatch.setattr(_native, "_folders", ["here"])


@pytest.mark.parametrize("x", [X, LARGE, X[None, :, :1]])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("name", ["softmax"])
def test_values_and_derivatives_are_those_of_mlx(name, axis, x):
    ours, theirs = getattr(plain, name), getattr(mx, name)
    assert_close(ours(x, axis), theirs(x, axis))
    weight = mx.random.normal(theirs(x, axis).shape, key=mx.random.key(1))

    def first(of):
        return mx.grad(lambda x: (of(x, axis) * weight).sum())

    def second(of):
        return mx.grad(lambda x: (first(of)(x) ** 2).sum())

    assert_close(first(ours)(x), first(theirs)(x), rtol=1e-4)
    assert_close(mx.compile(first(ours))(x), first(theirs)(x), rtol=1e-4)
    if x is not LARGE:
        assert_close(second(ours)(x), second(theirs)(x), rtol=1e-3)
    assert_close(mx.vmap(lambda row: ours(row, -1))(x), theirs(x, -1))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_cross_entropy_is_that_of_mlx(reduction, axis):
    logits = mx.random.normal((4, 6, 3), key=mx.random.key(2))
    shape = (4, 6) if axis == -1 else (4, 3)
    labels = mx.random.randint(0, 3, shape, key=mx.random.key(3))

    def loss(of):
        return lambda logits: of(logits, labels, axis=axis, reduction=reduction).sum()

    ours, theirs = plain.cross_entropy, mlx_nn.losses.cross_entropy
    assert_close(
        ours(logits, labels, axis=axis, reduction=reduction), theirs(logits, labels, axis=axis, reduction=reduction)
    )
    assert_close(mx.grad(loss(ours))(logits), mx.grad(loss(theirs))(logits), rtol=1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {"weights": mx.array([1.0, 2.0])},
        {"label_smoothing": 0.1},
        {"targets": mx.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])},
        {"logits": mx.ones((2, 3), mx.float16)},
    ],
)
def test_what_is_not_common_is_computed_by_mlx(given):
    logits, labels = mx.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]]), mx.array([2, 1])
    options = {"logits": logits, "targets": labels, "reduction": "mean", **given}
    ours, theirs = plain.cross_entropy(**options), mlx_nn.losses.cross_entropy(**options)
    assert ours.dtype == theirs.dtype
    assert ours.item() == theirs.item()


def test_it_is_computed_where_the_backend_is_in_use_and_by_mlx_elsewhere(monkeypatch):
    used = []
    monkeypatch.setattr(plain, "class_entropy", lambda *given, of=plain.class_entropy: used.append(1) or of(*given))
    labels = mx.array([0, 1, 2, 3, 4])
    theirs = mlx_nn.losses.cross_entropy(X, labels)
    assert nn.losses.cross_entropy(X, labels).tolist() == theirs.tolist()
    assert not used
    assert_close(using(NATIVE)(nn.losses.cross_entropy)(X, labels), theirs)
    assert used


@pytest.mark.parametrize(
    "wrong", [{"reduction": "men"}, {"label_smoothing": 2.0}, {"targets": mx.zeros((3,), mx.int32)}]
)
def test_errors_are_those_of_mlx(wrong):
    options = {"logits": mx.ones((2, 3)), "targets": mx.zeros((2,), mx.int32), **wrong}
    with pytest.raises(ValueError, match=".") as theirs:
        mlx_nn.losses.cross_entropy(**options)
    with pytest.raises(type(theirs.value)):
        plain.cross_entropy(**options)


@pytest.mark.parametrize("mask", [None, "additive", "bool", "causal"])
def test_attention_in_a_lifted_module_is_that_of_mlx(monkeypatch, mask):
    n = 5
    given = {
        None: None,
        "additive": mlx_nn.MultiHeadAttention.create_additive_causal_mask(n),
        "bool": mx.tril(mx.ones((n, n), mx.bool_)),
        "causal": "causal",
    }[mask]
    model = nn.lift(mlx_nn.MultiHeadAttention, 8, 2)
    params = nn.init(0)(model)
    x = mx.random.normal((3, n, 8), key=mx.random.key(4))

    def loss(params):
        return (model.apply(params, x, x, x, given, train=True)[0] ** 2).sum()

    theirs = mx.value_and_grad(loss)(params)
    used = []
    monkeypatch.setattr(
        plain, "attention", lambda *a, attention=plain.attention, **k: used.append(1) or attention(*a, **k)
    )
    ours = using(NATIVE)(mx.value_and_grad(loss))(params)
    assert_close(ours[0], theirs[0])
    assert_close(ours[1], theirs[1], rtol=1e-3)
    assert bool(used) is (mask in (None, "additive"))


def test_a_step_of_a_language_model_takes_them(engaged):
    class Net(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attend = mlx_nn.Embedding(5, 8), mlx_nn.MultiHeadAttention(8, 2)
            self.head = mlx_nn.Linear(8, 5)

        def __call__(self, x):
            x = self.embed(x)
            return self.head(x + self.attend(x, x, x))

    step = fp.train_step(nn.lift(Net), fp.language_modeling().loss, optim.adam(1e-2))
    state = step.init(0)
    x = mx.random.randint(0, 5, (4, 6), key=mx.random.key(1))
    losses = []
    for _ in range(30):
        *state, logs = step(*state, {"x": x, "y": x})
        losses.append(logs["loss"].item())
    assert losses[-1] < 0.5 * losses[0]
