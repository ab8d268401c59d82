"""Every test starts with the same random stream."""

import os

import pytest


@pytest.fixture(autouse=True)
def _seeded():
    try:
        import mlx.core as mx
    except ImportError:
        if os.environ.get("MLX_FP_REQUIRE_MLX") == "1":
            raise
        pytest.skip("MLX is not installed: pip install 'mlx-fp[cpu]'")
    mx.random.seed(0)
