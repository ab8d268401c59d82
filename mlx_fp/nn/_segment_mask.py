"""The attention mask of packed rows: each token attends the tokens of its own segment."""

from __future__ import annotations

from ..core._errors import is_count
from ..core._mlx import mx
from ..core._types import Array

__all__ = ["segment_mask"]


def segment_mask(
    segments: Array, *, causal: bool = True, window: int | None = None, dtype: mx.Dtype | None = None
) -> Array:
    """Return the attention mask of packed rows: `(n, tokens) -> (n, 1, tokens, tokens)`.

    `mask[i, 0, a, b]` is True where token `a` of row `i` may attend token `b`: both are of one segment. Padding,
    segment 0, attends padding, so each token attends itself at least, and no output is NaN. Such masks are those of
    `mx.fast.scaled_dot_product_attention`, `nn.multi_head_attention` and `nn.transformer_encoder`.

    Args:
        segments: The number of the segment of each token, int `(n, tokens)`, as `data.pack` gives it.
        causal: Whether a token attends no later token; True by default.
        window: The number of tokens, itself included, that a token attends at most, counted back from it. None, the
            default, sets no limit.
        dtype: A floating dtype, for a mask that is added to the scores: 0 where a token may attend, else the lowest
            number of the dtype. None, the default, makes a mask of bools.

    Raises:
        ValueError: `segments` are not `(n, tokens)`, `window` is not an int of at least 1, or `dtype` is not floating.

    >>> segment_mask(mx.array([[1, 1, 2]])).astype(mx.int32).tolist()
    [[[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]]
    """
    if segments.ndim != 2:
        raise ValueError(f"segments of a batch of rows are (n, tokens); they are {tuple(segments.shape)}")
    if window is not None and not is_count(window, least=1):
        raise ValueError(f"the window of segment_mask is an int of at least 1; got {window!r}")
    segments = mx.array(segments)
    allowed = segments[:, None, :, None] == segments[:, None, None, :]
    places = mx.arange(segments.shape[1])
    if causal:
        allowed = allowed & (places[:, None] >= places[None])
    if window is not None:
        allowed = allowed & (places[:, None] < places[None] + window)
    if dtype is None:
        return allowed
    if not mx.issubdtype(dtype, mx.floating):
        raise ValueError(f"a mask that is added to scores has a floating dtype; got {dtype}")
    return mx.where(allowed, mx.array(0, dtype), mx.array(mx.finfo(dtype).min, dtype))
