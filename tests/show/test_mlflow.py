"""The tracker that logs in MLflow, against the real package: its SQLite file is read back."""

import sqlite3

import pytest
from tracked_runs import fit, tracked

import mlx_fp as fp


@pytest.fixture(autouse=True)
def no_failure(caplog):
    """Fail where a tracker has failed, which is only a warning in a run."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "mlx_fp.show"]


def read(path, query):
    with sqlite3.connect(path) as file:
        return file.execute(query).fetchall()


def test_mlflow_has_settings_figures_files_and_the_end_and_resumes_its_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # the artifacts of a SQLite file go to ./mlruns
    path = tmp_path / "mlflow.db"
    options = {"uri": f"sqlite:///{path}", "experiment": "tests", "settings": {"mine (1)": 7}}
    target = tracked("mlflow", fp.checkpoints(tmp_path / "{epoch}"), artifacts="checkpoints", **options)
    report = fit(target)
    losses = "SELECT step, value FROM metrics WHERE key = 'loss' ORDER BY step"
    assert read(path, losses) == [(row.step, pytest.approx(row.loss)) for row in report.steps]
    assert dict(read(path, "SELECT key, value FROM params")).items() >= {"epochs": "2", "mine _1_": "7"}.items()
    assert read(path, "SELECT status FROM runs") == [("FINISHED",)]
    assert {file.name for file in tmp_path.glob("mlruns/**/*.safetensors")} == {"0.safetensors", "1.safetensors"}

    def fail(event):
        raise ValueError("no more") if event.epoch == 2 else None

    with pytest.raises(ValueError, match="no more"):
        fit(fp.on("after_epoch", fail)(target), epochs=4, resume="latest")
    assert read(path, "SELECT status FROM runs") == [("FAILED",)]
    steps = read(path, "SELECT step FROM metrics WHERE key = 'epoch_loss' ORDER BY step")
    assert steps == [(4,), (8,), (12,)]
    tags = dict(read(path, "SELECT key, value FROM tags"))
    assert (tags["stop_reason"], tags["resumed_from_step"]) == ("ValueError: no more", "8")
    assert mlflow.active_run() is None
