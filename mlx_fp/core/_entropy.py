"""Cross entropy and log softmax in a form that keeps its digits for large scores.

With the largest score `m`, the cross entropy of class `y` is `log(sum(exp(s - m))) - (s[y] - m)`. The textbook form,
`logsumexp(s) - s[y]`, rounds two numbers of the size of the scores before it subtracts them.
"""

from __future__ import annotations

from ._mlx import mx
from ._types import Array

__all__ = ["class_entropy", "log_softmax"]


def class_entropy(scores: Array, classes: Array, axis: int = -1) -> Array:
    """Return the cross entropy of classes: `(…, classes), (…) -> (…)`.

    Args:
        scores: The scores, or logits. `axis` is the axis of the classes.
        classes: The class of each row, integers in range.
        axis: The axis of the classes; the last one by default.

    >>> [round(value, 4) for value in class_entropy(mx.array([[0.0, 0.0], [1e8, 1e8]]), mx.array([1, 0])).tolist()]
    [0.6931, 0.6931]
    """
    largest = mx.stop_gradient(scores.max(axis=axis, keepdims=True))
    score = mx.take_along_axis(scores, mx.expand_dims(classes, axis), axis) - largest
    return mx.log(mx.exp(scores - largest).sum(axis=axis)) - score.squeeze(axis)


def log_softmax(scores: Array) -> Array:
    """Return the logarithms of the probabilities along the last axis: `(…, classes) -> (…, classes)`.

    >>> [round(value, 4) for value in log_softmax(mx.array([1e8, 1e8])).tolist()]
    [-0.6931, -0.6931]
    """
    shifted = scores - mx.stop_gradient(scores.max(axis=-1, keepdims=True))
    return shifted - mx.log(mx.exp(shifted).sum(axis=-1, keepdims=True))
