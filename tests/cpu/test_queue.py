"""An operation that reads throttled arrays is queued when the operations before it have run."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_same_bits

from mlx_fp.cpu._queue import throttled
from mlx_fp.cpu._thresholds import THROTTLED_BYTES


def test_the_arrays_are_the_same():
    arrays = [mx.arange(3), mx.array(mx.nan), mx.ones((2, 2), mx.bfloat16)]
    again = throttled(arrays, THROTTLED_BYTES)
    assert_same_bits(arrays, again, nan=True)


def test_small_arrays_do_not_wait():
    arrays = [mx.array(1.0)]
    assert throttled(arrays, THROTTLED_BYTES - 1) is arrays
    assert throttled([], THROTTLED_BYTES) == []


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_gradient_goes_through(compiled):
    gradient = mx.grad(lambda x: throttled([x * 2], THROTTLED_BYTES)[0].sum())
    assert (mx.compile(gradient) if compiled else gradient)(mx.ones((3,))).tolist() == [2, 2, 2]


def test_the_queue_holds_the_arrays_of_one_part():
    def peak(bounded):
        x = mx.zeros((1 << 16,))
        mx.eval(x)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        for _ in range(40):
            x = mx.sort(mx.concatenate([x, x]))[: 1 << 16]
            x = throttled([x], THROTTLED_BYTES)[0] if bounded else x
        mx.eval(x)
        return mx.get_peak_memory() - before

    assert peak(bounded=True) < peak(bounded=False) / 3
