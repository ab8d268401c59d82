"""`mlx-fp run`: the folder of a run, resuming, signals, and several processes with one exit status."""

from __future__ import annotations

import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import pytest
from commands import called, refused, started, write_experiment
from helpers import visible

import mlx_fp as fp
from mlx_fp.across._world import World
from mlx_fp.command._main import main
from mlx_fp.command._places import run_folder
from mlx_fp.store._folder_lock import Lock

ON_STEP = """
import os, signal

from dataclasses import replace


def at_step(event):
    if event.step == 3:
        {action}


sums = replace(sums, verbs=(*sums.verbs, fp.on("after_step", at_step)))
"""


def write_acting(folder, action, name="acts.py"):
    """Write an experiment that does something after step 3."""
    write_experiment(folder, name, more=ON_STEP.format(action=action))


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    yield
    signal.signal(signal.SIGINT, before)


def folders(tmp_path):
    return sorted((tmp_path / "runs" / "sums").iterdir())


def logged(folder):
    return [json.loads(line)["step"] for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_a_run_has_a_folder_of_its_own_below_runs(tmp_path):
    ended, again = called("run", "train.py", "model.width=8"), called("run", "train.py", "-q")
    (folder, other) = folders(tmp_path)
    assert (ended.status, ended.lines[0]) == (0, f"folder runs/sums/{folder.name}")
    assert any("epoch 1 of 2" in line for line in ended.lines)
    assert (again.status, again.lines) == (0, [])
    assert visible(folder) == ["bundle.json", "report.html", "step-4.safetensors", "step-8.safetensors", "steps.jsonl"]
    assert logged(folder) == [2, 4, 6, 8]
    bundle = fp.read_bundle(folder / "bundle.json")
    assert bundle["settings"]["model.width"] == 8
    assert bundle["settings"]["optimizer.learning_rate"] == 0.1
    assert fp.read_bundle(other / "bundle.json")["settings"]["model.width"] == 4


def test_a_run_of_the_command_line_has_the_bits_of_a_run_in_python(tmp_path):
    from mlx_fp.command._loading import loaded_experiment

    called("run", "train.py", "-q", "--out", "here", "optimizer.learning_rate=0.3")
    with loaded_experiment("train.py") as sums:
        report = fp.run(quiet=True)(fp.override({"optimizer.learning_rate": 0.3})(sums))
    saved = fp.flat(fp.load("here/step-8").params)
    assert all(mx.array_equal(leaf, saved[path]) for path, leaf in fp.flat(report.params).items())


def test_epochs_take_the_place_of_the_steps_of_an_experiment(tmp_path):
    write_experiment(tmp_path, "long.py", more="sums = fp.override({'steps': 50})(sums)\n")
    called("run", "long.py", "-q", "--out", "here", "epochs=1")
    assert fp.read_bundle("here/bundle.json")["report"]["rows"][-1]["steps"] == 4
    called("run", "long.py", "-q", "--out", "there", "steps=6")
    assert fp.read_bundle("there/bundle.json")["report"]["rows"][-1]["steps"] == 6


def test_the_data_of_a_run_are_made_once(tmp_path):
    write_experiment(tmp_path, "once.py", more="from dataclasses import replace\n" + COUNTED)
    ended = called("run", "once.py", "-q", "data.batch_size=32")
    assert (ended.status, ended.lines) == (0, ["made with 32"])
    assert called("run", "once.py", "-q").lines == ["made with 16"]


COUNTED = """

def counted(batch_size: int = 16):
    print("made with", batch_size)
    return batches(batch_size)

sums = replace(sums, data=counted)
"""


def test_resume_goes_on_in_the_newest_folder(tmp_path):
    called("run", "train.py", "-q")
    assert called("run", "train.py", "-q", "epochs=4", "--resume", "latest").status == 0
    (folder,) = folders(tmp_path)
    assert logged(folder) == [2, 4, 6, 8, 10, 12, 14, 16]
    report = fp.read_bundle(folder / "bundle.json")["report"]
    assert (report["start_epoch"], len(report["rows"])) == (2, 4)


def test_a_resumed_run_has_the_bits_of_one_that_was_never_cut(tmp_path):
    called("run", "train.py", "-q", "--out", "cut", "epochs=1")
    called("run", "train.py", "-q", "--out", "cut", "epochs=3", "--resume", "latest")
    called("run", "train.py", "-q", "--out", "whole", "epochs=3")
    cut, whole = (fp.flat(fp.load(f"{name}/step-12").params) for name in ("cut", "whole"))
    assert all(mx.array_equal(leaf, cut[path]) for path, leaf in whole.items())


def test_resume_without_a_run_begins_one_and_says_so(tmp_path):
    ended = called("run", "train.py", "-q", "--resume", "latest")
    assert ended.status == 0
    assert ended.errors[0] == "mlx-fp: runs/sums has no run to resume from: a new run begins"
    assert len(folders(tmp_path)) == 1


def test_resume_takes_a_file_too(tmp_path):
    called("run", "train.py", "-q", "--out", "first")
    ended = called("run", "train.py", "-q", "--out", "second", "epochs=3", "--resume", "first/step-8.safetensors")
    assert ended.status == 0
    assert fp.read_bundle("second/bundle.json")["report"]["start_epoch"] == 2


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("latset", "there is no checkpoint 'latset': did you mean 'latest'?"),
        ("first/step-9.safetensors", "there is no checkpoint 'first/step-9.safetensors': did you mean 'first/step-8"),
        ("first", "'first' is a folder: resume it with --out first --resume latest"),
        ("first/steps.jsonl", "first/steps.jsonl is no run bundle: "),
    ],
)
def test_a_wrong_source_is_one_line(source, text):
    called("run", "train.py", "-q", "--out", "first")
    assert refused("run", "train.py", "-q", "--resume", source).startswith(text)


