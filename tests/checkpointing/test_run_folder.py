"""The folder of a run, `fit(out=…)`: its files, a run that continues there, and a second run that is refused."""

import os
import signal
import subprocess
import sys
from functools import partial

import mlx.core as mx
import pytest
from helpers import child_env
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.store._steps_file import read_steps

PROGRAM = """
import os, signal, sys, time
import mlx.core as mx, mlx_fp as fp
from mlx_fp import data, nn
x = mx.random.normal((64, 4), key=mx.random.key(0))
train = data.batch(8)(data.arrays(x, x.sum(axis=1)))

def die(event):
    if event.step + 1 == 13:
        time.sleep(0.6)
    if event.step + 1 == 14:
        os.kill(os.getpid(), signal.SIGKILL)

target = fp.on("after_step", die)(fp.trainer(nn.linear(4, 1), fp.regression()))
fp.fit(train, epochs=3, log_every=1, out=sys.argv[1], quiet=True)(target)
"""


def batches():
    x = mx.random.normal((64, 4), key=mx.random.key(0))
    return data.batch(8)(data.arrays(x, x.sum(axis=1)))


def target(*verbs):
    return pipe(fp.trainer(nn.linear(4, 1), fp.regression()), *verbs)


def run(folder, *verbs, **options):
    options = {"epochs": 2, "log_every": 1, "quiet": True, "out": folder} | options
    return fp.fit(batches(), **options)(target(*verbs))


def steps(folder):
    return [row["step"] for row in read_steps(folder / "steps.jsonl")]


def names(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_run_folder_has_all_files(tmp_path):
    report = run(tmp_path / "a")
    assert {"bundle.json", "steps.jsonl", "step-8.safetensors", "step-16.safetensors"} <= names(tmp_path / "a")
    assert read_steps(tmp_path / "a" / "steps.jsonl") == [row.to_dict() for row in report.steps]
    assert fp.read_bundle(tmp_path / "a" / "bundle.json")["report"]["best_value"] == report.best_value


def test_the_page_has_the_steps_of_all_starts(tmp_path):
    run(tmp_path / "a", epochs=1)
    run(tmp_path / "a", epochs=2, resume="latest")
    page = (tmp_path / "a" / "report.html").read_text()
    assert "(step 1, epoch 0)" in page
    assert "(step 16, epoch 1)" in page


def test_a_page_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    def fail(bundles):
        raise RuntimeError("no page")

    monkeypatch.setattr("mlx_fp.page._page.page", fail)
    report = run(tmp_path / "a")
    assert len(report.rows) == 2
    assert "no page" in caplog.text
    assert names(tmp_path / "a") >= {"bundle.json", "steps.jsonl"}


def test_the_bundle_of_an_experiment_has_its_settings(tmp_path):
    plain = fp.experiment(
        "sums", model=nn.linear(4, 1), task=fp.regression(), data=batches(), optimizer=partial(optim.sgd, 0.1)
    )
    fp.run(out=tmp_path / "a", quiet=True)(fp.override({"optimizer.learning_rate": 0.2})(plain))
    assert fp.read_bundle(tmp_path / "a" / "bundle.json")["settings"]["optimizer.learning_rate"] == 0.2


def test_checkpoints_of_the_trainer_move_into_the_folder(tmp_path):
    report = run(tmp_path / "a", fp.checkpoints("elsewhere/{monitor_name}/ep-{epoch}"))
    assert report.checkpoints == tuple(str(tmp_path / "a" / "loss" / f"ep-{i}.safetensors") for i in range(2))
    assert (tmp_path / "a" / "bundle.json").exists()
    assert not os.path.exists("elsewhere")


def test_a_folder_with_braces_in_its_name(tmp_path):
    report = run(tmp_path / "{epoch}")
    assert all("{epoch}" in path for path in report.checkpoints)


def test_a_path_function_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give a template"):
        run(tmp_path / "a", fp.checkpoints(lambda epoch: tmp_path / f"{epoch}"))


@pytest.mark.parametrize("value", ["", 3, b"runs"])
def test_out_is_the_path_of_a_folder(value):
    with pytest.raises((TypeError, ValueError), match="the path of a folder, or None"):
        fp.fit(batches(), out=value)


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path / "a")
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(FileExistsError, match='resume="latest" continues that run'):
        run(tmp_path / "a")
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_a_resumed_run_has_the_bits_and_the_rows_of_one_run(tmp_path):
    whole = run(tmp_path / "whole", epochs=3)
    run(tmp_path / "cut", fp.on("after_step", lambda event: fp.Stop("enough") if event.step == 10 else None), epochs=3)
    assert steps(tmp_path / "cut") == list(range(1, 12))
    resumed = run(tmp_path / "cut", epochs=3, resume="latest")
    assert steps(tmp_path / "cut") == list(range(1, 25))
    assert mx.array_equal(resumed.params["weight"], whole.params["weight"])
    timing = ("rows_per_second", "peak_memory")
    rows = [
        [{k: v for k, v in row.items() if k not in timing} for row in read_steps(tmp_path / name / "steps.jsonl")]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]


def test_latest_of_an_empty_folder_begins_a_run(tmp_path):
    run(tmp_path / "a", resume="latest")
    assert steps(tmp_path / "a") == list(range(1, 17))


def test_a_checkpoint_of_another_folder_does_not_continue_a_run_here(tmp_path):
    report = run(tmp_path / "a")
    run(tmp_path / "b", epochs=1)
    with pytest.raises(FileExistsError, match="has a run already"):
        run(tmp_path / "b", epochs=3, resume=report.checkpoints[-1])
    run(tmp_path / "c", epochs=3, resume=report.checkpoints[-1])
    assert steps(tmp_path / "c") == list(range(17, 25))


def test_a_killed_run_leaves_whole_lines_and_continues(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / "a"], env=child_env(), timeout=120)
    assert done.returncode == -signal.SIGKILL
    logged = steps(tmp_path / "a")
    assert logged == list(range(1, len(logged) + 1))
    assert len(logged) >= 8  # those before the checkpoint of epoch 0
    run(tmp_path / "a", epochs=3, resume="latest")
    assert steps(tmp_path / "a") == list(range(1, 25))


def test_a_run_that_fails_has_its_steps_and_its_bundle(tmp_path):
    def fail(event):
        if event.step == 9:
            raise RuntimeError("hook")

    with pytest.raises(RuntimeError, match="hook"):
        run(tmp_path / "a", fp.on("after_step", fail))
    assert steps(tmp_path / "a")[:8] == list(range(1, 9))
    assert "hook" in fp.read_bundle(tmp_path / "a" / "bundle.json")["report"]["stop_reason"]


def test_each_trial_of_a_sweep_has_its_folder(tmp_path):
    plain = fp.experiment(
        "sums", model=nn.linear(4, 1), task=fp.regression(), data=batches(), optimizer=partial(optim.sgd, 0.1)
    )
    grid = {"optimizer.learning_rate": [0.01, 0.1]}
    fp.sweep(grid, out=tmp_path, log_every=1, quiet=True)(plain)
    assert names(tmp_path) == {"trial-1", "trial-2"}
    assert all(steps(tmp_path / f"trial-{i}") == list(range(1, 9)) for i in (1, 2))
    again = fp.sweep(grid, out=tmp_path, log_every=1, quiet=True, resume="latest")(plain)
    assert [trial.report.epochs_ran for trial in again.trials] == [0, 0]
