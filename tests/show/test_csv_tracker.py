"""The tracker that writes a CSV file."""

import csv
import json

import pytest
from tracked_runs import fit, tracked

import mlx_fp as fp
from mlx_fp.show._csv_tracker import CsvTracker
from mlx_fp.show._tracker import TrackedRun


@pytest.fixture(autouse=True)
def no_failure(caplog):
    """Fail where a tracker has failed, which is only a warning in a run."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "mlx_fp.show"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_call_is_a_row_and_each_figure_a_column(tmp_path):
    report = fit(tracked("csv", path=tmp_path / "new" / "a.csv", settings={"name": 'Łódź, "a"'}))
    found = rows(tmp_path / "new" / "a.csv")
    assert [row["step"] for row in found] == ["3", "4", "4", "6", "8", "8"]
    assert [float(row["loss"]) for row in found if row["loss"]] == [row.loss for row in report.steps]
    assert [float(row["val_loss"]) for row in found if row["val_loss"]] == [
        each.val_loss for each in report.evaluations
    ]
    assert [float(row["epoch_accuracy"]) for row in found if row["epoch_accuracy"]] == [r.accuracy for r in report.rows]
    about = json.loads((tmp_path / "new" / "a.json").read_text())
    assert about["settings"]["epochs"] == 2
    assert about["settings"]["name"] == 'Łódź, "a"'
    assert (about["stop_reason"], about["failed"]) == (None, False)


def test_files_go_to_the_folder_of_the_checkpoints(tmp_path):
    target = tracked("csv", fp.checkpoints(tmp_path / "{epoch}", bundle=True), artifacts=["checkpoints", "bundle"])
    report = fit(target)
    files = json.loads((tmp_path / "figures.json").read_text())["artifacts"]
    assert files == [*report.checkpoints, str(tmp_path / "bundle.json")]
    assert len(rows(tmp_path / "figures.csv")) == 6


def test_without_checkpoints_the_folder_has_the_name_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(tracked("csv"))
    (path,) = tmp_path.glob("runs/*/figures.csv")
    assert json.loads(path.with_suffix(".json").read_text())["run"] == path.parent.name


def test_a_resumed_run_goes_on_in_its_file_without_the_rows_after_the_checkpoint(tmp_path):
    target = tracked("csv", fp.checkpoints(tmp_path / "{epoch}"))
    whole = fit(target, log_every=1)
    before = (tmp_path / "figures.csv").read_text().splitlines()
    fit(target, log_every=1, resume=tmp_path / "0.safetensors")
    after = (tmp_path / "figures.csv").read_text().splitlines()
    assert after[:7] == before[:7]
    assert [row["step"] for row in rows(tmp_path / "figures.csv")] == [
        "1",
        "2",
        "3",
        "4",
        "4",
        "4",
        "5",
        "6",
        "7",
        "8",
        "8",
        "8",
    ]
    assert float(rows(tmp_path / "figures.csv")[-1]["epoch_loss"]) == pytest.approx(whole.rows[-1].loss)


def test_a_line_that_a_killed_process_left_is_dropped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n1,0.5\n2,0.25\n3,0.")
    tracker = CsvTracker()
    assert tracker.start(TrackedRun(id=str(path), step=2)) == str(path)
    tracker.log(3, {"loss": float("nan"), "new,figure": 1})
    assert path.read_text() == 'step,loss,"new,figure"\n1,0.5,\n2,0.25,\n3,nan,1\n'
    tracker.finish(ValueError("bad"))
    about = json.loads((tmp_path / "a.json").read_text())
    assert (about["stop_reason"], about["failed"]) == ("ValueError: bad", True)


def test_each_row_is_on_disk_at_once(tmp_path):
    tracker = CsvTracker(path=tmp_path / "a.csv")
    tracker.start(TrackedRun())
    for step in range(3):
        tracker.log(step, {"loss": step / 2})
        assert rows(tmp_path / "a.csv")[-1] == {"step": str(step), "loss": str(step / 2)}
    tracker.finish(None)
