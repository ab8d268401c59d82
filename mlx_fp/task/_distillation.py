"""The task to imitate a teacher."""

from __future__ import annotations

from collections.abc import Sequence

from ..core._entropy import log_softmax
from ..core._mlx import mx
from ..core._options import check_options, number
from ..core._types import Array, Batch, Forward, Tree
from ..data._collate import fills
from ._folds import Metric, checked
from ._frozen_model import FrozenModel, check_frozen_model, frozen_model
from ._labels import check_ignore, counting, labels_of
from ._losses import call_on, entropy, output_of
from ._mean import Mean, mean
from ._outputs import outputs
from ._task import CollateSpec, Task, columns_of, watched_figure
from .metrics import accuracy

__all__ = ["distillation"]


def distillation(
    *,
    teacher: FrozenModel = "teacher",
    temperature: float = 2.0,
    alpha: float = 0.5,
    ignore: int | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task to imitate the logits of a frozen teacher, and to predict the labels.

    The loss is `alpha * cross_entropy + (1 - alpha) * T² * KL(softmax(teacher / T), softmax(student / T))`, with the
    temperature T: Hinton et al., Distilling the Knowledge in a Neural Network, https://arxiv.org/abs/1503.02531. The
    factor T² keeps the size of the gradient of the second term. Both terms are means over the labels that count, and
    figures of their own: `cross_entropy`, and `divergence`, which has the factor T².

    Logits of both models are `(n, …, classes)`, labels are int `(n, …)`. Batches are those of `classification`. For
    language models give pairs of tokens, `(batch[:, :-1], batch[:, 1:])`. With `alpha=0` batches need no labels.

    Args:
        teacher: The name of the teacher, a layer of `nn.with_frozen`. Or a function of the parameters of the student
            that returns parameters: then the teacher is the student itself at those.
        temperature: The temperature T of both distributions, above 0. A higher one shows more of the small
            probabilities.
        alpha: The weight of the cross entropy with the labels, from 0 to less than 1.
        ignore: A label that counts neither in the loss nor in the accuracy. By default every label counts.
        metrics: Metrics of the student that replace the accuracy. With `alpha=0` there are none by default.
        monitor: The figure to watch, by default `val_accuracy` where that metric exists, else `val_loss`.
        mode: The direction of that figure, `"min"` or `"max"`. By default it is the direction of the metric.
        collate: A spec for `data.collate`, which shapes the batches. By default columns are bound by their names.

    Returns:
        A Task, for `fp.trainer`.

    Raises:
        ValueError: `temperature` or `alpha` is out of range. In a step: the model has no such teacher, or the logits of
            the teacher have another shape.
        TypeError: An option has another type.

    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.with_frozen(teacher=nn.linear(4, 3))(nn.linear(4, 3))
    >>> step = train_step(model, distillation(alpha=0.0).loss, optim.sgd(0.1))
    >>> params, state, logs = step(*step.init(0), mx.ones((2, 4)))
    >>> logs["loss"].item() > 0
    True
    """
    rules = {"temperature": number(above=0), "alpha": number(0, below=1)}
    check_options("distillation", {"temperature": temperature, "alpha": alpha}, rules)
    check_frozen_model("distillation", "teacher", teacher)
    check_ignore(ignore)

    def imitation(
        forward: Forward, x: Tree = ..., y: Tree = ..., mask: Array | None = None, **inputs: Tree
    ) -> tuple[Mean, dict[str, Mean]]:
        labelled = alpha > 0 or y is not ...
        target = call_on(frozen_model(forward, teacher), x, inputs)
        logits = outputs(output_of(forward, x, y, inputs) if labelled else call_on(forward, x, inputs))
        counts = labels_of(logits, y, mask, ignore).counts if labelled else _counts(logits, mask)
        divergence = mean(_divergence(logits, target, temperature), where=counts)
        if not alpha:
            return divergence, {"divergence": divergence}
        hard = entropy(logits, y, mask, ignore, None)
        loss = Mean(alpha * hard.total + (1 - alpha) * divergence.total, hard.weight)  # the weights are equal
        return loss, {"divergence": divergence, "cross_entropy": hard}

    folds = _default_metrics(alpha, ignore) if metrics is None else checked(metrics)
    watched = monitor or watched_figure("val_accuracy", folds)
    return Task("distillation", imitation, folds, watched, mode, collate or (columns_of if alpha else _columns))


def _default_metrics(alpha: float, ignore: int | None) -> tuple[Metric, ...]:
    return (accuracy(ignore=ignore),) if alpha else ()


def _columns(batch: Batch) -> Batch:
    """Bind columns as `columns_of` does, where there is a target."""
    return batch if isinstance(batch, dict) and not fills("y", batch) else columns_of(batch)


def _counts(logits: Array, mask: Array | None) -> Array | None:
    """Return where the logits count, bool `(n, …)`; None where all count."""
    return None if mask is None else counting(mx.zeros(logits.shape[:-1]), mask, None)


def _divergence(student: Array, teacher: Array, temperature: float) -> Array:
    """Return T² times the divergence of softened distributions, in float32: `(n, …, classes), … -> (n, …)`.

    >>> _divergence(mx.array([[1.0, 2.0]]), mx.array([[1.0, 2.0]]), 2.0).tolist()
    [0.0]
    """
    if student.shape != teacher.shape:
        raise ValueError(f"the logits of the student are {student.shape}, those of the teacher {teacher.shape}")
    log_q, log_p = (log_softmax(logits.astype(mx.float32) / temperature) for logits in (student, teacher))
    p = mx.exp(log_p)
    return temperature**2 * mx.where(p > 0, p * (log_p - log_q), 0.0).sum(axis=-1)
