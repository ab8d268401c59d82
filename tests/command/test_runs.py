"""`mlx-fp runs` and `mlx-fp compare`: tables of the bundles below a folder."""

from __future__ import annotations

import os

import pytest
from commands import called, refused, train, write_experiment

import mlx_fp as fp


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


def test_runs_are_listed_newest_first(tmp_path):
    train("runs/a", "epochs=1")
    train("runs/deep/b", "epochs=3", "early_stop.patience=1", "optimizer.learning_rate=0.0")
    os.utime("runs/a/bundle.json", (2**31, 2**31))
    ended = called("runs")
    assert ended.status == 0
    assert ended.lines[0].split()[:4] == ["run", "last", "change", "end"]
    first, second = ended.lines[1:]
    report = fp.read_bundle("runs/a/bundle.json")["report"]
    assert first.split()[0] == "a"
    assert first.split()[3:] == [
        "complete",
        "val_loss",
        f"{report['best_value']:.5g}",
        "4",
        "1",
        "4",
        first.split()[-1],
    ]
    assert second.split()[0] == "deep/b"
    assert "no improvement" in second
    assert called("runs", "runs/deep").lines[1].split()[0] == "b"


def test_a_run_without_a_bundle_yet_is_listed_with_its_last_step(tmp_path):
    train("runs/a")
    (tmp_path / "runs" / "a" / "bundle.json").unlink()
    line = called("runs").lines[1]
    assert (line.split()[0], line.split()[-1]) == ("a", "8")
    assert "none so far" in line


def test_a_resumed_run_without_its_new_bundle_is_listed_with_its_last_step(tmp_path):
    train("runs/a")
    before = (tmp_path / "runs" / "a" / "bundle.json").read_bytes()
    train("runs/a", "epochs=4", "--resume", "latest")
    assert "complete" in called("runs").lines[1]
    (tmp_path / "runs" / "a" / "bundle.json").write_bytes(before)
    os.utime("runs/a/bundle.json", (0, 0))
    line = called("runs").lines[1]
    assert ("none so far" in line, line.split()[-2]) == (True, "16")


def test_a_damaged_bundle_is_named_and_the_others_are_listed(tmp_path):
    train("runs/a")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "bundle.json").write_text("{")
    ended = called("runs")
    assert (ended.status, len(ended.lines)) == (0, 2)
    assert ended.errors == [error for error in ended.errors if "runs/b/bundle.json is no run bundle" in error]
    assert len(ended.errors) == 1


def test_a_folder_without_runs_says_so_and_a_missing_one_is_refused(tmp_path):
    (tmp_path / "others").mkdir()
    assert called("runs", "others")[:2] == (0, ["no runs in others"])
    assert refused("runs", "otters") == "there is no folder 'otters': did you mean 'others'?"
    assert refused("runs") == "there is no folder 'runs'; '.' has others"


def test_compare_shows_figures_and_the_settings_that_differ():
    train("runs/a", "model.width=2")
    train("runs/b", "model.width=4", "epochs=3")
    ended = called("compare", "runs/a", "runs/b/bundle.json")
    one, other = (fp.read_bundle(f"runs/{name}/bundle.json")["report"] for name in "ab")
    assert (ended.status, ended.lines[0].split()) == (0, ["figure", "a", "b"])
    assert ended.row("loss") == ["loss", *(f"{each['rows'][-1]['loss']:.5g}" for each in (one, other))]
    assert ended.row("best") == ["best", "val_loss", *(f"{each['best_value']:.5g}" for each in (one, other))]
    blank = ended.lines.index("")
    assert [line.split() for line in ended.lines[blank + 1 :]] == [
        ["setting", "a", "b"],
        ["epochs", "2", "3"],
        ["model.width", "2", "4"],
    ]


def test_runs_with_the_same_settings_differ_in_none():
    train("runs/1/end")
    train("runs/2/end")
    ended = called("compare", "runs/1/end", "runs/2/end")
    assert ended.lines[0].split() == ["figure", "runs/1/end", "runs/2/end"]
    assert ended.lines[-1] == "no setting differs"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["runs/first"], "compare needs two runs or more; got 'runs/first' alone"),
        (["runs/first", "runs/frist"], "there is no run 'runs/frist': did you mean 'runs/first'?"),
        (
            ["runs/first", "runs"],
            "'runs' is no folder of a run, which has a file bundle.json; the runs below it: runs/",
        ),
        (["runs/first", "train.py"], "train.py is no run bundle: "),
    ],
)
def test_a_wrong_run_is_one_line(words, text):
    train("runs/first", "epochs=1")
    assert refused("compare", *words).startswith(text)
