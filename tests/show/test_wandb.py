"""The trackers with the interface of wandb, against the real packages: their files are read back."""

import json

import pytest
from tracked_runs import fit, log_records, tracked

import mlx_fp as fp
from mlx_fp import show


@pytest.fixture(autouse=True)
def no_failure(caplog):
    """Fail where a tracker has failed, which is only a warning in a run."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "mlx_fp.show"]


def records(folder):
    """Read the records of all offline runs in a folder."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # waits for the process that writes the files
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return [Record.FromString(content) for path in paths for content in log_records(path)]


def history(found):
    rows = [record.history for record in found if record.HasField("history")]
    return [{".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]


def test_wandb_gets_settings_figures_files_and_the_end(tmp_path):
    pytest.importorskip("wandb")
    stop = fp.on("after_epoch", lambda event: fp.Stop("enough"))
    verbs = (fp.checkpoints(tmp_path / "{epoch}"), stop)
    report = fit(tracked("wandb", *verbs, settings={"mine": 7}, artifacts="checkpoints", dir=tmp_path, mode="offline"))
    found = records(tmp_path)
    rows = history(found)
    assert [row["step"] for row in rows] == [3, 4, 4]
    assert rows[0]["loss"] == pytest.approx(report.steps[0].loss)
    assert rows[1]["val_loss"] == pytest.approx(report.evaluations[0].val_loss)
    config = {item.key: item.value_json for record in found for item in record.run.config.update}
    assert (config["epochs"], config["mine"]) == ("2", "7")
    assert [record.artifact.type for record in found if record.HasField("artifact")] == ["model"]
    summary = {item.key: item.value_json for record in found for item in record.summary.update}
    assert summary["stop_reason"] == '"enough"'
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


def test_wandb_resumes_its_run_and_marks_one_that_failed(tmp_path):
    wandb = pytest.importorskip("wandb")

    def fail(event):
        if event.epoch == 2:
            raise ValueError("no more")

    target = tracked("wandb", fp.checkpoints(tmp_path / "{epoch}"), dir=tmp_path, mode="offline")
    fit(target)
    with pytest.raises(ValueError, match="no more"):
        fit(fp.on("before_epoch", fail)(target), epochs=4, resume="latest")
    found = records(tmp_path)
    assert len({record.run.run_id for record in found if record.HasField("run")}) == 1
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0, 1]
    assert wandb.run is None


def test_an_option_of_wandb_has_candidates():
    pytest.importorskip("wandb")
    with pytest.raises(TypeError, match="unknown option of track\\('wandb'\\) 'projct': did you mean 'project'"):
        show.track("wandb", projct="mine")
    with pytest.raises(TypeError, match="unknown option of track\\('wandb'\\) 'config'"):
        show.track("wandb", config={})


def test_trackio_gets_settings_figures_and_files_and_resumes_its_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trackio")
    import trackio.sqlite_storage as storage

    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    verb = fp.checkpoints(tmp_path / "{epoch}")
    target = tracked("trackio", verb, project="tests", settings={"mine": 7}, artifacts="checkpoints")
    report = fit(target)
    fit(target, epochs=3, resume="latest")
    (name,) = storage.SQLiteStorage.get_runs("tests")
    rows = storage.SQLiteStorage.get_logs("tests", name)
    assert [row["step"] for row in rows] == [3, 4, 4, 6, 8, 8, 9, 12, 12, 12]
    assert rows[0]["loss"] == pytest.approx(report.steps[0].loss)
    assert storage.SQLiteStorage.get_run_config("tests", name)["mine"] == 7
