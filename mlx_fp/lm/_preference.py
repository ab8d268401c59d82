"""Tasks that learn from preferences: of two completions of one prompt, one was chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..core._mlx import mx
from ..core._options import check_options, number
from ..core._types import Array, Forward, Loss
from ..nn import losses
from ..task._frozen_model import FrozenModel, check_frozen_model, frozen_model
from ..task._mean import Mean, mean
from ..task._task import CollateSpec, Task

__all__ = ["dpo", "orpo"]

_MARGIN_LOSSES: dict[str, Callable[[Array, float], Array]] = {
    "sigmoid": lambda margin, beta: mx.logaddexp(0.0, -beta * margin),
    "hinge": lambda margin, beta: mx.maximum(0.0, 1 - beta * margin),
    "ipo": lambda margin, beta: mx.square(margin - 1 / (2 * beta)),
}
"""The loss of a pair, from the difference of its log-ratios and beta."""

_LARGEST_LOG_PROB = -1e-6
"""The largest logarithm of a probability whose odds are taken. The odds of a probability of 1 are infinite."""


class _Pairs(NamedTuple):
    """The two completions of each pair, the chosen ones before the rejected ones."""

    tokens: Array
    """The tokens of prompt and completion, int `(2 n, tokens)`."""
    counts: Array
    """Whether each token but the first is one of the completion, bool `(2 n, tokens - 1)`."""
    complete: Array
    """Whether both completions of a pair have tokens that count, bool `(n,)`."""


def dpo(
    *,
    beta: float = 0.1,
    reference: FrozenModel = "reference",
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
    monitor: str = "val_loss",
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task of direct preference optimisation: prefer the chosen completion more than a reference model does.

    With the log-ratio `r = log p(completion) - log p_reference(completion)`, a sum over the tokens of the completion,
    and the margin `h = r_chosen - r_rejected`, the loss of a pair is one of these:

    - `"sigmoid"`: `-log sigmoid(beta h)`, Rafailov et al., https://arxiv.org/abs/2305.18290;
    - `"ipo"`: `(h - 1 / (2 beta))²`, Azar et al., https://arxiv.org/abs/2310.12036;
    - `"hinge"`: `max(0, 1 - beta h)`, Zhao et al., https://arxiv.org/abs/2305.10425.

    Batches are dicts: `chosen` and `rejected` are prompts with completions, int `(n, tokens)`, padded on the right;
    `chosen_mask` and `rejected_mask`, of the same shapes, are nonzero at the tokens of the completion. Without a mask
    all tokens but the first count. A pair does not count where one of its masks is 0 everywhere, or where a column
    `mask`, `(n,)`, is 0. One call of the model computes both completions. `lm.preferences` makes such batches.

    Figures: `accuracy`, the share of pairs with a margin above 0; `margin`, `chosen_reward` and `rejected_reward`, the
    means of `beta h` and of `beta r`.

    Args:
        beta: The strength of the reference: a small value lets the model move far from it. Above 0.
        reference: The name of the reference model, a layer of `nn.with_frozen`. Or a function of the parameters of the
            model that returns those of the reference: `nn.without_adapters` for a model with LoRA adapters, which needs
            no second copy of the weights.
        loss: The loss of a pair, see above.
        label_smoothing: The probability, below 0.5, that the two completions of a pair are confused:
            https://ericmitchell.ai/cdpo.pdf. Only for the loss `"sigmoid"`.
        monitor: The figure to watch.
        mode: The direction of that figure, `"min"` or `"max"`.
        collate: A spec for `data.collate`, which shapes the batches.

    Returns:
        A Task, for `fp.trainer`.

    Raises:
        ValueError: An option is out of range. In a step: the model has no such reference.

    >>> from mlx_fp import nn, optim, train_step
    >>> model = nn.sequential(nn.embedding(8, 4), nn.linear(4, 8))
    >>> params = nn.init(0)(model)
    >>> pair = nn.with_frozen(reference=(model, params))(model)
    >>> step = train_step(pair, dpo().loss, optim.sgd(0.1))
    >>> batch = {"chosen": mx.array([[1, 2, 3]]), "rejected": mx.array([[1, 4, 5]])}
    >>> _, _, logs = step(*step.init({**params, "reference": params}), batch)
    >>> round(logs["loss"].item(), 4)  # log 2: the model still is its reference
    0.6931
    """
    rules = {"beta": number(above=0), "label_smoothing": number(0, below=0.5)}
    check_options("dpo", {"beta": beta, "label_smoothing": label_smoothing}, rules)
    check_frozen_model("dpo", "reference", reference)
    of_pair = _margin_loss(loss, beta, label_smoothing)

    def of_pairs(forward: Forward, pairs: _Pairs) -> tuple[Array, dict[str, Array]]:
        of_reference = _sums(_log_probs(frozen_model(forward, reference), pairs), pairs.counts)
        log_ratios = _sums(_log_probs(forward, pairs), pairs.counts) - of_reference
        better, worse = mx.split(log_ratios, 2)
        margin = better - worse
        return of_pair(margin), {
            "accuracy": margin > 0,
            "margin": beta * margin,
            "chosen_reward": beta * better,
            "rejected_reward": beta * worse,
        }

    return Task("dpo", _preference(of_pairs), (), monitor, mode, collate)


