"""MLX's limits of memory within a context, and after it."""

from __future__ import annotations

import mlx.core as mx
import pytest

import mlx_fp as fp


def limits():
    """Read the limits, which MLX only returns where it sets them."""
    values = []
    for swap in (mx.set_memory_limit, mx.set_cache_limit):
        values.append(swap(1 << 30))
        swap(values[-1])
    return values


def test_limits_hold_within_and_are_restored():
    before = limits()
    with fp.memory_limits(limit=1 << 29, cache=1 << 20, wired=0):
        assert limits() == [1 << 29, 1 << 20]
        with fp.memory_limits(cache=1 << 10):
            assert limits() == [1 << 29, 1 << 10]
        assert limits() == [1 << 29, 1 << 20]
    assert limits() == before


def test_an_error_restores_them_and_none_changes_nothing():
    before = limits()
    with pytest.raises(RuntimeError, match="within"), fp.memory_limits(limit=1 << 29, cache=0):
        raise RuntimeError("within")
    with fp.memory_limits():
        assert limits() == before
    assert limits() == before


@pytest.mark.parametrize(("options", "error"), [({"limit": -1}, ValueError), ({"cache": "1 GB"}, TypeError)])
def test_wrong_limits_change_nothing(options, error):
    before = limits()
    with pytest.raises(error, match="of memory_limits is a count, 0 or more"), fp.memory_limits(wired=0, **options):
        pass
    assert limits() == before


def test_a_lower_cache_limit_frees_memory_at_once():
    with fp.memory_limits(cache=1 << 24):
        mx.eval(mx.zeros((1 << 20,)) + 1)
        with fp.memory_limits(cache=0):
            assert mx.get_cache_memory() == 0


def test_a_memory_limit_bounds_the_queue():
    def peak():
        mx.synchronize()
        start = mx.get_active_memory()
        mx.reset_peak_memory()
        total = mx.array(0.0)
        for i in range(40):
            total = total + mx.random.normal((1 << 18,), key=mx.random.key(i)).sum()
        mx.eval(total)
        return mx.get_peak_memory() - start

    free = peak()
    with fp.memory_limits(limit=mx.get_active_memory() + (2 << 20)):
        assert peak() < free
