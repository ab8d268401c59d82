"""A mean is a total and a weight: every way of cutting the same rows gives one gradient, loss, figures and update."""

from __future__ import annotations

import itertools
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import metrics, nn, optim, passes
from mlx_fp.core.backend import PLAIN, using
from mlx_fp.step._computation import Computation
from mlx_fp.tree import _paths

ROWS, TOKENS, VOCABULARY = 13, 4, 7
KEY = mx.random.key(3)
X = mx.random.randint(0, VOCABULARY, (ROWS, TOKENS), key=KEY)
Y = mx.random.randint(1, VOCABULARY, (ROWS, TOKENS), key=mx.random.key(4))
MODEL = nn.sequential(nn.embedding(VOCABULARY, 6), nn.linear(6, VOCABULARY))


def scalar(model, x, y, mask):
    each = nn.losses.cross_entropy(model(x), y)
    return each.mean(), {"largest": each.max(axis=1).mean()}


def masked(model, x, y, mask):
    logits = model(x)
    each = nn.losses.cross_entropy(logits, y)
    right = logits.argmax(axis=-1) == y
    return fp.mean(each, where=mask), {"right": fp.mean(right, where=mask), "all": fp.mean(each), "rows": each.mean()}


def weighted(model, x, y, mask):
    each = nn.losses.cross_entropy(model(x), y)
    return 2 * fp.mean(each, weights=y.astype(mx.float32) * mask) + 0.5


LOSSES = {"scalar": scalar, "masked": masked, "weighted": weighted}


def batch_of(mask):
    return {"x": X, "y": Y, "mask": mx.array(mask, dtype=mx.int32).reshape(ROWS, TOKENS)}


def rows_of(batch, start, end):
    return {name: value[start:end] for name, value in batch.items()}


def step_of(loss, optimizer=None, **options):
    folds = [metrics.perplexity(), metrics.token_accuracy()]
    optimizer = optimizer or optim.sgd(1.0)  # the first update of adam is the sign of a gradient, however small
    return fp.train_step(MODEL, loss, optimizer, metrics=folds, compile=False, **options)


def results(step, update):
    """Return what an update gives: parameters, logs, and the values of metrics."""
    params, opt_state = step.init(0)
    params, opt_state, logs = update(step, params, opt_state)
    return params, logs, {m.name: m.value(opt_state["metrics"][m.name]) for m in step.metrics}


def assert_same(found, expected):
    assert_close(found[0], expected[0], atol=2e-5)
    assert found[1].keys() == expected[1].keys()
    for one, other in zip(found[1:], expected[1:], strict=True):
        for name, value in other.items():
            np.testing.assert_allclose(one[name].item(), value.item(), rtol=2e-5, atol=1e-6, err_msg=name)


masks = st.lists(st.sampled_from([0, 1]), min_size=ROWS * TOKENS, max_size=ROWS * TOKENS)
cuts = st.lists(st.integers(1, ROWS - 1), unique=True, max_size=4).map(sorted)


@given(st.sampled_from(sorted(LOSSES)), masks, cuts)
@examples(40)
def test_accumulated_batches_of_any_sizes_are_the_whole_batch(name, mask, cut):
    step, batch = step_of(LOSSES[name]), batch_of(mask)
    bounds = [0, *cut, ROWS]
    batches = [rows_of(batch, *bound) for bound in itertools.pairwise(bounds)]
    whole = results(step, lambda step, *state: step(*state, batch))
    assert_same(results(step, lambda step, *state: step.accumulate(*state, batches)), whole)


