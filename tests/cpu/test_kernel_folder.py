"""Native kernels in their folder are counted."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MLX builds CPU kernels with g++ on Linux")


def test_kernels_are_counted(tmp_path):
    from mlx_fp.cpu._kernel_folder import kernels_in

    folder = tmp_path / "mlx" / "0.1" / "cpu"
    folder.mkdir(parents=True)
    for name in ("a.so", "b.so", "b.cpp", "c.so.17"):
        (folder / name).touch()
    assert kernels_in(tmp_path) == 2
    assert kernels_in(tmp_path / "none") == 0


def test_the_backend_counts_the_kernels_that_it_builds():
    import mlx.core as mx

    from mlx_fp.core.backend import PLAIN, device_backend

    before = device_backend().kernels()
    x = mx.arange(4, dtype=mx.float32)
    mx.eval(mx.compile(lambda x: mx.sin(x * 0.123456) * mx.cos(x) + 0.654321 * x * x)(x))
    assert device_backend().kernels() >= max(before, 1)
    assert PLAIN.kernels() == 0
