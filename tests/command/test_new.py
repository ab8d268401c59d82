"""`mlx-fp new`: a first project of one file, which runs, learns, and is formatted as the library is."""

from __future__ import annotations

import runpy
import shlex
import shutil
import subprocess

import pytest
from commands import called, refused
from helpers import ROOT

import mlx_fp as fp


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_new_project_runs_and_learns():
    ended = called("new", "deep/spirals")
    assert (ended.status, ended.lines[0]) == (0, "deep/spirals/train.py is written")
    assert called("check", "deep/spirals/train.py").status == 0
    assert called("run", "deep/spirals/train.py", "-q", "--out", "run").status == 0
    bundle = fp.read_bundle("run/bundle.json")
    assert bundle["report"]["rows"][-1]["val_accuracy"] > 0.95
    assert bundle["report"]["steps"]


def test_a_new_project_is_a_program(capsys):
    called("new", ".")
    names = runpy.run_path("train.py")
    assert names["experiment"].epochs == 15
    text = fp.settings(names["experiment"])
    assert {"model.width", "data.batch_size", "optimizer.max_norm", "early_stop.patience"} <= text.keys()


def test_the_name_of_the_folder_is_the_name_of_the_experiment(tmp_path):
    ended = called("new", 'it\'s "new"')
    assert shlex.split(ended.lines[1]) == ["mlx-fp", "check", 'it\'s "new"/train.py']
    names = runpy.run_path(str(tmp_path / 'it\'s "new"' / "train.py"))
    assert names["experiment"].name == 'it\'s "new"'


def test_the_file_is_formatted():
    if shutil.which("ruff") is None:
        pytest.skip("ruff is not installed")
    called("new", "formatted")
    for command in (("format", "--check"), ("check",)):
        done = subprocess.run(
            ["ruff", *command, "--config", ROOT / "pyproject.toml", "formatted/train.py"],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_nothing_is_overwritten(tmp_path):
    called("new", "here")
    assert refused("new", "here") == "'here/train.py' exists already: give another folder"
    assert refused("new", "here/train.py") == "'here/train.py' is a file, and a folder is expected"
