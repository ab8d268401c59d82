"""`mlx-fp sweep`: a folder with one trial for each combination of values, which a second call continues."""

from __future__ import annotations

import json
import signal

import pytest
from commands import called, write_experiment
from helpers import visible

import mlx_fp as fp


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


def test_a_sweep_trains_each_combination_and_prints_a_table(tmp_path):
    ended = called("sweep", "train.py", "model.width=2,4", "optimizer.learning_rate=0.1,0.01", "epochs=1", "-q")
    (folder,) = (tmp_path / "runs" / "sums").iterdir()
    assert (ended.status, ended.errors) == (0, [])
    assert ended.lines[-1] == f"folder runs/sums/{folder.name}"
    assert ended.lines[0].split()[:3] == ["model.width", "optimizer.learning_rate", "epochs"]
    assert [line.split()[:3] for line in ended.lines[1:5]] == [
        *(["2", "0.1", "1"], ["2", "0.01", "1"], ["4", "0.1", "1"], ["4", "0.01", "1"])
    ]
    assert sum(line.endswith("best") for line in ended.lines) == 1
    assert visible(folder) == ["report.html", "trial-1", "trial-2", "trial-3", "trial-4"]
    settings = fp.read_bundle(folder / "trial-2" / "bundle.json")["settings"]
    assert [settings[path] for path in ("model.width", "optimizer.learning_rate", "epochs")] == [2, 0.01, 1]


def test_a_sweep_in_the_same_folder_does_not_train_a_complete_trial_again(tmp_path):
    words = ("sweep", "train.py", "-q", "--out", "grid")
    called(*words, "model.width=2,4")
    before = (tmp_path / "grid" / "trial-1" / "step-8.safetensors").stat().st_mtime_ns
    assert called(*words, "model.width=2,4,8").status == 0
    assert visible(tmp_path / "grid") == ["report.html", "trial-1", "trial-2", "trial-3"]
    assert (tmp_path / "grid" / "trial-1" / "step-8.safetensors").stat().st_mtime_ns == before


def test_values_of_a_toml_file_hold_for_all_trials(tmp_path):
    (tmp_path / "over.toml").write_text("epochs = 1\n[data]\nbatch_size = 32\n")
    called("sweep", "train.py", "model.width=2,4", "-q", "-c", "over.toml", "--out", "grid")
    for number in (1, 2):
        bundle = fp.read_bundle(f"grid/trial-{number}/bundle.json")
        assert bundle["settings"]["data.batch_size"] == 32
        assert bundle["report"]["rows"][-1]["steps"] == 2


def test_trials_are_told_and_a_signal_ends_the_sweep(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    more = "import signal\nfrom dataclasses import replace\n"
    more += "stop = fp.on('after_step', lambda e: signal.raise_signal(2) if e.step == 5 else None)\n"
    more += "sums = replace(sums, verbs=(*sums.verbs, stop))\n"
    write_experiment(tmp_path, "stops.py", more=more)
    ended = called("sweep", "stops.py", "model.width=2,4", "--out", "grid")
    signal.signal(signal.SIGINT, before)
    assert ended.status == 130
    assert [line for line in ended.lines if line.startswith("trial")] == ["trial 1/2: model.width=2"]
    assert visible(tmp_path / "grid") == ["report.html", "trial-1"]


def test_a_trial_that_fails_is_in_the_table_and_the_status(tmp_path):
    more = "def network(width: int = 4):\n    layer = nn.linear(3 if width < 4 else 2, 1)\n    return layer\n"
    more += "from dataclasses import replace\nsums = replace(sums, model=network)\n"
    write_experiment(tmp_path, "fails.py", more=more)
    with pytest.warns(RuntimeWarning, match="trial 2 ended with ValueError"):
        ended = called("sweep", "fails.py", "model.width=2,4", "-q", "--out", "grid")
    assert ended.status == 1
    assert "ValueError" in ended.lines[2]
    assert json.loads((tmp_path / "grid" / "trial-2" / "settings.json").read_text())["settings"]["model.width"] == 4