@given(st.sampled_from(sorted(LOSSES)), masks, st.integers(1, 9))
@examples(40)
def test_parts_and_streams_of_any_number_are_the_whole_batch(name, mask, count):
    batch, side_by_side = batch_of(mask), replace(PLAIN, name="parts", parallel=lambda calls: [c() for c in calls])
    whole = results(step_of(LOSSES[name]), lambda step, *state: step(*state, batch))
    for verbs in ([passes.in_parts(count)], [passes.abreast(count)], [passes.abreast(2), passes.in_parts(count)]):
        work = step_of(LOSSES[name], through=verbs).computation

        def update(step, params, opt_state, work=work):
            params, opt_state, (logs, *_) = using(side_by_side)(work.step)(params, opt_state, batch)
            return params, opt_state, logs

        assert_same(results(step_of(LOSSES[name]), update), whole)


def test_micro_batches_of_12_and_2_tokens_give_the_update_of_all_14():
    batch = batch_of([1] * 12 + [0] * (ROWS * TOKENS - 14) + [1] * 2)
    step = step_of(masked, optim.sgd(1.0))
    params, opt_state = step.init(0)
    halves = [rows_of(batch, 0, 7), rows_of(batch, 7, ROWS)]
    together, *_ = step.accumulate(params, opt_state, halves)

    def by_hand(p):
        each = nn.losses.cross_entropy(MODEL.apply(p, X)[0], Y)
        return (each * batch["mask"]).sum() / 14

    grads = mx.grad(by_hand)(params)
    moved = _paths.flat(together)
    for path, leaf in _paths.flat(params).items():
        np.testing.assert_allclose(moved[path], leaf - _paths.flat(grads)[path], atol=1e-6)


@pytest.mark.parametrize("cut", [1, 6])
def test_a_part_in_which_nothing_counts_changes_nothing(cut):
    batch = batch_of([0] * (cut * TOKENS) + [1] * ((ROWS - cut) * TOKENS))
    step = step_of(masked)
    whole = results(step, lambda step, *state: step(*state, rows_of(batch, cut, ROWS)))
    both = [rows_of(batch, 0, cut), rows_of(batch, cut, ROWS)]
    params, logs, _values = results(step, lambda step, *state: step.accumulate(*state, both))
    assert_close(params, whole[0], atol=1e-6)
    assert logs["loss"].item() == pytest.approx(whole[1]["loss"].item(), rel=1e-6)
    assert logs["right"].item() == pytest.approx(whole[1]["right"].item(), rel=1e-6)


def test_a_batch_in_which_nothing_counts_has_a_loss_of_nan_and_no_gradient():
    work = step_of(masked).computation
    params, opt_state = step_of(masked).init(0)
    done = work.backward(params, opt_state, batch_of([0] * (ROWS * TOKENS)))
    assert np.isnan(done.logs["loss"].item())
    assert done.weights["loss"].item() == 0
    assert all(not leaf.any() for leaf in map(np.array, _paths.leaves(done.grads)))


def test_the_weight_of_a_scalar_is_the_number_of_rows_and_of_a_mean_its_own():
    work = Computation(MODEL, masked, optim.sgd(0.1))
    params, opt_state = fp.train_step(MODEL, masked, optim.sgd(0.1)).init(0)
    done = work.backward(params, opt_state, batch_of([1] * 20 + [0] * (ROWS * TOKENS - 20)))
    weights = {name: float(weight) for name, weight in done.weights.items()}
    assert weights == {"loss": 20.0, "right": 20.0, "all": ROWS * TOKENS, "rows": ROWS}


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.usual("dtype1")
def test_gradients_of_narrow_parameters_are_added_up_in_float32(dtype):
    model = nn.define(lambda m, x: (x * m.w).sum(axis=-1), w=nn.param((3,), init=1.0, dtype=dtype))
    step = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(1.0))
    params, opt_state = step.init(0)
    rows = mx.concatenate([mx.full((1, 3), 256.0)] + [mx.full((1, 3), 1.0)] * 63).astype(dtype)
    many, *_ = step.accumulate(params, opt_state, [rows[i : i + 1] for i in range(64)])
    expected = params["w"] - mx.array((256 + 63) / 64).astype(dtype)
    assert many["w"].dtype == dtype
    assert many["w"].tolist() == expected.tolist()


