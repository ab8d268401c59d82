"""The page of a run: written by a run and a sweep, and by `mlx-fp report` of a folder, a bundle, or several runs."""

from __future__ import annotations

import re

import pytest
from commands import called, refused, train, write_experiment


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


def curves(page):
    """Return the pictures of a page."""
    found = re.findall("<svg.*?</svg>", page.read_text(encoding="utf-8"), re.S)
    assert found
    return found


def test_a_run_writes_its_page_with_its_settings(tmp_path):
    train("here", "model.width=7")
    page = (tmp_path / "here" / "report.html").read_text(encoding="utf-8")
    assert "model.width" in page
    assert "val_loss" in page


def test_a_run_that_an_error_ends_has_a_page_too(tmp_path):
    more = "from dataclasses import replace\ndef fail(event):\n    assert event.step < 3, 'no more'\n"
    write_experiment(tmp_path, "fails.py", more=more + "sums = replace(sums, verbs=(fp.on('after_step', fail),))\n")
    with pytest.raises(AssertionError, match="no more"):
        called("run", "fails.py", "-q", "--out", "here")
    assert "no more" in (tmp_path / "here" / "report.html").read_text(encoding="utf-8")


def test_a_page_of_a_sweep_that_cannot_be_written_does_not_fail_the_sweep(tmp_path):
    (tmp_path / "grid" / "report.html").mkdir(parents=True)
    ended = called("sweep", "train.py", "model.width=2", "epochs=1", "-q", "--out", "grid")
    assert ended.status == 0
    assert ended.errors[-1].startswith("mlx-fp: the page of grid is not written: IsADirectoryError: ")


def test_the_page_of_a_run_is_written_again(tmp_path):
    train("here")
    before = curves(tmp_path / "here" / "report.html")
    (tmp_path / "here" / "report.html").unlink()
    assert called("report", "here")[:2] == (0, ["here/report.html"])
    assert curves(tmp_path / "here" / "report.html") == before
    assert called("report", "here/bundle.json", "-o", "deep/page").lines == ["deep/page.html"]


def test_the_page_of_a_resumed_run_has_the_steps_of_all_starts(tmp_path):
    train("here", "epochs=1")
    train("here", "epochs=2", "--resume", "latest")
    before = curves(tmp_path / "here" / "report.html")
    assert called("report", "here").status == 0
    assert curves(tmp_path / "here" / "report.html") == before


def test_the_runs_below_a_folder_have_one_page(tmp_path):
    train("runs/first")
    train("runs/second", "seed=3")
    assert called("report", "runs").lines == ["runs/report.html"]
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert "first" in page
    assert "second" in page


def test_a_sweep_writes_the_page_of_its_trials(tmp_path):
    called("sweep", "train.py", "model.width=2,4", "epochs=1", "-q", "--out", "grid")
    page = (tmp_path / "grid" / "report.html").read_text(encoding="utf-8")
    assert "trial-1" in page
    assert "trial-2" in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["heer"], "there is no run 'heer': did you mean 'here'?"),
        (["here", "-o", "empty"], "'empty' is a folder, and the name of a page is expected: 'empty/report.html'"),
        (["empty"], "'empty' is no folder of a run, which has a file bundle.json"),
        (["train.py"], "train.py is no run bundle: "),
    ],
)
def test_a_wrong_run_is_one_line(tmp_path, words, text):
    (tmp_path / "empty").mkdir()
    train("here", "epochs=1")
    assert refused("report", *words).startswith(text)
