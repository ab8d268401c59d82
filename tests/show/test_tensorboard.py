"""The tracker that writes event files of TensorBoard: they are read back."""

import multiprocessing
import struct

import pytest
from tracked_runs import fit, tracked

import mlx_fp as fp

pytest.importorskip("tensorboardX")


def has_semaphores():
    """Tell whether this system has semaphores, which tensorboardX needs. A container without /dev/shm has none."""
    try:
        return bool(multiprocessing.Lock())
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_semaphores(), reason="tensorboardX needs semaphores, and so /dev/shm")


@pytest.fixture(autouse=True)
def no_failure(caplog):
    """Fail where a tracker has failed, which is only a warning in a run."""
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "mlx_fp.show"]


def events(folder):
    """Read the events of the files in a folder, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        content, start = path.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            found.append(Event.FromString(content[start + 12 : start + 12 + length]))
            start += 16 + length
    return found


def scalars(folder):
    return [
        (event.step, value.tag, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def texts(folder):
    return {
        value.tag.removesuffix("/text_summary"): value.tensor.string_val[0].decode()
        for event in events(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
    }


def test_figures_settings_files_and_the_end_are_in_the_file(tmp_path):
    stop = fp.on("after_epoch", lambda event: fp.Stop("enough"))
    verbs = (fp.checkpoints(tmp_path / "{epoch}"), stop)
    report = fit(tracked("tensorboard", *verbs, folder=tmp_path / "tb", artifacts="checkpoints"))
    found = scalars(tmp_path / "tb")
    assert [(step, pytest.approx(value)) for step, tag, value in found if tag == "loss"] == [(3, report.steps[0].loss)]
    assert {tag for _, tag, _ in found} >= {"learning_rate", "grad_norm", "val_accuracy", "epoch_loss"}
    said = texts(tmp_path / "tb")
    assert "epochs = 2" in said["settings"]
    assert said["artifacts"] == report.checkpoints[-1]
    assert said["end"] == "enough"
    tags = [value.tag for event in events(tmp_path / "tb") for value in event.summary.value]
    assert "_hparams_/session_start_info" in tags


def test_each_run_has_a_folder_and_a_resumed_run_goes_on_in_its_own(tmp_path):
    target = tracked("tensorboard", fp.checkpoints(tmp_path / "{epoch}"))
    fit(target)
    (folder,) = (tmp_path / "tensorboard").iterdir()
    fit(target, epochs=3, resume=tmp_path / "0.safetensors")
    assert list((tmp_path / "tensorboard").iterdir()) == [folder]
    starts = [event.step for event in events(folder) if event.HasField("session_log")]
    assert starts == [5]
    assert [step for step, tag, _ in scalars(folder) if tag == "epoch_loss"] == [4, 8, 8, 12]
    fit(target)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_run_that_is_killed_after_a_checkpoint_keeps_the_figures_before_it(tmp_path):
    found = []
    look = fp.on("after_checkpoint", lambda event: found.append([step for step, *_ in scalars(tmp_path / "tb")][-1]))
    target = tracked("tensorboard", fp.checkpoints(tmp_path / "{epoch}"), folder=tmp_path / "tb")
    fit(look(target))
    assert found == [4, 8]
