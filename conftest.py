"""Every test starts with the same random stream; doctests find `mx` and `pipe` in their namespace.

Without MLX all tests are skipped but those marked `without_mlx`. With MLX_FP_REQUIRE_MLX=1 the run fails at once.
"""

import os
import re

import hypothesis
import pytest
from toolz import pipe

try:
    import mlx.core as mx
except ImportError as error:
    mx, missing = None, error

WITHOUT = "MLX is not installed: pip install 'mlx-fp[cpu]'"

_SLOW = [hypothesis.HealthCheck.too_slow]
_UNTIMED = {"deadline": None, "suppress_health_check": _SLOW}  # machines are shared
hypothesis.settings.register_profile("many", max_examples=100, **_UNTIMED)
hypothesis.settings.register_profile("few", max_examples=10, **_UNTIMED)


def pytest_configure(config):
    hypothesis.settings.load_profile("many" if config.option.markexpr.startswith("slow") else "few")
    if hasattr(config, "cache"):  # processes of tests need not compile 400 files each
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.cache.mkdir("bytecode")))
    if mx is None and os.environ.get("MLX_FP_REQUIRE_MLX") == "1":
        pytest.exit(f"MLX_FP_REQUIRE_MLX=1, and {WITHOUT} ({missing})", returncode=1)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Skip a file that imports MLX where it is missing; any other error of an import stays one."""
    report = yield
    if mx is None and report.failed and re.search(r"No module named 'mlx['.]", str(report.longrepr)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {WITHOUT}")
    return report


def pytest_collection_modifyitems(config, items):
    """Mark the cases that are not usual as slow. Skip each test where MLX is missing, before its fixtures are made."""
    unknown = {}
    for item in items:
        usual = item.get_closest_marker("usual")
        if usual is not None:
            unknown.setdefault((item.path, item.originalname), set(usual.args)).discard(item.callspec.id)
            if item.callspec.id not in usual.args:
                item.add_marker(pytest.mark.slow)
    wrong = [f"{path.name}: {test} has no case {ids}" for (path, test), ids in unknown.items() if ids]
    if wrong and not any("::" in place for place in config.args):
        raise pytest.UsageError("\n".join(wrong))
    for item in items if mx is None else ():
        if item.get_closest_marker("without_mlx") is None:
            item.add_marker(pytest.mark.skip(reason=WITHOUT))


@pytest.fixture(autouse=True)
def _mlx(doctest_namespace):
    if mx is not None:
        mx.random.seed(0)
        doctest_namespace.update(mx=mx, pipe=pipe)
