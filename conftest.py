"""Doctests find `mx` and `toolz.pipe` in their namespace; `MLX_FP_REQUIRE_MLX=1` makes a missing backend a failure."""

import os

import pytest

REQUIRED = os.environ.get("MLX_FP_REQUIRE_MLX") == "1"


@pytest.fixture(autouse=True)
def _namespace(doctest_namespace):
    try:
        import mlx.core as mx
    except ImportError:
        if REQUIRED:
            raise
        pytest.skip("MLX is not installed: pip install 'mlx-fp[cpu]'")
    from toolz import pipe

    doctest_namespace.update(mx=mx, pipe=pipe)
