"""Several steps in one compiled call: the run that single steps give, with an event for each."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, cross_entropy
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core.backend import PLAIN
from mlx_fp.loop._training import group_batches

X = mx.random.normal((44, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(4))  # 11 batches
MODEL = nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))


def trainer(*verbs):
    optimizer = pipe(optim.adam(1e-2), optim.clip_norm(1.0))
    return pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optimizer), *verbs)


def fit(target, **options):
    return fp.fit(TRAIN, **{"epochs": 2, "seed": 1, "quiet": True, **options})(target)


@pytest.mark.parametrize("count", [2, 3, 4, 11, 20])
@pytest.mark.parametrize("sync", ["async", "step"])
@pytest.mark.usual("async-20", "step-2", "step-3", "step-4", "step-11", "step-20")
def test_a_run_is_that_of_single_steps(count, sync):
    one, other = fit(trainer()), fit(trainer(), steps_per_call=count, sync=sync)
    assert_close(one.params, other.params, rtol=1e-4)
    assert_close(one.opt_state, other.opt_state, rtol=1e-4)
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
    for a, b in zip(one.rows, other.rows, strict=True):
        assert (a.steps, a.epoch) == (b.steps, b.epoch)
        np.testing.assert_allclose([a.epoch_loss, a.accuracy], [b.epoch_loss, b.accuracy], rtol=1e-4)


def test_every_step_has_its_events_and_logs():
    seen, single = [], fit(trainer(), epochs=1)
    hooks = (
        fp.on("before_step", lambda e: seen.append(("before", e.step, e.batch["x"].tolist()))),
        fp.on("after_step", lambda e: seen.append(("after", e.step, e.batch["x"].tolist(), e.loss_value))),
    )
    report = fit(trainer(*hooks), epochs=1, steps_per_call=3)
    names = [(name, step) for name, step, *_ in seen]
    first = [("before", 0), ("before", 1), ("before", 2), ("after", 0), ("after", 1), ("after", 2)]
    assert names[:6] == first
    assert names[-4:] == [("before", 9), ("after", 9), ("before", 10), ("after", 10)]  # 11 = 3 + 3 + 3 + 1 + 1
    after = [entry for entry in seen if entry[0] == "after"]
    assert tuple(entry[3] for entry in after) == report.losses
    np.testing.assert_allclose(report.losses, single.losses, rtol=1e-4)
    assert [entry[2] for entry in after] == [batch["x"].tolist() for batch in TRAIN.open(data.Cursor(0))]


def test_the_stream_of_events_is_that_of_single_steps():
    def steps(**options):
        return [e.step for e in fp.events(TRAIN, only=("after_step",), seed=1, **options)(trainer())]

    assert steps(steps_per_call=4) == steps() == list(range(11))


def test_the_step_is_traced_once_for_groups_and_once_for_the_rest():
    traced = []
    report = fit(trainer(fp.on("after_fit", lambda e: traced.append(e))), epochs=3, steps_per_call=4)
    assert len(report.losses) == 33
    step = fp.train_step(MODEL, cross_entropy, optim.sgd(0.1))
    state = step.carry(*step.init(0))
    batches = list(TRAIN)
    for _ in range(3):
        for group in group_batches(batches, 4, []):
            state, _ = step.advance(state, group)
    assert step.traces == 2


def test_a_hook_that_stops_is_heard_after_the_call():
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == 1 else None)
    report = fit(trainer(stop), steps_per_call=4)
    assert report.stop_reason == "enough"
    assert len(report.losses) == 4


def test_batches_of_other_shapes_are_taken_by_themselves():
    batches = [mx.zeros((2,)), mx.zeros((2,)), mx.zeros((1,)), mx.zeros((2,)), mx.zeros((2,)), mx.zeros((2,))]
    ahead = []
    groups = []
    for group in group_batches(batches, 2, ahead):
        groups.append([one.shape[0] for one in group])
    assert groups == [[2, 2], [1], [2], [2, 2]]
    assert ahead == []


def test_nothing_is_read_beyond_the_group():
    read = []

    def reading():
        for i in range(9):
            read.append(i)
            yield mx.zeros((2,))

    next(group_batches(reading(), 3, []))
    assert read == [0, 1, 2]


def test_an_error_in_the_data_names_its_batch():
    def broken(row):
        if len(seen) == 6:
            raise ZeroDivisionError("row")
        seen.append(row)
        return row

    seen = []
    with pytest.raises(ZeroDivisionError) as caught:
        fp.fit(pipe(TRAIN, data.map(broken)), steps_per_call=4, quiet=True)(trainer())
    assert "batch=6" in " ".join(caught.value.__notes__)


def test_a_run_cut_between_calls_and_resumed_ends_with_the_same_bits(tmp_path):
    options = {"steps_per_call": 3, "epochs": 2}
    whole = fit(trainer(), **options)
    kept = fp.checkpoints(str(tmp_path / "{step}.safetensors"), every_steps=2)
    stop = fp.on("after_step", lambda e: fp.Stop("cut", final=False) if e.step == 7 else None)
    cut = fit(trainer(kept, stop), **options)
    assert len(cut.losses) == 9
    assert sorted(int(path.stem) for path in tmp_path.glob("*.safetensors")) == [3, 6, 9]
    resumed = fit(trainer(kept), resume="latest", **options)
    assert_same_bits([whole.params, whole.opt_state], [resumed.params, resumed.opt_state])
    assert resumed.losses == whole.losses


def test_a_listener_in_the_midst_of_a_step_is_refused():
    listening = trainer(fp.on("after_backward", lambda e: None))
    with pytest.raises(ValueError, match="steps_per_call=2 takes whole steps.*after_backward"):
        fit(listening, steps_per_call=2)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_a_count_that_is_none_is_refused(count):
    error = TypeError if isinstance(count, str) else ValueError
    with pytest.raises(error, match="steps_per_call of a run is a count, 1 or more"):
        fit(trainer(), steps_per_call=count)


def test_a_large_model_is_warned_of_where_the_backend_gains_nothing(monkeypatch):
    backend = replace(PLAIN, unrolls=lambda elements: elements < 100_000)
    monkeypatch.setattr("mlx_fp.loop._starting.device_backend", lambda: backend)
    model = nn.linear(400, 400)
    target = fp.trainer(model, lambda f, x: f(x).mean())
    batches = [mx.ones((1, 400))] * 2
    with pytest.warns(RuntimeWarning, match="steps_per_call=2 is for small models: with 160,400 parameters"):
        fp.fit(batches, steps_per_call=2, quiet=True)(target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fp.fit(batches, quiet=True)(target)


@pytest.mark.slow
def test_a_loss_that_is_lost_in_a_group_is_named(caplog):
    x = mx.where(mx.arange(44)[:, None] == 22, mx.nan, X)
    train = pipe(data.arrays(x=x, y=Y), data.batch(4))
    with pytest.raises(FloatingPointError, match="at step 5, batch 5"):
        fp.fit(train, steps_per_call=4, quiet=True)(trainer())
    with caplog.at_level(logging.WARNING):
        report = fp.fit(train, steps_per_call=4, nonfinite="skip", quiet=True)(trainer())
    assert np.isnan(report.losses).tolist() == [i == 5 for i in range(11)]
    assert np.isfinite(report.rows[-1].epoch_loss)
