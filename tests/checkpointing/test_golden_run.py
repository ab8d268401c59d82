"""A checkpoint of a whole run, as a released version wrote it, can be gone on from for ever.

`golden/runs/` was written once by

    PYTHONPATH=tests python tests/checkpointing/test_golden_run.py

which never writes over a file: `cut-2.safetensors` after 5 of the 6 steps of the run below, within its second epoch,
and `ended-2.npz` where a hook ends a smaller one. For another form of what a run keeps, raise the number, and pin the
new files beside the old ones. (Files of number 1 were never released.)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import assert_close, assert_same_bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop import _record as snapshot

FOLDER = Path(__file__).parent / "golden" / "runs"
FILES = {
    "cut-2.safetensors": "9347f2aa3261c622dd6b7f280eda09d5760524d9533c63b52e6eb20e598e04d9",
    "ended-2.npz": "af03c352cd421a97395ee2c62fdfb70f49155bd98d53833b60b1a526b083f3a8",
}
VERSIONS = {
    "mlx_fp": "0.1.0",
    "mlx": "0.32.4",
    "python": "3.11",
    "platform": "Linux",
    "device": "cpu",
    "blas": "libblas.so",
}
"""Where the files say that they were written."""

X = mx.arange(24, dtype=mx.float32).reshape(12, 2) / 24
Y = mx.array([0, 1, 1] * 4)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(4))  # 3 batches
HELD = pipe(data.arrays(x=X[:6], y=Y[:6]), data.batch(4))


def count(memory, event):
    """A hook with every kind of memory."""
    pair = (memory["pair"][0] + 1, [event.epoch, None])
    return {"sum": memory["sum"] + event.loss, "pair": pair, "text": "ä", "odd": float("inf")}, None


def enough(event):
    """A hook that ends the run."""
    return fp.Stop("enough") if event.epoch == 1 else None


def trainer(*verbs):
    model = nn.sequential(nn.linear(2, 3), nn.dropout(0.3), nn.linear(3, 2))
    optimizer = pipe(optim.adam(optim.cosine_decay(1e-2, 20)), optim.clip_norm(1.0), optim.accumulate(2))
    memory = {"sum": mx.array(0.0), "pair": (0, [0, None]), "text": "", "odd": 0.0}
    return pipe(
        fp.trainer(model, fp.classification()),
        fp.with_optimizer(optimizer),
        fp.monitor("val_loss", min_delta=1e-3),
        fp.early_stop(5),
        fp.with_hooks(fp.fold("after_step", memory, count)),
        fp.on("before_step", lambda event: None, every=2),
        *verbs,
    )


def fit(target, **options):
    options = {"validation": HELD, "epochs": 2, "seed": 9, "quiet": True, **options}
    return pipe(target, fp.fit(TRAIN, **options))


def cut():
    """The run of which a file is left after 5 steps."""
    return trainer(fp.checkpoints("run/s-{step}", every=None, every_steps=5, keep_last=2))


def ended():
    """A smaller one, that a hook ends."""
    small = fp.trainer(nn.linear(2, 2), fp.classification(), optimizer=optim.sgd(0.1, momentum=0.9))
    return pipe(small, fp.on("after_epoch", enough), fp.checkpoints("run/ep-{epoch}.npz"))


@pytest.mark.parametrize("name", FILES)
def test_a_golden_run_is_the_one_that_was_written_then(name):
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FILES[name]


def test_every_golden_run_is_pinned():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(FILES)


def test_a_golden_run_holds_what_it_stood_at():
    told = fp.load(FOLDER / "cut-2").metadata
    assert told["cursor"] == {"epoch": 1, "index": 2}
    assert (told["epoch"], told["next_epoch"], told["step"], told["completed"]) == (1, 1, 5, 1)
    assert (told["monitor_name"], told["monitor_mode"], told["improved"], told["user"]) == (
        "val_loss",
        "min",
        False,
        None,
    )
    assert (told["best_value"], told["best_epoch"], told["stale_epochs"]) == (told["rows"][0]["val_loss"], 0, 0)
    assert (told["epoch_loss"], told["monitor_value"]) == (told["rows"][0]["epoch_loss"], told["best_value"])
    assert (len(told["rows"]), told["losses"].dtype, told["losses"].shape) == (1, mx.float32, (5,))
    assert (told["sums"]["batches"], told["sums"]["examples"]) == (2, 8)
    assert (told["optimizer"], told["versions"]) == ("accumulate(2)(clip_norm(1)(adam))", VERSIONS)
    assert told["data"] == "pipe(arrays(x=(12, 2), y=(12,)), shuffle(seed=5), batch(4), collate(_xy))"
    assert told["rates"] == {"optimizer.inner.inner.learning_rate": pytest.approx(1e-2)}
    assert told["hooks"]["after_step count 1"]["memory"]["pair"] == (5, [1, None])
    assert told["run"].isdigit()


def test_from_a_golden_run_another_goes_on(caplog):
    held, seen, taken = fp.load(FOLDER / "cut-2"), [], []
    hooks = (
        fp.on("before_fit", lambda event: seen.append((event.state, event.start_epoch))),
        fp.on("after_step", lambda event: taken.append((event.epoch, event.step))),
    )
    again, alone = fit(trainer(*hooks), resume=FOLDER / "cut-2"), fit(trainer())
    ((state, epoch),) = seen
    assert_same_bits(state.params, held.params)
    assert_same_bits(state.opt_state, held.opt_state)
    assert (epoch, taken) == (1, [(1, 5)])
    assert "goes on inexactly" in caplog.text
    assert again.losses[:5] == tuple(held.metadata["losses"].tolist())
    assert asdict(again.rows[0]) == held.metadata["rows"][0]
    assert (again.rows[1].batches, again.rows[1].examples, again.rows[1].steps) == (3, 12, 6)
    assert_close(again.params, alone.params, rtol=1e-3, atol=1e-5)
    assert_close(again.opt_state, alone.opt_state, rtol=1e-3, atol=1e-5)
    assert again.losses == pytest.approx(alone.losses, rel=1e-3)
    assert [row.epoch_loss for row in again.rows] == pytest.approx([row.epoch_loss for row in alone.rows], rel=1e-3)
    assert again.best_epoch == alone.best_epoch


def test_a_golden_run_is_the_latest_in_its_folder_and_its_hooks_know_what_they_knew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    shutil.copy(FOLDER / "cut-2.safetensors", tmp_path / "run" / "s-5.safetensors")
    report = fit(cut(), resume="latest", epochs=4)
    assert Path(report.resume_from) == Path("run/s-5.safetensors")
    last = fp.load(report.checkpoints[-1]).metadata
    assert (last["step"], last["hooks"]["after_step count 1"]["memory"]["pair"][0]) == (10, 10)
    assert last["hooks"]["before_step <lambda> 1"]["seen"] == 10
    assert last["run"] == fp.load(FOLDER / "cut-2").metadata["run"]


def test_a_golden_run_that_a_hook_ended_has_ended():
    held, taken = fp.load(FOLDER / "ended-2.npz"), []
    target = fp.on("after_step", lambda event: taken.append(event.step))(replace(ended(), policy=None))
    report = fit(target, resume=held, epochs=4)
    assert (report.stop_reason, report.epochs_completed, taken) == ("enough", 2, [])
    assert_same_bits(report.params, held.params)
    assert_close(report.params, fit(replace(ended(), policy=None)).params, rtol=1e-3, atol=1e-5)


def main():
    """Write the files, unless they are there."""
    snapshot.environment = lambda: VERSIONS
    os.chdir(tempfile.mkdtemp())
    for target, made, name in ((cut(), "s-5.safetensors", "cut-2.safetensors"), (ended(), "ep-1.npz", "ended-2.npz")):
        if (FOLDER / name).exists():
            raise FileExistsError(f"{name} is there, and golden files are never written again")
        fit(target)
        FOLDER.mkdir(exist_ok=True)
        shutil.copy(Path("run") / made, FOLDER / name)


if __name__ == "__main__":
    main()
