"""A checkpoint of a whole run, as a released version wrote it, can be gone on from for ever.

`golden/runs/` was written once by

    PYTHONPATH=.:tests python tests/checkpointing/test_golden_run.py

which never writes over a file: `cut-N.safetensors` after 3 of the 4 steps of the run below, within its second epoch,
and `ended-N.npz` where a hook ends a smaller one. For another form of what a run keeps, raise the number, and pin the
new files beside the old ones. (Files of numbers 1 and 2 were never released; those of 4 are of schema 2,
those of 5 of schema 3.)
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

NUMBER = 5
FOLDER = Path(__file__).parent / "golden" / "runs"
FILES = {
    "cut-3.safetensors": "a8159c24c355ff4cb86f692f9858514eda0966cffa624118391879bbbccb0f79",
    "cut-4.safetensors": "7d4a9f182eaa337df104842d2dbf9c47825129744236fdd7a8833730d1df3fde",
    "cut-5.safetensors": "433e16c5ac8a124def7b896fb8166de8758e910428a41a9df1d9990c1bf68f6b",
    "ended-3.npz": "99f26a052ee8bc8451d11cb6826eb7e290d4538b36700f8fb1b27c6cad616574",
    "ended-4.npz": "102254650c79c073adca0ca0c1d6a523b4603955259624c83bdf77e065abf405",
    "ended-5.npz": "b12d56b228a01385669f8d8d587d430817257995600996f6b6e268fef695644e",
}
NUMBERS = (3, 4, NUMBER)
VERSIONS = {
    "mlx_fp": "0.1.0",
    "mlx": "0.32.4",
    "python": "3.11",
    "platform": "Linux",
    "device": "cpu",
    "blas": "libblas.so",
    "processor": "a processor",
    "kernels": "as MLX came",
}
"""Where the files say that they were written; those before number 5 say nothing of the last two."""

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
    optimizer = optim.clip_norm(1.0)(optim.adam(optim.cosine_decay(1e-2, 20)))
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


CUT = {"accumulate": 2, "keep_best": True}
"""The options of the run that is cut: 2 updates an epoch, of 2 batches and of 1."""


def cut():
    """The run of which a file is left after 3 steps."""
    return trainer(fp.checkpoints("run/s-{step}", every=None, every_steps=3, keep_last=2))


def ended():
    """A smaller one, that a hook ends."""
    small = fp.trainer(nn.linear(2, 2), fp.classification(), optimizer=optim.sgd(0.1, momentum=0.9))
    return pipe(small, fp.on("after_epoch", enough), fp.checkpoints("run/ep-{epoch}.npz"))


@pytest.mark.parametrize("name", FILES)
def test_a_golden_run_is_the_one_that_was_written_then(name):
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FILES[name]


def test_every_golden_run_is_pinned():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_golden_run_holds_what_it_stood_at(number):
    told = fp.load(FOLDER / f"cut-{number}").metadata
    assert told["cursor"] == {"epoch": 1, "index": 2}
    assert (told["epoch"], told["next_epoch"], told["step"], told["completed"]) == (1, 1, 3, 1)
    assert (told["monitor_name"], told["monitor_mode"], told["improved"], told["user"]) == (
        "val_loss",
        "min",
        False,
        None,
    )
    ((row,), (evaluation,)) = told["rows"], told["evaluations"]
    assert (told["best_value"], told["best_epoch"], told["best_step"], told["stale"]) == (row["val_loss"], 0, 2, 0)
    assert (told["epoch_loss"], told["monitor_value"]) == (row["epoch_loss"], None), "nothing is judged at this step"
    assert (evaluation["step"], evaluation["monitor_value"], evaluation["improved"]) == (2, row["val_loss"], True)
    assert (told["losses"].dtype, told["losses"].shape) == (mx.float32, (3,))
    sums = told["sums"]
    assert (sums["batches"], sums["updates"], sums["examples"], sums["queue"]) == (2, 1, 8, [])
    assert sums["figures"] == {"loss": [pytest.approx(8 * told["losses"][2].item()), 8.0]}
    versions = VERSIONS if number > 4 else {name: VERSIONS[name] for name in list(VERSIONS)[:-2]}
    assert (told["optimizer"], told["versions"]) == ("clip_norm(1)(adam)", versions)
    assert told["data"] == "pipe(arrays(x=(12, 2), y=(12,)), shuffle(seed=5), batch(4), collate(_xy))"
    assert told["rates"] == {"optimizer.inner.learning_rate": pytest.approx(1e-2)}
    assert told["hooks"]["after_step count 1"]["memory"]["pair"] == (3, [1, None])
    assert told["run"].isdigit()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.usual("4", "5")
def test_from_a_golden_run_another_goes_on(number, caplog):
    held, seen, taken = fp.load(FOLDER / f"cut-{number}"), [], []
    hooks = (
        fp.on("before_fit", lambda event: seen.append((event.state, event.start_epoch))),
        fp.on("after_step", lambda event: taken.append((event.epoch, event.step))),
    )
    again, alone = fit(trainer(*hooks), resume=FOLDER / f"cut-{number}", **CUT), fit(trainer(), **CUT)
    ((state, epoch),) = seen
    assert_same_bits(state.params, held.params)
    assert_same_bits(state.opt_state, held.opt_state)
    assert (epoch, taken) == (1, [(1, 3)])
    assert "goes on inexactly" in caplog.text
    assert again.losses[:3] == tuple(held.metadata["losses"].tolist())
    assert asdict(again.rows[0]) == {**held.metadata["rows"][0], "cut": False}  # files of before have no `cut`
    assert asdict(again.evaluations[0]) == held.metadata["evaluations"][0]
    assert (again.rows[1].batches, again.rows[1].examples, again.rows[1].steps) == (3, 12, 4)
    assert_close(again.params, alone.params, rtol=1e-3, atol=1e-5)
    assert_close(again.opt_state, alone.opt_state, rtol=1e-3, atol=1e-5)
    assert again.losses == pytest.approx(alone.losses, rel=1e-3)
    assert [row.epoch_loss for row in again.rows] == pytest.approx([row.epoch_loss for row in alone.rows], rel=1e-3)
    assert (again.best_epoch, again.best_step) == (alone.best_epoch, alone.best_step)
    assert_close(again.best_params, alone.best_params, rtol=1e-3, atol=1e-5)
    first = fit(trainer(), epochs=1, **CUT)
    assert_close(held.metadata["best_params"], first.best_params, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_golden_run_is_the_latest_in_its_folder_and_its_hooks_know_what_they_knew(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    shutil.copy(FOLDER / f"cut-{number}.safetensors", tmp_path / "run" / "s-3.safetensors")
    report = fit(cut(), resume="latest", epochs=4, **CUT)
    assert Path(report.resume_from) == Path("run/s-3.safetensors")
    last = fp.load(report.checkpoints[-1]).metadata
    assert (last["step"], last["hooks"]["after_step count 1"]["memory"]["pair"][0]) == (8, 8)
    assert last["hooks"]["before_step <lambda> 1"]["seen"] == 8
    assert last["run"] == fp.load(FOLDER / f"cut-{number}").metadata["run"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.usual("4", "5")
def test_a_golden_run_that_a_hook_ended_has_ended(number):
    held, taken = fp.load(FOLDER / f"ended-{number}.npz"), []
    target = fp.on("after_step", lambda event: taken.append(event.step))(replace(ended(), policy=None))
    report = fit(target, resume=held, epochs=4)
    assert (report.stop_reason, report.epochs_completed, taken) == ("enough", 2, [])
    assert_same_bits(report.params, held.params)
    assert_close(report.params, fit(replace(ended(), policy=None)).params, rtol=1e-3, atol=1e-5)


def main():
    """Write the files, unless they are there."""
    snapshot.environment = lambda: VERSIONS
    os.chdir(tempfile.mkdtemp())
    for target, options, made, name in (
        (cut(), CUT, "s-3.safetensors", f"cut-{NUMBER}.safetensors"),
        (ended(), {}, "ep-1.npz", f"ended-{NUMBER}.npz"),
    ):
        if (FOLDER / name).exists():
            raise FileExistsError(f"{name} is there, and golden files are never written again")
        fit(target, **options)
        FOLDER.mkdir(exist_ok=True)
        shutil.copy(Path("run") / made, FOLDER / name)


if __name__ == "__main__":
    main()