def orpo(
    *,
    beta: float = 0.1,
    monitor: str = "val_loss",
    mode: str | None = None,
    collate: CollateSpec | None = None,
) -> Task:
    """Make the task of odds ratio preference optimisation: learn the chosen completion, and prefer it; no reference.

    With `p`, the geometric mean of the probabilities of the tokens of a completion, and `odds = p / (1 - p)`, the loss
    of a pair is `-log p_chosen - beta log sigmoid(log(odds_chosen / odds_rejected))`: Hong et al.,
    https://arxiv.org/abs/2403.07691, where beta is called lambda.

    Batches are those of `lm.dpo`. The first term is a mean over the tokens of each chosen completion, so that each pair
    has one weight. Figures: `accuracy`, the share of pairs whose odds ratio is above 1; `log_odds_ratio`, its
    logarithm; `chosen_log_prob` and `rejected_log_prob`, the means of `log p`.

    Args:
        beta: The weight of the odds ratio, above 0.
        monitor: The figure to watch.
        mode: The direction of that figure, `"min"` or `"max"`.
        collate: A spec for `data.collate`, which shapes the batches.

    Returns:
        A Task, for `fp.trainer`.

    Raises:
        ValueError: `beta` is out of range.

    >>> from mlx_fp import nn, optim, train_step
    >>> step = train_step(nn.sequential(nn.embedding(8, 4), nn.linear(4, 8)), orpo().loss, optim.sgd(0.1))
    >>> batch = {"chosen": mx.array([[1, 2, 3]]), "rejected": mx.array([[1, 2, 3]])}
    >>> params, state, logs = step(*step.init(0), batch)
    >>> logs["log_odds_ratio"].item()
    0.0
    """
    check_options("orpo", {"beta": beta}, {"beta": number(above=0)})

    def of_pairs(forward: Forward, pairs: _Pairs) -> tuple[Array, dict[str, Array]]:
        sums = _sums(_log_probs(forward, pairs), pairs.counts)
        log_probs = sums / mx.maximum(pairs.counts.sum(axis=-1), 1)
        (better, worse), (chosen_odds, rejected_odds) = mx.split(log_probs, 2), mx.split(_log_odds(log_probs), 2)
        ratio = chosen_odds - rejected_odds
        return beta * mx.logaddexp(0.0, -ratio) - better, {
            "accuracy": ratio > 0,
            "log_odds_ratio": ratio,
            "chosen_log_prob": better,
            "rejected_log_prob": worse,
        }

    return Task("orpo", _preference(of_pairs), (), monitor, mode, collate)


