"""However long a run is, it has the threads that it began with."""

from __future__ import annotations

import os
import threading

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim


def threads():
    """Count the threads of this process, those of MLX too where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


@pytest.mark.slow
def test_500_epochs_with_prefetch_and_background_saves_add_no_threads(tmp_path):
    x = mx.random.normal((8, 4), key=mx.random.key(3))
    rows = data.arrays(x=x, y=(x[:, 0] > 0).astype(mx.int32))
    train = pipe(rows, data.shuffle(seed=5), data.batch(4), data.map(lambda batch: batch), data.prefetch(2))
    held_out = pipe(rows, data.batch(8), data.prefetch(2))
    counts = []
    target = pipe(
        fp.trainer(nn.linear(4, 2), fp.classification()),
        fp.with_optimizer(optim.adam(1e-2)),
        fp.on("after_epoch", lambda event: counts.append(threads())),
        fp.checkpoints(tmp_path / "{epoch}", every=50, keep_last=2, background=True),
    )
    before = threading.active_count()
    pipe(target, fp.fit(train, validation=held_out, epochs=500, quiet=True))
    after = threading.active_count()
    assert len(counts) == 500
    assert min(counts[480:]) <= min(counts[60:80])  # the least of some, for a thread that ends is seen a little longer
    assert after <= before + 1  # one that reads ahead waits for more to read


def test_the_thread_that_writes_ends_with_its_run_also_by_an_error(tmp_path):
    target = pipe(
        fp.trainer(nn.linear(3, 1), lambda model, x: model(x).mean()),
        fp.checkpoints(tmp_path / "{step}", every_steps=1, background=True),
        fp.on("after_step", lambda event: {0: None}[event.step]),
    )
    with pytest.raises(KeyError) as kept:  # a traceback holds the frames of the run
        fp.fit([mx.ones((2, 3))] * 3, quiet=True)(target)
    assert kept.value.args == (1,)
    assert [thread.name for thread in threading.enumerate() if "checkpoint" in thread.name] == []
    assert fp.load(tmp_path / "1").metadata["step"] == 1
