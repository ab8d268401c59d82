"""A batch in parts on streams of their own: the numbers of the whole batch, side by side."""

from __future__ import annotations

import threading
from functools import partial

import mlx.core as mx
import pytest
from helpers import assert_close, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.step._rows import cut_rows

on_cpu = pytest.mark.skipif(mx.default_device().type != mx.DeviceType.cpu, reason="a GPU takes the batch whole")
pytestmark = on_cpu


X = mx.random.normal((24, 6), key=mx.random.key(1))
Y = (X[:, 0] > 0).astype(mx.int32)
NET = nn.sequential(nn.linear(6, 16), nn.gelu, nn.linear(16, 2))


def loss(model, x, y):
    logits = model(x)
    return nn.losses.cross_entropy(logits, y, reduction="mean"), {"right": (logits.argmax(axis=1) == y).sum()}


def trained(count, model=NET, rows=24, steps=5, **options):
    step = fp.train_step(model, loss, optim.sgd(0.1), streams=count, **options)
    params, state = step.init(0)
    logs = {}
    for _ in range(steps):
        params, state, logs = step(params, state, (X[:rows], Y[:rows]))
    mx.eval(params, state, logs)
    assert options.get("compile") is False or step.traces == 1
    return params, state, logs


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize(("count", "rows"), [(2, 24), (3, 24), (3, 23), (5, 24), (8, 3), (4, 1)])
def test_parts_train_as_the_whole_batch_does(count, rows, compile):
    whole, parts = (trained(n, rows=rows, compile=compile) for n in (1, count))
    assert_close(parts[0], whole[0], atol=1e-5)
    assert abs(parts[2]["loss"].item() - whole[2]["loss"].item()) < 1e-5


@pytest.mark.parametrize("wrap", [optim.clip_norm(0.1), optim.skip_nonfinite(), optim.ema(0.9)])
def test_wrappers_of_the_optimiser_see_the_mean(wrap):
    ends = []
    for count in (1, 2):
        step = fp.train_step(NET, loss, wrap(optim.adamw(1e-2)), streams=count)
        params, state = step.init(0)
        for _ in range(4):
            params, state, _ = step(params, state, (X, Y))
        ends.append((params, state["optimizer"]))
    assert_close(*ends, atol=1e-5)


def test_the_halves_and_unrolled_steps_do_the_same():
    step = fp.train_step(NET, loss, optim.sgd(0.1), streams=2)
    params, state = step.init(0)
    once, *_ = step(params, state, (X, Y))
    grads, rest, after, *_ = step.gradients(params, state, (X, Y))
    assert_close(step.update(params, after, grads, rest)[0], once, atol=1e-5)
    assert_close(step.advance(step.carry(params, state), [(X, Y)])[0].params, once, atol=1e-5)


def test_each_part_has_a_stream_of_its_own_and_the_callers_is_left():
    seen = []
    watching = nn.sequential(NET, nn.fn(lambda x: seen.append(mx.default_stream(mx.Device(mx.cpu))) or x))
    before = mx.default_stream(mx.Device(mx.cpu))
    for _ in range(2):
        trained(3, watching)
    assert mx.default_stream(mx.Device(mx.cpu)) == before == seen[0]
    assert len(set(map(str, seen))) == 3  # of two steps: they are made once


def test_parts_draw_masks_of_their_own_and_the_same_again():
    def held(model, x):
        y = model(x)
        return y.mean(), {"sum": y.sum()}

    step = fp.train_step(nn.sequential(nn.linear(4, 400), nn.dropout(0.5)), held, optim.sgd(0.0), streams=2)
    start, state = step.init(0)
    same = mx.ones((8, 4))

    def sums(state):
        read = []
        for _ in range(3):
            _, state, logs = step(start, state, (same,))
            read.append(logs["sum"].item())
        return read

    assert sums(state) == sums(state)
    assert len(set(sums(state))) == 3
    masks = []
    dropped = nn.sequential(nn.dropout(0.5), nn.fn(lambda x: masks.append(x) or x))
    model = nn.sequential(nn.linear(4, 4), dropped)
    eager = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(0.1), streams=2, compile=False)
    eager(*eager.init(0), (mx.ones((40, 4)),))
    zero = [(one == 0).tolist() for one in masks]
    assert len(zero) == 2
    assert zero[0] != zero[1]


