"""The memory of two parts of some data is that of all of it, and a figure over nothing is NaN."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp import metrics

ROWS, CLASSES, TOKENS = 7, 3, 2
LABELLED = (
    metrics.accuracy(),
    metrics.accuracy("ignoring", ignore=0),
    metrics.top_k(2),
    metrics.precision(CLASSES),
    metrics.recall(CLASSES),
    metrics.f1(CLASSES),
)
OF_TOKENS = (metrics.token_accuracy(), metrics.perplexity(), metrics.perplexity("ignoring", ignore=0))
NUMBERS = (metrics.mse(), metrics.mae(), metrics.r2())
SEVERAL = (metrics.r2(outputs=2),)
BINARY = (metrics.auroc(), metrics.binary_accuracy(), metrics.multilabel_accuracy())
ALL = (*LABELLED, *OF_TOKENS, *NUMBERS, *SEVERAL, *BINARY)


def drawn(m, seed):
    """Outputs, targets and masks for a metric."""
    draw = np.random.default_rng(seed)
    if m in NUMBERS or m in SEVERAL:
        shape = (ROWS, 2) if m in SEVERAL else (ROWS,)
        output, y = draw.normal(size=(2, *shape)).astype(np.float32)
        return output, y + 5, draw.integers(0, 2, ROWS)
    if m in BINARY:
        return draw.normal(size=ROWS).astype(np.float32), np.arange(ROWS) % 2, draw.integers(0, 2, ROWS)
    places = (ROWS, TOKENS) if m in OF_TOKENS else (ROWS,)
    output = draw.normal(size=(*places, CLASSES)).astype(np.float32)
    return output, draw.integers(0, CLASSES, places), draw.integers(0, 2, places)


def memory_of(m, output, y, mask):
    if not len(y):
        return m.init()
    return m.update(m.init(), mx.array(output), None, mx.array(y), mx.array(mask))


def assert_law(m, output, y, mask, cut):
    """Merging the memories of the two sides of a cut is, in its value and its counts, the memory of all rows."""
    whole = memory_of(m, output, y, mask)
    parts = [memory_of(m, output[part], y[part], mask[part]) for part in (slice(cut), slice(cut, None))]
    for one, other in (parts, parts[::-1]):
        merged = m.merge(one, other)
        assert m.value(merged).item() == pytest.approx(m.value(whole).item(), rel=1e-4, abs=1e-6, nan_ok=True)
        counters = [key for key, leaf in whole.items() if leaf.dtype == mx.uint64]
        assert {key: merged[key].tolist() for key in counters} == {key: whole[key].tolist() for key in counters}


def test_every_metric_stands_in_the_law():
    made = {m.name.replace("top_2", "top_k") for m in ALL}
    assert made - {"ignoring"} == set(metrics.__all__) - {"confusion"}  # a table, in test_binary.py


@examples(25)
@given(st.sampled_from(ALL), st.integers(0, 2**16), st.integers(0, ROWS))
def test_the_memory_of_two_parts_is_that_of_the_whole(m, seed, cut):
    assert_law(m, *drawn(m, seed), cut)


@pytest.mark.parametrize("cut", [0, 3, ROWS])
@pytest.mark.parametrize("m", ALL, ids=repr)
def test_so_it_is_for_each_metric_whatever_is_empty(m, cut):
    output, y, mask = drawn(m, 1)
    mask[...] = 1
    assert not math.isnan(m.value(memory_of(m, output, y, mask)).item())
    assert_law(m, output, y, mask, cut)
    for nothing in (slice(3), slice(3, None)):
        some = mask.copy()
        some[nothing] = 0
        assert_law(m, output, y, some, 3)
    assert_law(m, output, y, mask * 0, cut)


@pytest.mark.parametrize("m", ALL, ids=repr)
def test_an_update_merges_the_memory_of_a_batch(m):
    output, y, mask = drawn(m, 2)
    before, batch = memory_of(m, output[:3], y[:3], mask[:3]), (output[3:], y[3:], mask[3:])
    after = m.update(before, mx.array(batch[0]), None, *map(mx.array, batch[1:]))
    merged = m.merge(before, memory_of(m, *batch))
    assert {key: leaf.tolist() for key, leaf in after.items()} == {key: leaf.tolist() for key, leaf in merged.items()}


@pytest.mark.parametrize("m", ALL, ids=repr)
def test_a_figure_over_nothing_is_nan(m):
    assert math.isnan(m.value(m.init()).item())
    output, y, mask = drawn(m, 3)
    assert math.isnan(m.value(memory_of(m, output, y, mask * 0)).item())


def test_an_infinite_mean_stays_infinite():
    m = metrics.mse()
    parts = [memory_of(m, np.zeros(2, np.float32), np.array([off, 0.0], np.float32), np.ones(2)) for off in (1, np.inf)]
    empty = m.init()
    for one, other in (parts, parts[::-1], (parts[1], empty), (empty, parts[1])):
        assert m.value(m.merge(one, other)).item() == math.inf
