"""Every test starts with the same random stream; doctests find `mx` and `pipe` in their namespace.

Without MLX the tests are skipped, or fail where MLX_FP_REQUIRE_MLX=1.
"""

import os

import hypothesis
import pytest
from toolz import pipe

_SLOW = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=_SLOW)  # machines are shared
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _mlx(doctest_namespace):
    try:
        import mlx.core as mx
    except ImportError:
        if os.environ.get("MLX_FP_REQUIRE_MLX") == "1":
            raise
        pytest.skip("MLX is not installed: pip install 'mlx-fp[cpu]'")
    mx.random.seed(0)
    doctest_namespace.update(mx=mx, pipe=pipe)