def test_statistics_are_the_mean_of_the_parts_and_constants_keep_their_bits():
    shift = mx.array([0.1, 1 / 3, 1e-7, 3e5, -2.7, 1.1])
    model = nn.sequential(
        nn.define(lambda m, x: x + m.shift, shift=nn.buffer((6,), init=lambda *_: shift)), nn.batch_norm(6), NET
    )
    params, _, _ = trained(3, model, rows=23, steps=7)
    assert params["layers"][0]["shift"].tolist() == shift.tolist()
    once, _, _ = trained(2, model, steps=1)
    norm = once["layers"][1]
    means = mx.stack([(part + shift).mean(axis=0) for part in (X[:12], X[12:])])
    assert mx.allclose(norm["running_mean"], 0.1 * means.mean(axis=0), rtol=1e-4).item()


def test_metrics_and_reported_numbers_are_of_all_rows():
    (_, whole, one), (_, parts, other) = (trained(n, metrics=[fp.accuracy()], rows=23) for n in (1, 3))
    assert_same_bits(whole["metrics"], parts["metrics"])
    weighted = other["right"].item() * 23  # the mean of the parts' counts, each weighted by its rows
    assert other["right"].dtype == mx.float32
    assert one["right"].item() * 7 <= weighted <= one["right"].item() * 8


def test_evaluation_has_them_too():
    params = nn.init(0)(NET)
    logs = []
    for count in (1, 4):
        step = fp.eval_step(NET, loss, metrics=[fp.accuracy()], streams=count)
        state, read = step(params, step.init(), (X, Y))
        logs.append((read["loss"].item(), state))
    assert abs(logs[0][0] - logs[1][0]) < 1e-6
    assert_same_bits(logs[0][1], logs[1][1])
    test = pipe(data.arrays(x=X, y=Y), data.batch(5))
    target = fp.trainer(NET, fp.classification())
    assert fp.evaluate(test, params=params, streams=2)(target) == pytest.approx(
        fp.evaluate(test, params=params)(target)
    )


def test_a_run_with_streams_resumes_with_equal_bits(tmp_path):
    model = nn.sequential(nn.linear(6, 16), nn.dropout(0.3), nn.linear(16, 2))
    train = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=2), data.batch(7))
    held = pipe(data.arrays(x=X, y=Y), data.batch(24))
    target = pipe(fp.trainer(model, fp.classification()), fp.checkpoints(tmp_path / "{epoch}.safetensors"))
    options = {"validation": held, "streams": 2, "quiet": True}
    whole = fp.fit(train, epochs=4, **options)(target)
    fp.fit(train, epochs=2, **options)(target)
    resumed = fp.fit(train, epochs=4, resume="latest", **options)(target)
    assert_same_bits(resumed.params, whole.params)
    assert whole.rows[-1].epoch_loss < whole.rows[0].epoch_loss


def test_a_step_of_another_thread_has_streams_of_its_own():
    ends = []
    threads = [threading.Thread(target=lambda: ends.append(trained(2)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 2
    for end in ends:
        assert_close(end, trained(1)[0], atol=1e-5)


def test_rows_that_differ_and_batches_without_rows_are_refused():
    step = fp.train_step(NET, loss, optim.sgd(0.1), streams=2)
    with pytest.raises(ValueError, match=r"streams=2 cuts a batch by rows.* this batch has 0 \(24, 6\), 1 \(23,\)"):
        step(*step.init(0), (X, Y[:23]))
    with pytest.raises(ValueError, match="this batch has no array with rows"):
        cut_rows({"n": 3, "scale": mx.array(1.0)}, 2, "streams")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None])
def test_streams_is_a_count(count):
    for make in (partial(fp.train_step, NET, loss, optim.sgd(0.1)), partial(fp.eval_step, NET, loss)):
        with pytest.raises(ValueError, match="streams is a count, 1 or more"):
            make(streams=count)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 40), count=st.integers(2, 9))
def test_parts_put_together_are_the_batch(rows, count):
    batch = {"x": mx.arange(rows * 2).reshape(rows, 2), "tag": "a"}
    parts = cut_rows(batch, count, "streams")
    assert mx.concatenate([part["x"] for part in parts]).tolist() == batch["x"].tolist()
    assert {part["tag"] for part in parts} == {"a"}
    assert len(parts) == max(1, min(rows // 2, count))
    assert len(parts) == 1 or min(len(part["x"]) for part in parts) >= 2
    assert max(len(part["x"]) for part in parts) - min(len(part["x"]) for part in parts) <= 1
