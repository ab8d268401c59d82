"""What is deleted is decided by files that are whole."""

from __future__ import annotations

import os
from pathlib import Path

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.checkpointing import _listing as listing
from mlx_fp.checkpointing._listing import Listing
from mlx_fp.checkpointing._policy import Policy
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store._checkpoint import check_and_peek, peek

VALUES = [3.0, 1.0, 2.0, 4.0, 5.0, 6.0]
"""The monitor of each file; file 1 is the best."""


def told(step):
    """The metadata that a file is known by."""
    fields = ["epoch", "next_epoch", "step", "epoch_loss", "monitor_name", "monitor_mode", "monitor_value", "improved"]
    values = [step, step + 1, step, 7.0, "m", "min", VALUES[step], step in (0, 1)]
    return dict(zip(fields, values, strict=True)) | {"cursor": {"epoch": step, "index": 0}, "run": "1", "branch": {}}


def folder(tmp_path, suffix, count=6):
    """A folder of files that another process has written, and its policy."""
    for step in range(count):
        fp.save(tmp_path / f"{step}{suffix}", metadata=told(step))({"w": mx.array(step)})
    return Policy(str(tmp_path / f"{{epoch}}{suffix}"), keep_last=2)


def deleted(policy, spared=()):
    """The numbers of the files that a new process would delete."""
    return {int(Path(name).stem) for name in Listing(policy).delete_superfluous(told(len(VALUES) - 1), spared)}


@pytest.fixture
def kept_on_disk(monkeypatch):
    """Nothing is deleted, so that one folder serves many tries."""
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)


def spans(content, suffix):
    """The bytes of a file that say how it is known: all of the header, or the manifest and what is around it."""
    if suffix == ".safetensors":
        return range(8 + int.from_bytes(content[:8], "little"))
    return range(content.index(b'"monitor_name"') - 100, content.index(b'"left_out"') + 20)


def is_whole(path):
    """Whether a flip has hit a byte that means nothing, as some of a zip file do."""
    try:
        return fp.load(path) is not None
    except CheckpointError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_whatever_bit_of_a_header_is_flipped_the_true_best_and_the_newest_stay(tmp_path, kept_on_disk, suffix, step):
    policy = folder(tmp_path, suffix)
    assert deleted(policy) == {0, 2, 3}
    path = tmp_path / f"{step}{suffix}"
    content = path.read_bytes()
    without = {0: {2, 3}, 1: {2, 3}, 4: {0, 2}}[
        step
    ]  # where it is 1, the best of the others is 0, the last that improved
    for place in spans(content, suffix):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << (place % 8))]) + content[place + 1 :])
        assert deleted(policy) == ({0, 2, 3} if is_whole(path) else without), f"byte {place}"


@pytest.mark.parametrize("value", [b'"value": 0.5', b'"value": 9.0'])
def test_a_damaged_value_deletes_no_other_file_and_not_its_own(tmp_path, kept_on_disk, value, caplog):
    policy = folder(tmp_path, ".safetensors")
    for step, mine in ((0, b"3.0"), (1, b"1.0"), (3, b"4.0")):
        path = tmp_path / f"{step}.safetensors"
        content = path.read_bytes()
        old = b'\\"value\\": ' + mine
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, value.replace(b'"', b'\\"')))
        assert peek(path)["monitor_value"] in (0.5, 9.0), "the header is one of a run"
        gone = deleted(policy)
        assert step not in gone
        assert gone == {0: {2, 3}, 1: {2, 3}, 3: {0, 2}}[step]
        assert f"{step}.safetensors is no checkpoint that can be read: it is damaged" in caplog.text
        path.write_bytes(content)


def test_a_file_is_checked_once_and_only_where_something_is_to_go(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(listing, "check_and_peek", lambda path: read.append(path.stem) or check_and_peek(path))
    policy = folder(tmp_path, ".safetensors", count=3)
    one = Listing(policy)
    assert one.delete_superfluous(told(2), ()) == (str(tmp_path / "0.safetensors"),)
    assert sorted(read) == ["0", "1", "2"]
    for step in (3, 4):
        path = fp.save(tmp_path / str(step), metadata=told(step))({"w": mx.array(step)})
        one.add(path, told(step))
        one.delete_superfluous(told(step), (path,))
    assert sorted(read) == ["0", "1", "2"]
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["1", "3", "4"]
    monkeypatch.undo()
    monkeypatch.setattr(listing, "check_and_peek", lambda path: pytest.fail("nothing was to go"))
    assert deleted(Policy(policy.path, keep_last=9)) == deleted(Policy(policy.path)) == set()


def test_a_file_that_cannot_be_read_counts_for_nothing_and_stays(tmp_path, monkeypatch, caplog):
    def broken(path):
        if path.stem == "1":
            raise OSError(5, "Input/output error", str(path))
        return check_and_peek(path)

    policy = folder(tmp_path, ".safetensors")
    monkeypatch.setattr(listing, "check_and_peek", broken)
    assert deleted(policy) == {2, 3}
    assert "Input/output error" in caplog.text


def test_files_whose_monitor_was_no_number_go_as_others_do(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.VALUES", [float("nan"), *VALUES[1:]])
    assert deleted(folder(tmp_path, ".safetensors")) == {0, 2, 3}


def test_files_that_change_all_the_time_are_left_alone(tmp_path, monkeypatch):
    policy, marks = folder(tmp_path, ".safetensors"), iter(range(10**6))
    monkeypatch.setattr(listing, "mark_of", lambda path: (path, next(marks), 0, 0))
    assert deleted(policy) == set()


def test_a_run_deletes_nothing_for_a_damaged_file_of_another_process(tmp_path):
    target = pipe(
        fp.trainer(nn.linear(3, 2), fp.classification()),
        fp.monitor("given", metric=lambda row: VALUES[row.epoch]),
        fp.checkpoints(tmp_path / "{epoch}", keep_last=2),
    )
    batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))]
    fp.fit(batches, epochs=3, quiet=True)(target)
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["1", "2"]
    other = tmp_path / "0.safetensors"
    content = (tmp_path / "2.safetensors").read_bytes()
    for before, after in ((b"2.0", b"0.1"), (b'\\"step\\", {\\"value\\": 3', b'\\"step\\", {\\"value\\": 1')):
        assert before in content
        content = content.replace(before, after)
    content = content.replace(b'\\"epoch\\", {\\"value\\": 2', b'\\"epoch\\", {\\"value\\": 0')
    other.write_bytes(content)
    assert peek(other)["monitor_value"] == 0.1, "the best, if it were whole"
    fp.fit(batches, epochs=6, quiet=True, resume="latest")(target)
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["0", "1", "2", "4", "5"]
    assert os.path.getsize(other)
