"""The usual metrics, as folds inside the compiled step. They weigh examples, not batches.

A metric uses the output of the model, the target `y` of the batch, and a `mask` if the batch has one. The mask is
nonzero where a label or target counts. The options `output=`, `target=` and `mask=` name others, for example
`accuracy(target="kind")`. Other columns of the batch are not used.

Labels may be probabilities; then the likeliest class is the label. Logits that are NaN predict no class. Where nothing
counts the value is NaN.
"""

from __future__ import annotations

from ._binary import auroc, binary_accuracy, multilabel_accuracy
from ._by_class import confusion, f1, precision, recall
from ._classes import accuracy, perplexity, token_accuracy, top_k
from ._regression import mae, mse, r2

__all__ = [
    "accuracy",
    "auroc",
    "binary_accuracy",
    "confusion",
    "f1",
    "mae",
    "mse",
    "multilabel_accuracy",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "token_accuracy",
    "top_k",
]


def __dir__() -> list[str]:
    return sorted(__all__)
