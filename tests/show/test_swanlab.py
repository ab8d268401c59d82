"""The tracker that logs in SwanLab, against the real package: its files are read back."""

import pytest
from tracked_runs import fit, log_records, tracked

import mlx_fp as fp


@pytest.fixture(autouse=True)
def no_failure(caplog):
    """Fail where a tracker has failed, which is only a warning in a run."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "mlx_fp.show"]


def records(folder):
    """Read the records of all runs in a folder."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    paths = sorted(folder.glob("*/*.swanlab"))
    return [Record.FromString(content) for path in paths for content in log_records(path)]


def test_swanlab_has_settings_figures_files_and_the_end_and_resumes_its_run(tmp_path):
    swanlab = pytest.importorskip("swanlab")
    options = {"mode": "offline", "log_dir": str(tmp_path / "swan"), "settings": {"mine": 7}}
    target = tracked("swanlab", fp.checkpoints(tmp_path / "{epoch}"), artifacts="checkpoints", **options)
    report = fit(target)
    found = records(tmp_path / "swan")
    losses = [(each.scalar.step, each.scalar.value.number) for each in found if each.scalar.key == "loss"]
    assert losses == [(row.step, pytest.approx(row.loss)) for row in report.steps]
    assert [each.scalar.step for each in found if each.scalar.key == "val_loss"] == [4, 8]
    (config,) = (tmp_path / "swan").glob("*/files/config.yaml")
    assert "mine" in config.read_text()
    assert len(list((tmp_path / "swan").glob("*/files/*.safetensors"))) == 2

    def fail(event):
        raise ValueError("no more") if event.epoch == 2 else None

    with pytest.raises(ValueError, match="no more"):
        fit(fp.on("after_epoch", fail)(target), epochs=4, resume="latest")
    found = records(tmp_path / "swan")
    assert len({each.start.id for each in found if each.HasField("start")}) == 1
    assert [each.finish.error for each in found if each.HasField("finish")] == ["", "ValueError: no more"]
    assert not swanlab.has_run()