def _preference(of_pairs: Callable[[Forward, _Pairs], tuple[Array, dict[str, Array]]]) -> Loss:
    """Return the loss of a batch: the mean over its pairs of the loss and of the figures of each pair, `(n,)`."""

    def preference(
        forward: Forward,
        chosen: Array,
        rejected: Array,
        chosen_mask: Array | None = None,
        rejected_mask: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Mean, dict[str, Mean]]:
        pairs = _as_pairs((chosen, rejected), (chosen_mask, rejected_mask), mask)
        loss, figures = of_pairs(forward, pairs)
        means = {name: mean(values, where=pairs.complete) for name, values in figures.items()}
        return mean(loss, where=pairs.complete), means

    return preference


def _margin_loss(name: str, beta: float, smoothing: float) -> Callable[[Array], Array]:
    """Return the loss of a pair as a function of its margin."""
    if name not in _MARGIN_LOSSES:
        raise ValueError(f"loss of dpo is one of {', '.join(map(repr, _MARGIN_LOSSES))}; got {name!r}")
    if smoothing and name != "sigmoid":
        raise ValueError(f"label_smoothing of dpo is for the loss 'sigmoid'; the loss is {name!r}")
    plain = _MARGIN_LOSSES[name]
    if not smoothing:
        return lambda margin: plain(margin, beta)
    return lambda margin: (1 - smoothing) * plain(margin, beta) + smoothing * plain(-margin, beta)


def _as_pairs(sides: tuple[Array, Array], masks: tuple[Array | None, Array | None], mask: Array | None) -> _Pairs:
    """Put both completions of each pair into one batch; the shorter ones are padded on the right."""
    for name, tokens, counts in zip(("chosen", "rejected"), sides, masks, strict=True):
        if tokens.ndim != 2 or tokens.shape[0] != sides[0].shape[0] or tokens.shape[1] < 2:
            shapes = " and ".join(str(side.shape) for side in sides)
            raise ValueError(f"chosen and rejected are tokens, (n, two or more), of one n; they are {shapes}")
        if counts is not None and counts.shape != tokens.shape:
            raise ValueError(f"{name}_mask has the shape of {name}, {tokens.shape}; it is {counts.shape}")
    length = max(side.shape[1] for side in sides)
    shown = [mx.ones(t.shape, mx.bool_) if c is None else c != 0 for t, c in zip(sides, masks, strict=True)]
    both = mx.concatenate([_padded(each, length) for each in shown])[:, 1:]
    complete = mx.all(mx.any(both, axis=-1).reshape(2, -1), axis=0)
    if mask is not None:
        if mask.shape != complete.shape:
            raise ValueError(f"a mask of pairs has a place for each pair, {complete.shape}; it is {mask.shape}")
        complete = complete & (mask != 0)
    return _Pairs(mx.concatenate([_padded(side, length) for side in sides]), both, complete)


def _padded(rows: Array, length: int) -> Array:
    """Pad rows with 0 on the right, to a length."""
    return mx.pad(rows, [(0, 0), (0, length - rows.shape[1])])


def _log_probs(model: Callable[[Array], Array], pairs: _Pairs) -> Array:
    """Return the log-probability of each token but the first: `(2 n, tokens - 1)`; 0 where it does not count.

    A token that counts and is not in the vocabulary makes it NaN.
    """
    logits = model(pairs.tokens[:, :-1]).astype(mx.float32)
    return -losses.cross_entropy(logits, pairs.tokens[:, 1:], weights=pairs.counts)


def _sums(log_probs: Array, counts: Array) -> Array:
    """Return the sum of each row over the tokens that count: `(2 n,)`."""
    return mx.where(counts, log_probs, 0.0).sum(axis=-1)


def _log_odds(log_probs: Array) -> Array:
    """Return `log(p / (1 - p))` from `log p`. It is finite: the largest `log p` is taken as `_LARGEST_LOG_PROB`.

    >>> _log_odds(mx.log(mx.array([0.5]))).tolist()
    [0.0]
    """
    log_probs = mx.minimum(log_probs, _LARGEST_LOG_PROB)
    return log_probs - mx.log(-mx.expm1(log_probs))
