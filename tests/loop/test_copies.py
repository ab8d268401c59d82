"""What a hook does in place to what it receives changes neither training, nor the best, nor the report."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import bits, outcome
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((40, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.float32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(16))
HELD = pipe(data.arrays(x=X[:20], y=Y[:20]), data.batch(8))


def loss(model, x, y):
    error = mx.square(model(x)[:, 0] - y).mean()
    return error, {"reported": mx.sqrt(error)}


def fit(folder, *verbs):
    target = pipe(
        fp.trainer(nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.linear(8, 1)), loss),
        fp.with_optimizer(optim.adam(1e-2)),
        fp.with_metrics(fp.metrics.mae()),
        fp.monitor("val_loss"),
        fp.checkpoints(folder / "{epoch}", best=True, keep_last=1),
        *verbs,
    )
    return pipe(target, fp.fit(TRAIN, validation=HELD, epochs=3, seed=9, quiet=True))


def bump(tree):
    """Add to each array, or number, of a tree in place."""
    for key, leaf in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(leaf, (dict, list)):
            bump(leaf)
        elif not isinstance(leaf, mx.array) or mx.issubdtype(leaf.dtype, mx.inexact):
            tree[key] += 100


def bump_one(array):
    array += 100


MEDDLERS = {
    "before_fit": [lambda e: bump(e.state.params), lambda e: bump(e.state.opt_state), lambda e: bump(e.trainable)],
    "before_step": [lambda e: bump(e.batch), lambda e: bump(e.state.params)],
    "after_backward": [lambda e: bump(e.batch), lambda e: bump(e.grads), lambda e: bump_one(e.loss)],
    "after_step": [
        lambda e: bump(e.batch),
        lambda e: bump(e.logs),
        lambda e: bump_one(e.loss),
        lambda e: bump(e.state.params),
        lambda e: bump(e.state.opt_state),
    ],
    "after_validation_batch": [lambda e: bump(e.batch), lambda e: bump_one(e.loss), lambda e: bump(e.state.params)],
    "after_validation": [lambda e: bump(e.state.params)],
    "after_epoch": [lambda e: bump(e.state.params)],
    "after_checkpoint": [lambda e: bump(e.state.params)],
    "after_fit": [
        lambda e: bump(e.report.params),
        lambda e: bump(e.report.opt_state),
        lambda e: bump(e.state.params),
    ],
}


def outcome_and_best(report, folder):
    """All that a run ends with, its best file too."""
    best = fp.load(folder / str(report.best_epoch))
    return outcome(report), report.best_value, report.best_epoch, bits(best.params), bits(best.opt_state)


@pytest.mark.parametrize(("event", "number"), [(e, i) for e, fns in MEDDLERS.items() for i in range(len(fns))])
@pytest.mark.usual("after_step-0")
def test_in_place_means_in_the_hooks_own(event, number, tmp_path):
    done = []

    def meddle(e):
        MEDDLERS[event][number](e)
        done.append(event)

    alone = fit(tmp_path / "alone", fp.on(event, lambda e: None))
    report = fit(tmp_path / "meddled", fp.on(event, meddle))
    assert done
    assert outcome_and_best(report, tmp_path / "meddled") == outcome_and_best(alone, tmp_path / "alone")


def test_a_hook_sees_at_each_reading_what_there_was_before_it_meddled():
    seen = []

    def meddle(e):
        bump_one(e.loss)
        seen.append((e.loss.item(), e.logs["loss"].item()))

    report = pipe(fp.trainer(nn.linear(4, 1), loss), fp.on("after_step", meddle), fp.fit(TRAIN, quiet=True))
    assert tuple(seen) == tuple((one, one) for one in report.losses)


def test_numpy_batches_cannot_be_written_to_by_a_hook():
    batch = {"x": np.ones((2, 4), np.float32), "y": np.ones((2,), np.float32)}

    def meddle(e):
        e.batch["x"][:] = 0

    target = pipe(fp.trainer(nn.linear(4, 1), loss), fp.on("before_step", meddle))
    with pytest.raises(ValueError, match="read-only"):
        fp.fit([batch], quiet=True)(target)
    assert batch["x"].flags.writeable
    assert batch["x"].min() == 1
