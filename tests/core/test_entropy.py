"""Cross entropy and log softmax keep their digits for large scores."""

import mlx.core as mx
import pytest
from helpers import assert_close

from mlx_fp.core._entropy import class_entropy, log_softmax

SCORES = mx.random.normal((4, 6), key=mx.random.key(0))
CLASSES = mx.array([0, 5, 2, 2])


@pytest.mark.parametrize("large", [0.0, 1e4, -1e4])
def test_values_and_gradients_do_not_depend_on_a_common_addend(large):
    scores = mx.round(SCORES * 64) / 64 + large  # exact, so that the addend changes nothing but the size
    plain = mx.round(SCORES * 64) / 64
    assert_close(class_entropy(scores, CLASSES), mx.logsumexp(plain, -1) - plain[mx.arange(4), CLASSES])
    assert_close(log_softmax(scores), plain - mx.logsumexp(plain, -1, keepdims=True))
    gradient = mx.grad(lambda s: class_entropy(s, CLASSES).sum())(scores)
    assert_close(gradient, mx.softmax(plain, -1) - (CLASSES[:, None] == mx.arange(6)), atol=1e-6)
    assert_close(mx.grad(lambda s: log_softmax(s)[:, 1].sum())(scores), (mx.arange(6) == 1) - mx.softmax(plain, -1))


def test_two_equal_scores_of_any_size_have_the_entropy_of_a_coin():
    assert_close(class_entropy(mx.array([[1e8, 1e8]]), mx.array([0])), mx.log(mx.array([2.0])))


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_the_axis_of_the_classes(axis):
    scores = mx.random.normal((2, 3, 4), key=mx.random.key(1))
    classes = mx.zeros([n for i, n in enumerate(scores.shape) if i != axis % 3], mx.int32)
    first = mx.take(mx.moveaxis(scores, axis, -1), mx.array(0), axis=-1)
    assert_close(class_entropy(scores, classes, axis), mx.logsumexp(scores, axis) - first)


def test_a_class_without_probability_has_an_infinite_entropy():
    scores = mx.array([[0.0, -mx.inf]])
    assert class_entropy(scores, mx.array([1])).item() == mx.inf
    assert class_entropy(scores, mx.array([0])).item() == 0
