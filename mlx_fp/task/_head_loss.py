"""The loss of language modeling without logits: of the hidden vectors before the head of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core._mlx import mx
from ..core._types import Array, Forward, Loss, Tree
from ..nn._bounds import within_bounds
from ..nn._head_tap import head_arrays
from ..nn._linear_cross_entropy import linear_cross_entropy
from ._folds import Metric, checked
from ._head import HeadInput, head_input
from ._labels import counting
from ._mean import Mean, mean
from ._outputs import outputs
from ._running import empty_mean, exp_of_mean, make_metric, memory_of_mean, merge_means

__all__ = ["check_head", "head_loss", "head_metrics"]


def head_loss(head: str | bool, ignore: int | None, output_of: Callable[..., Tree]) -> Loss:
    """Return the loss of language modeling without logits.

    Args:
        head: The path of the head; True to find it.
        ignore: A label that does not count, or None.
        output_of: `output_of(forward, x, y, inputs)` calls the model.
    """

    def cross_entropy(
        forward: Forward, x: Tree = ..., y: Tree = ..., mask: Array | None = None, **inputs: Tree
    ) -> Mean:
        found = head_input(head, forward, lambda model: output_of(model, x, y, dict(inputs)))
        loss = _entropy(found, y, counting(y, mask, ignore), _trained_paths(forward))
        outputs({"total": mx.stop_gradient(loss.total), "weight": loss.weight})
        return loss

    return cross_entropy


def head_metrics(metrics: Sequence[Metric] | None) -> tuple[Metric, ...]:
    """Return the metrics of the task; by default the perplexity, which needs the loss only.

    Raises:
        ValueError: A metric of the library needs the logits.
    """
    if metrics is None:
        return (_perplexity(),)
    for metric in checked(metrics):
        if getattr(metric.update, "__module__", None) == make_metric.__module__:
            raise ValueError(
                f"metric {metric.name!r} needs the output of the model, and with head= there are no logits: leave the "
                "metric out, or use the task without head=; a metric of your own gets the loss as output, the dict "
                "{'total': …, 'weight': …}"
            )
    return checked(metrics)


def check_head(head: object, loss: Loss | None) -> None:
    """Raise TypeError or ValueError for a value of `head` that is no path and not True, or beside a loss."""
    if not (isinstance(head, (str, bool)) or head is None):
        raise TypeError(f"head is the path of a layer, or True to find it; got {head!r}")
    if head == "":
        raise ValueError("head is the path of a layer inside the model, for example 'lm_head'; got ''")
    if head and loss is not None:
        raise ValueError("head= is for the cross entropy, which `loss` replaces: give one of the two")


def _entropy(found: HeadInput, y: Array, counts: Array | None, trained: frozenset[str] | None) -> Mean:
    """Return the cross entropy as a mean over the labels that count; see `entropy` for labels that are no classes."""
    call = found.call
    weight, options = head_arrays(call)
    weights = None if counts is None else counts.astype(mx.float32)
    invalid = ~within_bounds(y, call.module["weight"].shape[0])[1]
    sound = ~mx.any(invalid if counts is None else invalid & counts)
    hidden = call.hidden * mx.where(sound, 1.0, mx.nan).astype(call.hidden.dtype)  # so the gradient is NaN, too
    options = {**options, "weights": weights, "soft_cap": found.soft_cap, "scale": found.scale}
    if trained is None:
        return mean(linear_cross_entropy(hidden, weight, y, **options), where=counts)
    frozen = not trained & {f"{call.path}.weight", f"{call.path}.bias"}
    total = linear_cross_entropy(hidden, weight, y, reduction="sum", frozen=frozen, **options)
    return Mean(total, mx.array(float(y.size)) if weights is None else weights.sum())


def _trained_paths(forward: Forward) -> frozenset[str] | None:
    """Return the paths that get a gradient in this call of the loss; None in evaluation."""
    return getattr(forward, "trained", None) if getattr(forward, "train", False) else None


def _perplexity() -> Metric:
    """Make the metric of the perplexity of a loss `{"total", "weight"}`."""

    def update(memory: Tree, output: Tree, /, *_: Tree, **__: Tree) -> Tree:
        return merge_means(memory, memory_of_mean(Mean(output["total"], output["weight"])))

    return Metric("perplexity", empty_mean, update, exp_of_mean, "min", merge_means)
