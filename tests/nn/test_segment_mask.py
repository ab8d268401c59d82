"""The mask of segments, in the attention of MLX."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp import nn

SEGMENTS = mx.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 2, 2]])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.booleans(), st.one_of(st.none(), st.integers(1, 4)))
def test_a_token_attends_its_own_segment(segments, causal, window):
    mask = nn.segment_mask(mx.array([segments]), causal=causal, window=window)
    places = range(len(segments))
    assert mask[0, 0].tolist() == [
        [segments[a] == segments[b] and (not causal or b <= a) and (window is None or a - b < window) for b in places]
        for a in places
    ]


@pytest.mark.parametrize("dtype", [None, mx.float32, mx.float16])
def test_a_transformer_of_mlx_computes_each_segment_as_if_alone(dtype):
    model = nn.transformer_encoder(1, 8, 2, dropout=0.0)
    params, x = nn.init(0)(model), mx.random.normal((2, 7, 8), key=mx.random.key(1))
    y, _ = model.apply(params, x, nn.segment_mask(SEGMENTS, dtype=dtype))
    alone, _ = model.apply(params, x[:1, 3:5], nn.segment_mask(SEGMENTS[:1, 3:5]))
    assert_close(y[:1, 3:5], alone, rtol=1e-4, atol=1e-5)
    assert mx.isfinite(y).all().item()


def test_padding_gives_no_nan_in_the_fast_attention_or_its_gradient():
    q = mx.random.normal((2, 2, 7, 4), key=mx.random.key(0))

    def total(q):
        return mx.fast.scaled_dot_product_attention(q, q, q, scale=0.5, mask=nn.segment_mask(SEGMENTS)).sum()

    value, gradient = mx.value_and_grad(total)(q)
    assert mx.isfinite(value).item()
    assert mx.isfinite(gradient).all().item()


def test_other_arguments_are_refused():
    with pytest.raises(ValueError, match=r"segments of a batch of rows are \(n, tokens\); they are \(7,\)"):
        nn.segment_mask(SEGMENTS[0])
    with pytest.raises(ValueError, match="the window of segment_mask is an int of at least 1; got 0"):
        nn.segment_mask(SEGMENTS, window=0)
    with pytest.raises(ValueError, match="a floating dtype; got mlx.core.int32"):
        nn.segment_mask(SEGMENTS, dtype=mx.int32)