def test_a_checkpoint_of_another_model_is_one_line():
    called("run", "train.py", "-q", "--out", "first")
    words = ("run", "train.py", "-q", "--out", "first", "--resume", "latest", "model.width=8", "epochs=3")
    assert refused(*words).startswith(
        "--resume latest: first/step-8.safetensors holds other parameters than this run: "
    )


def test_a_folder_with_a_run_is_refused(tmp_path):
    called("run", "train.py", "-q", "--out", "here")
    before = (tmp_path / "here" / "bundle.json").read_bytes()
    assert refused("run", "train.py", "-q", "--out", "here", "seed=3").startswith(
        "the folder 'here' has a run already: --resume latest --out here continues it"
    )
    assert (tmp_path / "here" / "bundle.json").read_bytes() == before


def test_a_folder_that_another_run_writes_is_one_line(tmp_path):
    lock = Lock(tmp_path / "here")
    lock.take()
    text = refused("run", "train.py", "-q", "--out", "here", "--resume", "latest")
    lock.give_back()
    assert "another run writes here" in text
    assert "'here'" in text


def test_two_runs_of_one_second_have_folders_of_their_own():
    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(lambda _: run_folder("sums", None, None, World()), range(16)))
    assert len(set(folders)) == 16


@pytest.mark.parametrize("out", ["train.py", "train.py/deep/one"])
def test_a_file_in_the_place_of_the_folder_is_one_line(out):
    assert refused("run", "train.py", "--out", out) == f"a run writes into a folder '{out}', and 'train.py' is a file"


def test_an_error_in_training_keeps_its_traceback_and_the_bundle_has_the_settings(tmp_path):
    write_acting(tmp_path, "raise RuntimeError('no more')")
    with pytest.raises(RuntimeError, match="no more"):
        called("run", "acts.py", "-q", "seed=5", "--out", "here")
    bundle = fp.read_bundle("here/bundle.json")
    assert bundle["report"]["stop_reason"].startswith("RuntimeError: no more")
    assert bundle["settings"]["seed"] == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_ends_has_its_number_as_the_status(tmp_path, number):
    write_acting(tmp_path, f"signal.raise_signal({int(number)})")
    ended = called("run", "acts.py", "-q", "--out", "here")
    assert (ended.status, ended.lines) == (128 + number, [])
    assert fp.read_bundle("here/bundle.json")["report"]["stop_reason"] == number.name
    assert fp.load("here/step-4").metadata["step"] == 4


def test_ctrl_c_before_the_run_is_no_traceback(tmp_path):
    write_experiment(tmp_path, "waits.py", more="raise KeyboardInterrupt\n")
    assert called("run", "waits.py") == (130, [], [])


def test_a_signal_ends_a_process_of_its_own_after_the_step(tmp_path):
    rows = tmp_path / "here" / "steps.jsonl"
    with started(tmp_path, "run", "train.py", "-q", "steps=1_000_000", "--out", "here") as process:
        while process.poll() is None and not (rows.exists() and rows.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    assert fp.read_bundle(tmp_path / "here" / "bundle.json")["report"]["stop_reason"] == "SIGTERM"


def test_an_output_that_nobody_reads_ends_the_command_quietly(tmp_path):
    with started(tmp_path, "settings", "train.py") as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(60), errors) == (141, "")


def test_several_processes_train_as_one_and_print_once(tmp_path):
    status, out, _ = _ended(tmp_path, "run", "train.py", "--ranks", 2, "--out", "two")
    lines = out.splitlines()
    assert (status, lines[0], lines.count("folder two")) == (0, "folder two", 1)
    assert sum("epoch 1 of 2" in line for line in lines) == 1
    called("run", "train.py", "-q", "--out", "one")
    two, one = (fp.read_bundle(f"{name}/bundle.json") for name in ("two", "one"))
    assert two["report"]["rows"][-1]["loss"] == pytest.approx(one["report"]["rows"][-1]["loss"], rel=1e-5)
    assert two["settings"] == one["settings"]


@pytest.mark.slow
def test_an_error_in_one_process_is_the_status_of_all(tmp_path):
    write_acting(tmp_path, "assert os.environ['MLX_RANK'] == '0', 'a bad row'")
    status, _, errors = _ended(tmp_path, "run", "acts.py", "--ranks", 2, "-q", "epochs=50")
    assert status == 1
    assert "process 0 ends: process 1 has failed: AssertionError: a bad row" in errors
    assert errors.count("Traceback") == 1


@pytest.mark.slow
def test_several_processes_refuse_a_folder_with_a_run_as_one_does(tmp_path):
    called("run", "train.py", "-q", "--out", "here")
    status, _, errors = _ended(tmp_path, "run", "train.py", "--ranks", 2, "-q", "--out", "here")
    assert (status, errors.count("Traceback")) == (2, 0)
    assert "mlx-fp: the folder 'here' has a run already: " in errors


def test_a_wrong_word_is_printed_by_the_first_process_alone(monkeypatch):
    monkeypatch.setenv("MLX_RANK", "1")
    assert called("run", "train.py", "epohcs=3") == (2, [], [])


def _ended(folder, *words):
    """Return the status, the output and the errors of a command in a process of its own."""
    with started(folder, *words) as process:
        out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


def test_main_reads_the_words_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mlx-fp", "settings", "train.py"])
    assert main() == 0
    assert "optimizer.learning_rate" in capsys.readouterr().out
