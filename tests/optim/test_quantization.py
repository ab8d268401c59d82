"""Eight bits for a number: the mean of rounding is the number, and small second moments are not zero."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_fp.optim._quantization import from_codes, to_codes


def numbers(size=1000, seed=0):
    return mx.random.normal((size,), key=mx.random.key(seed))


def rounded(x, seed=1):
    return from_codes(*to_codes(x, mx.random.key(seed)))


@pytest.mark.parametrize(
    "x", [numbers(), mx.square(numbers()), 1e-9 * numbers() ** 4], ids=["signed", "squares", "tiny"]
)
@pytest.mark.usual("signed")
def test_an_error_is_at_most_a_step_and_the_mean_of_many_is_the_number(x):
    once, many = rounded(x), sum(rounded(x, seed) for seed in range(100)) / 100
    groups = np.pad(np.array(x), (0, -x.size % 64)).reshape(-1, 64)
    most = np.where((groups < 0).any(axis=1), 127, 255)[:, None]
    root = (np.abs(groups) / np.abs(groups).max(axis=1, keepdims=True)) ** 0.25 * most
    step = ((np.floor(root) + 1) ** 4 - np.floor(root) ** 4) / most**4 * np.abs(groups).max(axis=1, keepdims=True)
    step = step.reshape(-1)[: x.size]
    assert (np.abs(np.array(once - x)) <= 1.001 * step).all()
    assert np.abs(np.array(many - x)).mean() < 0.05 * step.mean()
    assert (np.sign(once) == np.sign(x)).mean() > 0.99


def test_a_number_on_a_step_stays():
    x = rounded(numbers())
    for seed in range(2, 6):
        assert mx.array_equal(rounded(x, seed), x)


def test_no_positive_number_of_a_group_of_squares_becomes_zero():
    x = mx.array([1.0, 1e-3, 1e-12, 1e-30, 0.0])
    assert [value > 0 for value in rounded(x).tolist()] == [True, True, True, True, False]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 640])
def test_any_size_keeps_its_shape_and_groups_have_scales_of_their_own(size):
    x = mx.concatenate([mx.full((64,), 1000.0), numbers(size)]).reshape(1, -1)
    codes, scales = to_codes(x, mx.random.key(0))
    assert (codes.shape, codes.dtype, scales.shape) == (x.shape, mx.uint8, (1 + math.ceil(size / 64),))
    assert mx.abs(from_codes(codes, scales) - x)[0, 64:].max().item() < 0.1


def test_zeros_stay_zeros_and_what_is_not_finite_stays_visible():
    assert rounded(mx.zeros((100,))).tolist() == [0.0] * 100
    for value in (math.inf, math.nan):
        _, scales = to_codes(mx.array([1.0, value]), mx.random.key(0))
        assert not mx.isfinite(scales).item()


def test_an_average_with_a_slow_decay_moves():
    """Rounding to the nearest step would leave it where it is: a step is at least 1.5 percent of the number."""
    x = mx.ones((640,))
    for seed in range(500):
        x = rounded(0.999 * x, seed)
    assert x.mean().item() == pytest.approx(0.999**500, rel=0.03)


def test_other_keys_give_other_numbers():
    x = numbers()
    assert not mx.array_equal(rounded(x, 1), rounded(x, 2))
    noise = [np.array(rounded(x, seed) - x) for seed in range(20)]
    assert np.abs(np.corrcoef(noise)[np.triu_indices(20, 1)]).max() < 0.2
