"""Passes as values: verbs in front of the optimiser, what a loss may return, and which outputs metrics fold over."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits

import mlx_fp as fp
from mlx_fp import metrics, nn, optim, passes
from mlx_fp.step._rows import cut_rows, describe_rows, example_count, row_count

X = mx.random.normal((8, 3), key=mx.random.key(1))
Y = mx.array([0, 1, 0, 1, 1, 1, 0, 0])
MODEL = nn.linear(3, 2)


def entropy(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


def taken(batch=(X, Y), loss=entropy, model=MODEL, optimizer=None, **options):
    step = fp.train_step(model, loss, optimizer or optim.sgd(0.5), **options)
    params, opt_state, logs = step(*step.init(0), batch)
    mx.eval(params, opt_state, logs)
    assert step.traces == 1
    return params, opt_state, logs


def test_a_step_without_verbs_has_the_bits_of_one_through_a_verb_that_does_nothing():
    assert_same_bits(taken(through=[lambda backward: backward]), taken())


def test_a_verb_of_ten_lines_makes_another_pass():
    def halved(backward):
        def run(params, opt_state, batch):
            done = backward(params, opt_state, batch)
            return done._replace(grads=nn_map(lambda g: g / 2, done.grads))

        return run

    from mlx.utils import tree_map as nn_map

    assert_close(taken(through=[halved])[0], taken(optimizer=optim.sgd(0.25))[0], atol=1e-7)


def test_verbs_stand_in_order_the_first_nearest_to_the_loss():
    seen = []

    def noted(name):
        def verb(backward):
            def run(params, opt_state, batch):
                seen.append((name, batch[0].shape[0]))
                return backward(params, opt_state, batch)

            return run

        return verb

    taken(through=[noted("inner"), passes.in_parts(2), noted("outer")])
    assert seen == [("outer", 8), ("inner", 4), ("inner", 4)]


def test_the_short_form_is_the_verb():
    assert_same_bits(taken(parts=4), taken(through=[passes.in_parts(4)]))


def test_parts_have_one_trace_and_random_numbers_of_their_own():
    model = nn.sequential(nn.dropout(0.5), nn.linear(3, 2))
    masks = []

    def loss(m, x):
        y = m(x)
        masks.append(y)
        return y.mean()

    step = fp.train_step(model, loss, optim.sgd(0.0), parts=2, compile=False)
    _, opt_state, _ = step(*step.init(0), mx.ones((8, 3)))
    assert masks[0].tolist() != masks[1].tolist()
    assert opt_state["key"].tolist() != step.init(0)[1]["key"].tolist()


@pytest.mark.parametrize(("rows", "count", "sizes"), [(8, 3, [2, 3, 3]), (3, 3, [3]), (5, 9, [2, 3]), (1, 2, [1])])
def test_a_part_has_two_rows_or_more(rows, count, sizes):
    parts = cut_rows({"x": mx.zeros((rows, 2)), "n": 3}, count, "parts")
    assert [part["x"].shape[0] for part in parts] == sizes
    assert all(part["n"] == 3 for part in parts)


@pytest.mark.slow
def test_batch_norm_trains_on_a_short_last_batch_in_parts():
    model = nn.sequential(nn.batch_norm(3), nn.linear(3, 2))
    step = fp.train_step(model, entropy, optim.sgd(0.1), parts=3)
    state = step.init(0)
    for rows in (8, 3, 2):
        *state, logs = step(*state, (X[:rows], Y[:rows]))
        assert np.isfinite(logs["loss"].item())


@pytest.mark.parametrize("batch", [{"w": mx.ones((4,)), "x": mx.zeros((8, 3))}, {"n": mx.array(1)}])
def test_a_batch_that_has_no_rows_cannot_be_cut(batch):
    with pytest.raises(ValueError, match="parts=2 cuts a batch by rows, the first axis that its arrays share"):
        cut_rows(batch, 2, "parts")


@pytest.mark.parametrize("count", [0, 1.5, True, -1])
@pytest.mark.parametrize("verb", [passes.in_parts, passes.abreast])
def test_a_count_of_parts_is_one_or_more(verb, count):
    with pytest.raises(ValueError, match="1 or more"):
        verb(count)


def test_rows_are_the_first_axis_that_arrays_share():
    batch = {"weights": mx.ones((4,)), "x": mx.zeros((48, 3)), "y": mx.zeros((48,)), "more": [mx.zeros((48, 1))]}
    assert row_count(batch) is None
    assert example_count(batch) == 48
    del batch["weights"]
    assert row_count(batch) == example_count(batch) == 48
    assert row_count({"rate": mx.array(0.1), "name": "a"}) == example_count({"rate": mx.array(0.1)}) == 1
    assert row_count((np.zeros((3, 2)), mx.zeros((3,)))) == 3
    assert describe_rows((mx.zeros((3, 2)), mx.array(1))) == "0 (3, 2)"


def weighted_by_class(model, class_weights, x, y):
    return fp.mean(nn.losses.cross_entropy(model(x), y), weights=class_weights[y])


BATCH = {"class_weights": mx.array([1.0, 3.0]), "x": X, "y": Y}


def test_class_weights_first_in_a_batch_are_no_rows():
    _, _, logs = taken(BATCH, weighted_by_class)
    params = fp.train_step(MODEL, entropy, optim.sgd(0.5)).init(0)[0]
    each = np.array(nn.losses.cross_entropy(MODEL.apply(params, X)[0], Y))
    weights = np.array([1.0, 3.0])[np.array(Y)]
    assert logs["loss"].item() == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-6)


def test_a_scalar_where_rows_differ_is_an_error_that_shows_the_shapes():
    with pytest.raises(ValueError, match=r"class_weights \(2,\), x \(8, 3\), y \(8,\); return fp.mean"):
        taken(BATCH, lambda model, class_weights, x, y: entropy(model, x, y))
    with pytest.raises(ValueError, match="right is a scalar"):
        taken(BATCH, lambda m, class_weights, x, y: (weighted_by_class(m, class_weights, x, y), {"right": m(x).mean()}))


@pytest.mark.parametrize("where", [mx.ones((3,)), mx.ones((8, 1)), mx.ones((2, 8))])
def test_a_mask_of_another_shape_is_an_error_of_mean(where):
    with pytest.raises(ValueError, match="where of a mean has the shape of its values"):
        fp.mean(mx.ones((8,)), where=where)


def test_a_mean_takes_scalars_and_no_other_mean():
    one = fp.mean(mx.array([1.0, 3.0]), where=mx.array([1, 1]))
    assert ((one * 3 + mx.array(2.0)).value.item(), (0.5 + one).weight.item()) == (8.0, 2.0)
    for wrong in (one, mx.ones((2,)), "a"):
        with pytest.raises(TypeError, match="weights of their own"):
            one + wrong


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda values: fp.Mean(values, mx.array(1.0)), r"the total of loss is an array of shape \(8,\).*fp.mean"),
        (lambda values: fp.Mean(values.sum(), values), "the weight of loss is an array"),
        (lambda values: fp.Mean(values.sum(), "8"), "the weight of loss is str"),
    ],
)
def test_a_mean_that_is_no_pair_of_scalars_is_an_error(made, words):
    with pytest.raises(TypeError, match=words):
        taken(loss=lambda model, x, y: made(nn.losses.cross_entropy(model(x), y)))


def test_the_weight_of_a_mean_may_be_a_number():
    by_hand = taken(loss=lambda model, x, y: fp.Mean(nn.losses.cross_entropy(model(x), y).sum(), 8))
    assert_close(by_hand[0], taken()[0], atol=1e-6)


# outputs --------------------------------------------------------------------------------------------------------


def twice(model, x, y):
    logits = model(x)
    return nn.losses.cross_entropy(logits, y, reduction="mean") + model(-x).square().mean()


def named(model, x, y):
    logits = fp.outputs(model(x))
    return nn.losses.cross_entropy(logits, y, reduction="mean") + model(-x).square().mean()


def test_metrics_fold_over_the_outputs_that_the_loss_names():
    params, *_ = fp.train_step(MODEL, named, optim.sgd(0.0)).init(0)
    right = (MODEL.apply(params, X)[0].argmax(axis=1) == Y).mean().item()
    _, opt_state, _ = taken(loss=named, metrics=[metrics.accuracy()])
    assert metrics.accuracy().value(opt_state["metrics"]["accuracy"]).item() == pytest.approx(right)
    step = fp.eval_step(MODEL, named, metrics=[metrics.accuracy()])
    state, _ = step(params, step.init(), (X, Y))
    assert metrics.accuracy().value(state["accuracy"]).item() == pytest.approx(right)


def test_two_calls_without_a_word_are_an_error_where_there_are_metrics():
    taken(loss=twice)
    with pytest.raises(ValueError, match=r"called the model 2 times.*fp.outputs"):
        taken(loss=twice, metrics=[metrics.accuracy()])


def test_outputs_are_what_they_are_outside_of_a_step():
    assert fp.outputs({"a": 1}) == {"a": 1}


# steps of one's own ---------------------------------------------------------------------------------------------


class Plain:
    """A step with no more than the protocol asks for."""

    metrics = ()
    traces = 0

    def init(self, start, *, seed=0):
        return {"w": mx.zeros((3,))}, {"key": mx.random.key(0), "optimizer": {}, "metrics": {}}

    def __call__(self, params, opt_state, batch):
        grad = batch.mean(axis=0) - params["w"]
        return {"w": params["w"] + 0.5 * grad}, opt_state, {"loss": mx.square(grad).sum()}


def test_a_run_takes_any_step():
    assert isinstance(Plain(), fp.Step)
    trainer = fp.with_step(lambda model, loss, optimizer, *, metrics: Plain())(fp.trainer(MODEL, entropy))
    report = fp.fit([X, X], epochs=2, quiet=True)(trainer)
    np.testing.assert_allclose(report.params["w"], np.array(X).mean(axis=0) * (1 - 0.5**4), rtol=1e-5)
    assert report.rows[0].examples == 16
    assert report.losses == pytest.approx([float((np.array(X).mean(axis=0) ** 2).sum()) * 0.25**i for i in range(4)])


def test_what_a_step_of_ones_own_lacks_is_named():
    trainer = fp.with_step(lambda *parts, metrics: Plain())(fp.trainer(MODEL, entropy))
    with pytest.raises(TypeError, match="accumulate needs a step with `accumulated`"):
        fp.fit([X, X], accumulate=2, quiet=True)(trainer)
    with pytest.raises(TypeError, match="lacks init, metrics, traces"):
        fp.fit([X], quiet=True)(fp.with_step(lambda *parts, metrics: print)(trainer))


def test_a_step_with_passes_of_its_own_trains_through_fit():
    from functools import partial

    plain = fp.trainer(MODEL, entropy, optimizer=optim.sgd(0.1))
    batches = [(X, Y), (X[:5], Y[:5])]
    cut = fp.with_step(partial(fp.train_step, through=[passes.in_parts(2)]))(plain)
    assert_close(*(fp.fit(batches, quiet=True)(trainer).params for trainer in (cut, plain)), atol=1e-6)


def test_accumulate_as_an_optimiser_is_an_error_that_names_the_options():
    with pytest.raises(AttributeError, match=r"fit\(…, accumulate=n\).*step.accumulate"):
        optim.accumulate
