"""Run the suite under pytest-benchmark: a test for each model and mode, timing `fp.testing.benchmark_step` on ours.

The ratios of all variants, each in a process of its own, go into `extra_info`. BENCH_CASES, BENCH_VARIANTS and the
other variables of `python -m suite --help` ask for less or more.
"""

from itertools import product

import mlx.core as mx
import mlx.utils
import pytest
from suite import fp_models, inputs, pairs, run_mlx, tables
from suite.measure import measure, weights
from suite.options import from_environment
from suite.pool import Pool

import mlx_fp as fp

ASKED = from_environment()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    weights(folder, ASKED.cases, ASKED.threads)
    with Pool(ASKED.variants, folder, ASKED.threads) as pool:
        yield pool, folder


PLACES = [pytest.param(c, m, id=f"{c.name}-{m}") for c, m in product(ASKED.cases, ASKED.modes) if m in c.modes]


@pytest.mark.parametrize(("case", "mode"), PLACES)
def test_suite(benchmark, pool, case, mode):
    workers, folder = pool
    rows = measure(case, mode, workers, ASKED)
    benchmark.extra_info |= {row["variant"]: row.get("ratio") or row["reason"] for row in rows}
    print(f"\n  {tables.line(case, mode, rows)}", end="")
    if case.paired:
        benchmark.pedantic(pairs.prepare("ours", case), rounds=3, warmup_rounds=1)
    elif mode == "train":
        fp.testing.benchmark_step(benchmark, *_step(case, folder), rounds=10)
    else:
        run = run_mlx.prepare("ours", case, mode, *inputs.read(folder, case.name))
        benchmark.pedantic(run, rounds=10, warmup_rounds=3)


def _step(case, folder):
    """Return our step for a case, a state with the weights that all variants share, and the batch."""
    found, batch = inputs.read(folder, case.name)
    model = fp_models.layer(case)
    step = fp.train_step(model, lambda forward, xs, y: fp_models.loss(case, forward(*xs), y), run_mlx.adamw())
    params = fp.restore_like(model.init(0), {path: mx.array(leaf) for path, leaf in found.items()})
    return step, *step.init(params), mlx.utils.tree_map(mx.array, batch)
