"""Every end of a run is on disk."""

from __future__ import annotations

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

PAIR = (mx.ones((8, 4)), mx.zeros((8,), mx.int32))


def run(*verbs, **options):
    options = {"epochs": 3, "quiet": True, **options}
    return fp.fit([PAIR] * 4, **options)(pipe(fp.trainer(nn.linear(4, 2), fp.classification()), *verbs))


def steps_on_disk(folder):
    return sorted(fp.load(path).metadata["step"] for path in folder.glob("*.safetensors"))


def test_a_run_whose_length_every_does_not_divide_is_saved_at_its_end(tmp_path):
    saves = fp.checkpoints(tmp_path / "{step}", every=2)
    run(saves)
    assert steps_on_disk(tmp_path) == [8, 12]
    assert run(saves, resume="latest").epochs_ran == 0


@pytest.mark.parametrize("final", [True, False])
def test_a_stop_after_an_epoch_is_saved(tmp_path, final):
    stop = fp.on("after_epoch", lambda e: fp.Stop("enough", final=final) if e.row.epoch == 1 else None)
    run(stop, fp.checkpoints(tmp_path / "{step}", every=10))
    assert steps_on_disk(tmp_path) == [8]


def test_the_end_does_not_take_the_place_of_the_best(tmp_path):
    watch = fp.monitor("watched", metric=lambda row: row.epoch)  # the first epoch is the best
    report = run(watch, fp.checkpoints(tmp_path / "best", best=True, every=None))
    assert steps_on_disk(tmp_path) == [4]
    assert report.best_checkpoint == str(tmp_path / "best.safetensors")


def test_a_run_of_no_steps_writes_nothing(tmp_path):
    run(fp.checkpoints(tmp_path / "{step}"), epochs=0)
    assert steps_on_disk(tmp_path) == []
