"""Metrics fold inside the compiled step and weigh every example alike."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import cross_entropy

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.task import _folds as metric

SUM = fp.Metric(
    "mean_output",
    lambda: {"sum": mx.array(0.0), "count": mx.array(0)},
    lambda memory, output, x, y: {"sum": memory["sum"] + output.sum(), "count": memory["count"] + y.size},
    lambda memory: memory["sum"] / memory["count"],
)


def batches(*sizes):
    draw = np.random.default_rng(0)
    return [
        (mx.array(draw.normal(size=(n, 3)).astype(np.float32)), mx.array(draw.integers(0, 4, size=n).astype(np.int32)))
        for n in sizes
    ]


def test_metrics_fold_in_the_compiled_train_step_weighted_by_examples():
    step = fp.train_step(nn.linear(3, 4), cross_entropy, optim.sgd(0.5), metrics=[fp.accuracy(), SUM])
    params, opt_state = step.init(0)
    hits, total, outputs = 0, 0, 0.0
    for x, y in batches(8, 8, 3):
        out = np.array(x) @ np.array(params["weight"]).T + np.array(params["bias"])
        hits, total, outputs = hits + (out.argmax(-1) == np.array(y)).sum(), total + y.size, outputs + out.sum()
        params, opt_state, _ = step(params, opt_state, (x, y))
    found = metric.values(step.metrics, opt_state["metrics"])
    assert found == pytest.approx({"accuracy": hits / total, "mean_output": outputs / total}, rel=1e-4)
    assert step.traces == 2
    assert {type(value) for value in found.values()} == {float}


def test_metrics_fold_in_the_compiled_eval_step_and_start_again():
    model = nn.linear(3, 4)
    params, step = nn.init(0)(model), fp.eval_step(model, cross_entropy, metrics=[fp.accuracy()])
    first = step.init()
    state, (a, b) = first, batches(8, 3)
    for each in (a, b):
        state, _ = step(params, state, each)
    wanted = [(np.array(model.apply(params, x)[0]).argmax(-1) == np.array(y)).sum() for x, y in (a, b)]
    assert (state["accuracy"]["hits"].item(), state["accuracy"]["count"].item()) == (sum(wanted), 11)
    assert first["accuracy"]["count"].item() == 0
    assert step(params, first, b)[0]["accuracy"]["count"].item() == 3


def test_metrics_take_dict_batches_by_name_and_the_output_that_the_loss_names():
    def twice(model, x, y):
        return cross_entropy(model, x, y) + 0 * fp.outputs(model(-x)).sum()

    step = fp.train_step(nn.linear(3, 4), twice, optim.sgd(0.0), metrics=[fp.accuracy()])
    params, opt_state = step.init(0)
    ((x, y),) = batches(8)
    _, opt_state, _ = step(params, opt_state, {"y": y, "x": x})
    out = np.array(-x) @ np.array(params["weight"]).T + np.array(params["bias"])
    assert opt_state["metrics"]["accuracy"]["hits"].item() == (out.argmax(-1) == np.array(y)).sum()


def test_metrics_see_the_batch_that_was_given_not_what_the_loss_made_of_it():
    def shifting(model, x, y):
        y += 1
        return model(x).mean()

    seen = fp.Metric("seen", lambda: mx.array(0), lambda m, out, x, y: m + y.sum(), lambda m: m)
    for compile in (True, False):
        step = fp.train_step(nn.linear(3, 4), shifting, optim.sgd(0.0), metrics=[seen], compile=compile)
        ((x, y),) = batches(8)
        assert step(*step.init(0), (x, y))[1]["metrics"]["seen"].item() == y.sum().item()


def test_metrics_do_not_change_what_is_learnt():
    ends = []
    for folds in ((), (fp.accuracy(), SUM)):
        step = fp.train_step(nn.linear(3, 4), cross_entropy, optim.sgd(0.5), metrics=folds)
        params, opt_state = step.init(0)
        for each in batches(8, 8):
            params, opt_state, _ = step(params, opt_state, each)
        ends.append(params)
    np.testing.assert_allclose(ends[0]["weight"], ends[1]["weight"], rtol=1e-5, atol=1e-7)


def test_a_batch_that_does_not_fit_a_metric_names_both_sides():

    def named(model, x, label):
        return cross_entropy(model, x, label)

    step = fp.train_step(nn.linear(3, 4), named, optim.sgd(0.1), metrics=[fp.accuracy()])
    ((x, y),) = batches(8)
    with pytest.raises(ValueError, match=r"metric 'accuracy': unknown target 'y': known: x, label"):
        step(*step.init(0), {"x": x, "label": y})


def test_a_metric_of_ones_own_gets_the_columns_that_it_names():
    step = fp.train_step(nn.linear(3, 4), lambda model, x, label: model(x).mean(), optim.sgd(0.1), metrics=[SUM])
    ((x, y),) = batches(8)
    with pytest.raises(TypeError, match=r"metric 'mean_output' takes \(x, y\).*keys \(x, label\).*no key fills 'y'"):
        step(*step.init(0), {"x": x, "label": y})


def test_a_metric_needs_no_merge():
    assert SUM.merge is None


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two metrics are called accuracy"):
        metric.checked([fp.accuracy(), fp.accuracy()])
    assert [m.name for m in metric.checked([fp.accuracy(), fp.accuracy("top")])] == ["accuracy", "top"]


def test_what_is_no_metric_is_refused():
    with pytest.raises(TypeError, match=r"Metric\(name, init, update, value\); got 'accuracy'"):
        metric.checked(["accuracy"])


def test_a_metric_reads_as_its_name():
    assert repr(fp.accuracy("top1")) == "top1"
