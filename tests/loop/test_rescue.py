"""An error in data or validation loses nothing: what was done is on disk, and a run goes on from there."""

from __future__ import annotations

import logging
import threading

import mlx.core as mx
import pytest
from helpers import outcome
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.store import _checkpoint as checkpoint

X = mx.random.normal((24, 4), key=mx.random.key(3))
ROWS = data.arrays(x=X, y=(X[:, 0] > 0).astype(mx.int32))
TRAIN, HELD = pipe(ROWS, data.shuffle(seed=5), data.batch(4)), pipe(ROWS, data.batch(8))
MODEL = nn.sequential(*[nn.linear(4, 4) for _ in range(4)], nn.dropout(0.3), nn.linear(4, 2))


def trainer(folder, *verbs):
    kept = fp.checkpoints(folder / "{step}.safetensors")
    return pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optim.adamw(1e-2)), kept, *verbs)


def fit(target, train=TRAIN, validation=HELD, **options):
    return pipe(target, fp.fit(train, validation=validation, epochs=2, seed=9, quiet=True, **options))


def failing(dataset, at):
    """The dataset, whose batch number `at` of all that are read cannot be read, once."""
    read = []

    def broken(batch):
        read.append(batch)
        if len(read) == at:
            raise OSError("the disk is gone")
        return batch

    return pipe(dataset, data.map(broken))


@pytest.mark.parametrize("lost", [2, 3])
@pytest.mark.usual("3")
def test_a_save_that_failed_meanwhile_does_not_cost_the_last_one(tmp_path, lost, monkeypatch):
    write, gate = checkpoint.write_whole, threading.Event()

    def failing_once(path, content, **options):
        if path.stem == str(lost) and not failed:
            failed.append(path)
            assert gate.wait(60)
            raise OSError(28, "No space left on device", str(path))
        return write(path, content, **options)

    def broken(batch):
        read.append(batch)
        if len(read) == 4:
            gate.set()
            raise OSError("the disk is gone")
        return batch

    failed, read = [], []
    monkeypatch.setattr(checkpoint, "write_whole", failing_once)
    kept = fp.checkpoints(tmp_path / "{step}.safetensors", every_steps=lost, background=True)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        fit(pipe(trainer(tmp_path), kept), pipe(TRAIN, data.map(broken)))
    assert any(note.startswith("a checkpoint could not be written, too: OSError") for note in caught.value.__notes__)
    assert any("the run so far, 3 steps, is in" in note for note in caught.value.__notes__)
    assert fp.load(tmp_path / "3").metadata["step"] == 3


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("part", "at", "steps"), [("train", 4, 3), ("train", 11, 10), ("validation", 2, 6)])
@pytest.mark.usual("train-4-3-1-True")
def test_a_run_goes_on_from_where_data_or_validation_failed(tmp_path, part, at, steps, count, background):
    whole = fit(trainer(tmp_path / "whole"), steps_per_call=count)
    parts = {"train": TRAIN, "validation": HELD}
    kept = fp.checkpoints(tmp_path / "{step}.safetensors", background=background)
    target = pipe(trainer(tmp_path), kept)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        fit(target, **{**parts, part: failing(parts[part], at)}, steps_per_call=count)
    steps -= steps % count if part == "train" else 0
    assert any(
        f"the run so far, {steps} steps, is in {tmp_path / f'{steps}.safetensors'}" in note
        for note in caught.value.__notes__
    )
    assert fp.load(tmp_path / f"{steps}.safetensors").metadata["step"] == steps
    again = fit(target, resume="latest", steps_per_call=count)
    assert again.rows[0].seconds
    assert outcome(again) == outcome(whole)


def test_a_validation_that_a_hook_asked_for_is_done_when_the_run_goes_on(tmp_path):
    asked = fp.on("after_step", lambda e: fp.Validate() if e.step == 1 else None)
    with pytest.raises(OSError, match="gone"):
        fit(trainer(tmp_path, asked), validation=failing(HELD, 2))
    seen = []
    fit(trainer(tmp_path, asked, fp.on("before_validation", lambda e: seen.append(e.epoch))), resume="latest")
    assert seen == [0, 0, 1]


