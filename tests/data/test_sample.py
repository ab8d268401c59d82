"""Items drawn by weight: in proportion, resumable, and checked before anything is read."""

from __future__ import annotations

import math
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from helpers import Counted, outcome, read, run_python
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor


def drawn(weights, epoch=0, **options):
    return read(data.sample(weights, **{"seed": 7, **options})(data.source(range(len(weights)))), epoch)


def test_items_come_in_proportion_to_their_weights():
    weights = [4.0, 0.0, 1.0, 3.0, 0.0]
    counts = Counter(drawn(weights, n=20_000))
    assert counts.keys() == {0, 2, 3}
    for i, weight in enumerate(weights):
        share = weight / 8
        assert abs(counts[i] - 20_000 * share) <= 5 * math.sqrt(20_000 * share * (1 - share))


def test_the_numbers_of_a_seed_stay_what_they_are():
    assert drawn([1, 2, 3, 4], n=12) == [3, 3, 2, 0, 2, 3, 3, 2, 2, 0, 0, 2]


@pytest.mark.parametrize("make", [list, tuple, np.array, mx.array, lambda w: np.array(w, np.float32)])
def test_weights_are_any_sequence_of_numbers(make):
    assert drawn(make([1, 2, 3, 4])) == drawn([1, 2, 3, 4])
    assert drawn(make([2, 4, 6, 8])) == drawn([1, 2, 3, 4])


def test_a_draw_is_a_function_of_the_seed_the_epoch_and_the_index():
    weights = [1 + i % 5 for i in range(50)]
    first = drawn(weights)
    assert first == drawn(weights)
    assert first != drawn(weights, epoch=1)
    assert first != drawn(weights, seed=8)
    assert drawn(weights, n=20) == first[:20]
    assert drawn(weights, n=200)[:50] == first


def test_the_draws_are_not_those_of_a_mix_or_a_shuffle_of_the_seed():
    mixed = list(data.mix(*[[i] * 500 for i in range(4)], weights=[1] * 4, seed=7))[:200]
    assert sum(a == b for a, b in zip(drawn([1] * 4, n=200), mixed, strict=True)) < 90


def test_an_epoch_has_n_items_or_as_many_as_there_are_weights():
    source = data.source(range(4))
    assert len(data.sample([1] * 4, seed=0)(source)) == 4
    sampled = pipe(source, data.sample([1] * 4, seed=0, n=10), data.batch(4))
    assert (len(sampled), [len(batch) for batch in sampled]) == (3, [4, 4, 2])


def test_a_cut_epoch_goes_on_and_reads_no_more_than_is_left():
    weights = [1 + i % 3 for i in range(30)]
    whole = drawn(weights, epoch=2)
    rows = Counted(30)
    sampled = data.sample(weights, seed=7)(data.source(rows))
    assert list(sampled.open(Cursor(2, 27))) == whole[27:]
    assert len(rows.read) == 3


def test_a_batch_of_what_was_drawn_is_one_gather():
    columns = pipe(data.arrays(x=np.arange(9) * 10), data.sample([0, 1] + [0] * 7, seed=1), data.batch(4))
    assert [batch["x"].tolist() for batch in columns] == [[10] * 4, [10] * 4, [10]]


def test_batches_are_drawn_after_a_batch_and_drawn_items_may_be_shuffled():
    batches = pipe(data.source(range(6)), data.batch(2), data.sample([0, 1, 0], seed=0, n=2))
    assert [batch.tolist() for batch in batches] == [[2, 3]] * 2
    sampled = data.sample([1, 2, 3], seed=0, n=9)(data.source(range(3)))
    assert sorted(read(data.shuffle(seed=0)(sampled), 3)) == sorted(read(sampled, 3))


def test_a_weight_behind_the_last_positive_one_is_never_drawn():
    assert set(drawn([0.1] * 10 + [0.0] * 3, n=5000)) == set(range(10))
    assert drawn([0, 5e-324, 0], n=100) == [1] * 100


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1, -1], ValueError, "finite numbers of at least 0; weight 1 is -1.0"),
        ([math.nan, 1], ValueError, "finite numbers of at least 0; weight 0 is nan"),
        ([1, math.inf], ValueError, "finite numbers of at least 0; weight 1 is inf"),
        ([0, 0], ValueError, "must have a positive, finite sum; it is 0.0"),
        ([], ValueError, "must have a positive, finite sum; it is 0"),
        ([1e308, 1e308], ValueError, "must have a positive, finite sum; it is inf"),
        (3, TypeError, "sample takes a weight for each item, a list or an array of numbers; got int"),
        ({0: 1.0, 1: 2.0}, TypeError, "a list or an array of numbers; got dict"),
        ("ab", TypeError, "a list or an array of numbers; got str"),
        (iter([1, 2]), TypeError, "a list or an array of numbers; got list_iterator"),
        (["a", "b"], TypeError, "a list or an array of numbers: must be real number"),
        (np.ones((2, 2)), TypeError, "a list or an array of numbers: must be real number"),
    ],
)
def test_bad_weights_are_refused_when_built(weights, error, message):
    with pytest.raises(error, match=message):
        data.sample(weights, seed=0)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 0, "n": 0}, {"seed": 0, "n": 2.5}])
def test_a_bad_seed_and_a_bad_number_are_refused_when_built(options):
    with pytest.raises(ValueError, match="of sample must be an integer of at least"):
        data.sample([1], **options)


def test_a_weight_that_is_missing_is_an_error_when_opened():
    dataset = data.sample([1, 2], seed=0)(data.source(range(3)))
    with pytest.raises(
        ValueError, match=r"sample\(\[1, 2\], seed=0\) takes a weight .* there are 2 weights and 3 items"
    ) as error:
        next(iter(dataset))
    assert error.value.__notes__ == ["at operation=sample([1, 2], seed=0), split=train, epoch=0"]


@pytest.mark.parametrize("dataset", [data.stream(lambda: "ab"), data.map(str)(data.source("ab"))], ids=repr)
def test_rows_are_not_drawn_from(dataset):
    with pytest.raises(ValueError, match="needs indices, but .* before it gives rows: sample before it"):
        data.sample([1, 2], seed=0)(dataset)


def test_the_draws_are_the_same_without_numpy():
    code = """
import sys
sys.modules["numpy"] = None
from mlx_fp import data
print(list(data.sample([0.1, 0.7, 0.3, 0], seed=3, n=300)(data.source(range(4))).open(data.Cursor(5))))
"""
    assert run_python(code, timeout=60).strip() == str(drawn([0.1, 0.7, 0.3, 0], epoch=5, seed=3, n=300))


def test_a_run_cut_in_an_epoch_ends_with_the_same_parameters(tmp_path):
    x = mx.random.normal((24, 3), key=mx.random.key(0))
    train = pipe(data.arrays(x=x, y=x.sum(axis=1)), data.sample([1 + i % 4 for i in range(24)], seed=5), data.batch(4))
    target = pipe(
        fp.trainer(nn.linear(3, 1), fp.regression()),
        fp.with_optimizer(optim.sgd(0.1)),
        fp.checkpoints(tmp_path / "step-{step}", every=None, every_steps=4),
    )
    cut = fp.on("after_step", lambda event: fp.Stop("cut") if event.step == 8 else None)
    whole = pipe(target, fp.fit(train, epochs=3, seed=1, quiet=True))
    pipe(target, cut, fp.fit(train, epochs=3, seed=1, quiet=True))
    resumed = pipe(target, fp.fit(train, epochs=3, seed=1, resume=tmp_path / "step-8.safetensors", quiet=True))
    assert outcome(resumed) == outcome(whole)