def test_buffers_are_the_mean_over_parts():
    model = nn.sequential(nn.batch_norm(2), nn.linear(2, 1))
    step = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(0.1))
    params, opt_state = step.init(0)
    x = mx.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    whole, *_ = step(params, opt_state, x)
    parts, *_ = step.accumulate(params, opt_state, [x[:2], x[2:]])
    found, expected = (_paths.flat(tree)["layers.0.running_mean"].tolist() for tree in (parts, whole))
    assert found == pytest.approx(expected)


def test_frozen_weights_stay_the_same_arrays_over_parts():
    model = nn.freeze("layers.0")(nn.sequential(nn.linear(2, 3), nn.linear(3, 1)))
    step = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(0.1))
    params, opt_state = step.init(0)
    after, *_ = step.accumulate(params, opt_state, [mx.ones((2, 2)), mx.ones((3, 2)), mx.ones((1, 2))])
    assert after["layers"][0]["weight"].tolist() == params["layers"][0]["weight"].tolist()
    assert after["layers"][1]["weight"].tolist() != params["layers"][1]["weight"].tolist()


# the tasks ------------------------------------------------------------------------------------------------------

LOGITS = nn.sequential(nn.embedding(VOCABULARY, 6), nn.linear(6, VOCABULARY))
ROW_MODEL = nn.linear(3, 5)
ROW_X = mx.random.normal((ROWS, 3), key=mx.random.key(5))
CLASSES = mx.random.randint(0, 5, (ROWS,), key=mx.random.key(6))
COUNTS = mx.array([i % 3 != 1 for i in range(ROWS)])
TASKS = {
    "classification": (fp.classification(), ROW_MODEL, {"x": ROW_X, "y": CLASSES}),
    "ignored labels": (fp.classification(ignore=2), ROW_MODEL, {"x": ROW_X, "y": CLASSES}),
    "class weights": (
        fp.classification(class_weights=[1.0, 0.0, 2.0, 0.5, 3.0]),
        ROW_MODEL,
        {"x": ROW_X, "y": CLASSES},
    ),
    "regression": (
        fp.regression(metrics=[metrics.mse(), metrics.mae()]),
        ROW_MODEL,
        {"x": ROW_X, "y": mx.random.normal((ROWS, 5), key=mx.random.key(7))},
    ),
    "masked regression": (
        fp.regression(),
        nn.linear(3, 1),
        {"x": ROW_X, "y": ROW_X.sum(axis=1), "mask": COUNTS},
    ),
    "language modeling": (fp.language_modeling(ignore=3), LOGITS, {"x": X, "y": Y}),
}


@pytest.mark.parametrize("cut", [1, 4, 12])
@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains_and_measures_the_same_for_every_cut(name, cut):
    task, model, batch = TASKS[name]

    def step(**options):
        return fp.train_step(model, task.loss, optim.sgd(0.5), metrics=task.metrics, compile=False, **options)

    whole = results(step(), lambda step, *state: step(*state, batch))
    halves = [rows_of(batch, 0, cut), rows_of(batch, cut, ROWS)]
    assert_same(results(step(), lambda step, *state: step.accumulate(*state, halves)), whole)
    assert_same(results(step(parts=3), lambda step, *state: step(*state, batch)), whole)


def test_e_to_the_loss_of_an_epoch_is_the_perplexity_with_padding_too():
    batches = [{"x": X[:5], "y": Y[:5]}, {"x": X[5:], "y": mx.where(mx.arange(TOKENS) > 0, 3, Y[5:])}]
    trainer = fp.trainer(LOGITS, fp.language_modeling(ignore=3), optimizer=optim.sgd(0.0))
    row = fp.fit(batches, validation=batches, quiet=True)(trainer).rows[0]
    assert row.perplexity == pytest.approx(np.exp(row.epoch_loss), rel=1e-5)
    assert row.val_perplexity == pytest.approx(np.exp(row.val_loss), rel=1e-5)