def test_a_validation_after_an_epoch_that_fails_does_not_count_the_epoch_twice(tmp_path):
    asked = fp.on("after_epoch", lambda e: fp.Validate() if e.epoch == 0 else None)
    target = trainer(tmp_path, fp.checkpoints(tmp_path / "{step}.safetensors", every=10), asked)
    with pytest.raises(OSError, match="gone"):
        fit(target, validation=failing(HELD, 5))
    seen = []
    again = fit(pipe(target, fp.on("before_validation", lambda e: seen.append(e.epoch))), resume="latest")
    assert [(row.epoch, row.steps) for row in again.rows] == [(0, 6), (1, 12)]
    assert seen == [0, 1]


def test_epochs_that_no_policy_wanted_are_not_lost(tmp_path):
    target = trainer(tmp_path, fp.checkpoints(tmp_path / "{step}.safetensors", every=10))
    with pytest.raises(OSError, match="gone"):
        fit(target, failing(TRAIN, 7))
    assert [row.steps for row in fit(target, resume="latest").rows] == [6, 12]
    assert fp.load(tmp_path / "6.safetensors").metadata["epoch"] == 0


def test_the_note_names_the_file_that_took_the_place_of_another(tmp_path):
    target = trainer(tmp_path, fp.checkpoints(tmp_path / "last.safetensors", every_steps=2))
    with pytest.raises(OSError, match="gone") as caught:
        fit(target, failing(TRAIN, 6))
    assert any(f"5 steps, is in {tmp_path / 'last.safetensors'}" in note for note in caught.value.__notes__)


def test_a_first_batch_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match="gone"):
        fit(trainer(tmp_path), failing(TRAIN, 1))
    assert not list(tmp_path.glob("*.safetensors"))


def test_errors_of_hooks_and_losses_that_are_not_finite_write_nothing(tmp_path):
    with pytest.raises(KeyError):
        fit(trainer(tmp_path, fp.on("after_step", lambda e: {}[e.step])))
    with pytest.raises(KeyError):
        fit(trainer(tmp_path, fp.on("after_validation_batch", lambda e: {}[e.epoch])))
    with pytest.raises(FloatingPointError):
        fit(trainer(tmp_path), pipe(TRAIN, data.map(lambda batch: {**batch, "x": batch["x"] * mx.inf})))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_loss_that_is_not_finite_at_the_end_of_an_epoch_is_the_one_error(tmp_path, caplog):
    last = pipe(
        data.arrays(x=X * mx.array([1.0] * 23 + [mx.inf])[:, None], y=(X[:, 0] > 0).astype(mx.int32)), data.batch(4)
    )
    with pytest.raises(FloatingPointError, match="at step 5, batch 5 of the epoch") as caught:
        fit(trainer(tmp_path), last)
    assert not list(tmp_path.glob("*.safetensors"))
    assert (caplog.text, [note for note in caught.value.__notes__ if "could not" in note]) == ("", [])


def test_a_source_that_raises_a_floating_point_error_loses_nothing(tmp_path):
    read = []

    def broken(batch):
        read.append(batch)
        if len(read) == 4:
            raise FloatingPointError("underflow in the source")
        return batch

    with pytest.raises(FloatingPointError, match="in the source"):
        fit(trainer(tmp_path), pipe(TRAIN, data.map(broken)))
    assert fp.load(tmp_path / "3.safetensors").metadata["step"] == 3


def test_the_error_goes_before_what_goes_wrong_with_the_writing(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError("no room")

    monkeypatch.setattr("mlx_fp.checkpointing._writer.prepare_save", full)
    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="the disk is gone"):
        fit(trainer(tmp_path), failing(TRAIN, 4))
    assert "could not be saved: no room" in caplog.text


def test_the_stage_of_a_validation_is_that_after_a_hook_was_told(tmp_path):
    hook = fp.on("after_validation_batch", lambda e: None)
    with pytest.raises(OSError, match="gone") as caught:
        fit(trainer(tmp_path, hook), validation=failing(HELD, 2))
    assert "at split=validation, epoch=0, batch=1, stage=validation" in caught.value.__notes__
