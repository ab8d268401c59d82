"""When the loop waits for the device changes no bit, and what it holds meanwhile is bounded."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import outcome
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core import backend
from mlx_fp.loop import _plan, _stepping, _training

SYNCS = ("async", "step", "epoch", "none")
X = mx.random.normal((40, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(8))
HELD = pipe(data.arrays(x=X[:16], y=Y[:16]), data.batch(8))
MODEL = nn.sequential(nn.linear(4, 8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))


def fit(*verbs, **options):
    optimizer = optim.clip_norm(1.0)(optim.adam(1e-2))
    target = pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optimizer), *verbs)
    return fp.fit(TRAIN, validation=HELD, epochs=2, seed=1, quiet=True, **options)(target)


def reading():
    """Hooks that read values in the middle of the run, at every event that has some."""
    seen = []
    return seen, (
        fp.on("after_backward", lambda e: seen.append(fp.norm(e.grads).item())),
        fp.on("after_step", lambda e: seen.append((e.loss_value, e.grad_norm))),
        fp.on("after_validation_batch", lambda e: seen.append(e.loss.item())),
        fp.on("after_epoch", lambda e: seen.append(e.state.params["layers"][0]["weight"].tolist())),
    )


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("False")
def test_every_sync_gives_equal_bits(compile):
    first, *others = (outcome(fit(sync=sync, compile=compile)) for sync in SYNCS)
    assert all(other == first for other in others)


@pytest.mark.parametrize("hooks", [(), (fp.on("after_backward", lambda e: None),)])
def test_a_large_model_taken_in_two_halves_gives_equal_bits(hooks, monkeypatch):
    queued, evaluated = outcome(fit(*hooks)), []
    waits = replace(backend.device_backend(), waits=lambda parameter_bytes: True)
    monkeypatch.setattr("mlx_fp.step._train_step.device_backend", lambda: waits)
    evaluate = mx.eval
    monkeypatch.setattr(mx, "eval", lambda *trees: evaluated.append(len(trees)) or evaluate(*trees))
    assert outcome(fit(*hooks)) == queued
    assert evaluated.count(2) == 11  # parameters and state, at first and where each step begins


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("True")
def test_every_sync_gives_equal_bits_to_hooks_that_read(compile):
    runs = []
    for sync in SYNCS:
        seen, hooks = reading()
        runs.append((outcome(fit(*hooks, sync=sync, compile=compile)), seen))
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("sync", SYNCS)
def test_hooks_that_look_change_no_bit(sync):
    look = fp.on("after_step", lambda e: fp.norm(e.state.params).item() and None)
    assert outcome(fit(look, sync=sync)) == outcome(fit(sync=sync))


@pytest.mark.parametrize("sync", SYNCS)
def test_rows_are_the_same_without_the_losses_of_steps(sync):
    kept, dropped = fit(sync=sync), fit(sync=sync, keep_losses=False)
    assert (len(kept.losses), dropped.losses) == (10, ())
    assert outcome(replace(dropped, losses=kept.losses)) == outcome(kept)


@pytest.mark.parametrize(("sync", "most"), [("async", 64), ("step", 64), ("epoch", 150), ("none", 150)])
@pytest.mark.usual("epoch-150")
def test_at_most_so_many_logs_wait_to_be_read(sync, most, monkeypatch):
    waiting = []
    plain = _stepping.add

    def add(sums, *rest):
        after = plain(sums, *rest)
        waiting.append(after.queued)
        return after

    monkeypatch.setattr(_stepping, "add", add)
    fp.fit([(X[:8], Y[:8])] * 150, sync=sync, quiet=True)(fp.trainer(MODEL, fp.classification()))
    assert len(waiting) == 150
    assert max(waiting) == most


@pytest.mark.parametrize(("options", "behind"), [({}, 2), ({"sync": "step"}, 2), ({"steps_per_call": 3}, 6)])
def test_each_log_is_looked_at_as_soon_as_it_is_no_longer_in_flight(options, behind, monkeypatch):
    waiting, left = [], []
    plain = _training.wait_for_oldest

    def watched(flight, in_flight):
        assert in_flight == behind
        waiting.append(len(flight))
        finite = plain(flight, in_flight)
        left.append(len(flight))
        return finite

    monkeypatch.setattr(_training, "wait_for_oldest", watched)
    fp.fit(data.repeat(3)(TRAIN), quiet=True, **options)(fp.trainer(MODEL, fp.classification()))
    assert max(left) == behind
    new = [now - before for now, before in zip(waiting, [0, *left], strict=False)]
    assert sum(new) == 15, "each step is looked at once"


@pytest.mark.parametrize(("sync", "waits"), [("step", True), ("async", False)])
def test_step_waits_for_each_and_async_queues_each(sync, waits, monkeypatch):
    synced = []
    monkeypatch.setitem(_plan.SYNC, "step", lambda *trees: synced.append(True))
    monkeypatch.setitem(_plan.SYNC, "async", lambda *trees: synced.append(False))
    fp.fit(TRAIN, sync=sync, quiet=True)(fp.trainer(MODEL, fp.classification()))
    assert synced == [waits] * 5


def test_a_stop_that_reads_a_value_ends_every_sync_at_the_same_step():
    ends = set()
    for sync in SYNCS:
        report = fit(fp.on("after_step", lambda e: fp.Stop("good") if e.step > 2 and e.loss_value else None), sync=sync)
        ends.add((report.rows[-1].steps, report.stop_reason, report.losses))
    assert len(ends) == 1
    assert next(iter(ends))[:2] == (4, "good")
