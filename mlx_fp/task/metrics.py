"""The usual metrics, as folds inside the compiled step. Each weighs examples, not batches; over nothing it is NaN.

They take what the model returns and, of the batch, a target `y` and a `mask` if there is one: nonzero where a label,
or target, counts. Further columns are left alone. `output=`, `target=` and `mask=` name others, see `accuracy`. Labels
may be probabilities, of which the likeliest class counts. Logits that are NaN predict no class.
"""

from __future__ import annotations

from ._binary import auroc, binary_accuracy, confusion, multilabel_accuracy
from ._classes import accuracy, f1, perplexity, precision, recall, token_accuracy, top_k
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
