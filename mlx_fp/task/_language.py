"""The task to predict the next token."""

from __future__ import annotations

from collections.abc import Sequence

from ..core._types import Array, Batch, Forward, Loss, Tree
from ._folds import Metric, checked
from ._head_loss import check_head, head_loss, head_metrics
from ._labels import check_ignore
from ._losses import entropy, output_of
from ._mean import Mean
from ._packed import PACKED, context_of, shifted_columns
from ._task import CollateSpec, Task, columns_of, watched_figure
from .metrics import perplexity, token_accuracy

__all__ = ["language_modeling"]


def language_modeling(
    *,
    ignore: int | None = None,
    head: str | bool | None = None,
    loss: Loss | None = None,
    metrics: Sequence[Metric] | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task to predict the next token: cross entropy of logits `(n, tokens, vocabulary)`, and perplexity.

    Labels `y` are int `(n, tokens)`. A batch that is a single array `(n, tokens + 1)` is split: the inputs are
    `batch[:, :-1]`, the labels `batch[:, 1:]`. Other batches are those of `classification`. Leave padding out by
    `ignore`, or by a third column `mask` that is 0 there. The loss is the mean over the tokens that count.

    A dict with `tokens`, as `data.pack` makes it, is split, too. It may have these columns of the shape of `tokens`:

    - `mask`: 1 for each token that counts as a label, else 0;
    - `segments`: the number of the sequence of each token, 0 for padding. The first token of a segment is no label. The
      model gets `mask=nn.segment_mask(segments)` if it takes `mask`, and `segments` if it takes these;
    - `positions`: the place of each token in its sequence. The model gets them if it takes `positions`.

    Args:
        ignore: A label that counts neither in the loss nor in the metrics. By default every label counts.
        head: The path of the layer that makes the logits, or True to find it. The loss then computes the logits of some
            rows at a time and never has them all, see `nn.losses.linear_cross_entropy`. The path is for example
            "lm_head", or "model.embed_tokens" where an embedding is used by `as_linear`. A tanh soft cap and a factor
            after the head are recognised. Token accuracy needs the logits; the perplexity alone is the default then.
        loss: A function `loss(forward, x, y)` that replaces the loss.
        metrics: Metrics that replace the perplexity and the token accuracy.
        monitor: The figure to watch, by default `val_perplexity` where that metric exists, else
            `val_loss`.
        mode: The direction of that figure, `"min"` or `"max"`. By default it is the direction of the metric.
        collate: A spec for `data.collate`, which shapes the batches. By default columns are bound by their names.

    Returns:
        A Task, for `fp.trainer`. Its loss raises ValueError for a batch with segments if the model takes neither `mask`
        nor `segments`.

    Raises:
        ValueError: `head` beside a loss, or beside a metric that needs logits. In a step: the model has no such head,
            or it computes something else after its head; the message has the remedy.

    >>> language_modeling()
    language_modeling(perplexity, token_accuracy)
    >>> language_modeling(head="lm_head")
    language_modeling(perplexity)
    """
    check_ignore(ignore)
    check_head(head, loss)

    def cross_entropy(
        forward: Forward, x: Tree = ..., y: Tree = ..., mask: Array | None = None, **inputs: Tree
    ) -> Mean:
        return entropy(_output(forward, x, y, inputs), y, mask, ignore, None)

    if head:
        loss, folds = head_loss(head, ignore, _output), head_metrics(metrics)
    else:
        folds = (perplexity(ignore=ignore), token_accuracy(ignore=ignore)) if metrics is None else checked(metrics)
    watched = monitor or watched_figure("val_perplexity", folds)
    return Task("language_modeling", loss or cross_entropy, folds, watched, mode, collate or _shifted, "tokens")


def _output(forward: Forward, x: Tree, y: Tree, inputs: dict[str, Tree]) -> Tree:
    """Call the model on the inputs of a batch; of packed rows, it gets the columns that it takes."""
    if x is ...:  # the model takes all inputs by name
        return output_of(forward, x, y, inputs)
    context = context_of(forward, inputs.pop("segments", None), inputs.pop("positions", None))
    return output_of(forward, x, y, inputs, context)


def _shifted(batch: Batch) -> Batch:
    """Split an array of tokens, or the columns of packed rows, into inputs and labels."""
    if isinstance(batch, dict) and "tokens" in batch and len(batch) > 1 and set(batch) <= set(PACKED):
        return shifted_columns(batch)
    if isinstance(batch, (dict, tuple, list)):
        if len(batch) > 1:
            return columns_of(batch)
        (batch,) = batch.values() if isinstance(batch, dict) else batch
    if batch.ndim != 2 or batch.shape[1] < 2:
        raise ValueError(f"a batch of tokens is an array (n, tokens + 1); got {tuple(batch.shape)}")
    return batch[:, :-1], batch[:, 1:]
