"""Files that are read are regular ones: a pipe or a device in the place of one is an error, and blocks nothing."""

import errno
import os
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import fail_read, run_call
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.core._errors import CheckpointError
from mlx_fp.core._files import TEMPORARY
from mlx_fp.store import _bundle as bundles
from mlx_fp.store._checkpoint import peek

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes and devices")


def resumed(folder, source):
    trainer = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.checkpoints(folder / "runs" / "ep-{epoch}"))
    return pipe(trainer, fp.fit([(mx.ones((4, 3)), mx.array([0, 1, 0, 1]))], resume=source, quiet=True))


def bundle_of(name, folder):
    made = {"schema": bundles.SCHEMA, "checkpoint": {"path": name, "sha256": "0" * 64}, "folder": str(folder)}
    return made | {part: {} for part in bundles.PARTS}


def odd_files(folder):
    """Read pipes and devices in every way there is, and print what comes of each."""
    folder = Path(folder)
    for name in ("pipe.safetensors", "pipe.npz", "pipe.json"):
        os.mkfifo(folder / name)
    for name in ("device.safetensors", "device.json"):
        (folder / name).symlink_to("/dev/zero")
    names = ("pipe.safetensors", "pipe.npz", "device.safetensors", "/dev/zero")
    works = [lambda name=name: resumed(folder, bundle_of(name, folder)) for name in names]
    works += [lambda name=name: fp.load(folder / name) for name in ("pipe", "pipe.npz", "device")]
    works += [lambda name=name: resumed(folder, folder / name) for name in ("pipe", "pipe.json", "device.json")]
    works += [lambda name=name: fp.read_bundle(folder / name) for name in ("pipe.json", "device.json")]
    works += [lambda: fp.save_bundle(folder / "a.json", checkpoint=folder / "pipe.npz")({"rows": []})]
    for work in works:
        try:
            print(work())
        except ValueError as error:
            print(error)
    assert [peek(folder / name) for name in ("pipe.safetensors", "pipe.npz")] == [None, None]


@POSIX
def test_pipes_and_devices_are_refused_wherever_a_file_is_read(tmp_path):
    lines = run_call(__file__, f"odd_files({str(tmp_path)!r})", timeout=60).splitlines()
    assert len(lines) == 13
    for line in lines:
        assert line.endswith(
            ("it is a named pipe, and only regular files are read", "it is a device, and only regular files are read")
        )
        assert line.startswith((str(tmp_path), "/dev/zero is no checkpoint"))


def litter(folder):
    """Save, and begin a run, where a stranger has put a pipe and a link among what killed writers leave."""
    folder = Path(folder)
    (folder / "runs").mkdir()
    (folder / "kept").write_text("kept")
    for place, name in ((folder, ".a.safetensors"), (folder / "runs", ".ep-0.safetensors")):
        os.mkfifo(place / f"{name}.01234567{TEMPORARY}")
        (place / f"{name}.89abcdef{TEMPORARY}").symlink_to(folder / "kept")
    fp.save(folder / "a")({"a": mx.array(1)})
    resumed(folder, None)


@POSIX
def test_a_pipe_among_what_killed_writers_left_blocks_nobody_and_a_link_there_is_not_followed(tmp_path):
    run_call(__file__, f"litter({str(tmp_path)!r})", timeout=60)
    assert fp.load(tmp_path / "a").params["a"].item() == 1
    assert (tmp_path / "runs" / "ep-0.safetensors").exists()
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_bundle_has_a_size_that_is_named_when_it_is_saved_and_when_it_is_read(tmp_path, monkeypatch):
    path = fp.save_bundle(tmp_path / "run.json", user={"note": "a" * 3_000})({"rows": []})
    monkeypatch.setattr(bundles, "LIMITS", bundles.LIMITS._replace(characters=2_500))
    with pytest.raises(ValueError, match="more than 2,500 characters describe it"):
        fp.save_bundle(tmp_path / "more.json", user={"note": "a" * 3_000})({"rows": []})
    assert not (tmp_path / "more.json").exists()
    with pytest.raises(ValueError, match=r"run\.json is no run bundle: more than 2,500 characters"):
        fp.read_bundle(path)


def raised(work, *given):
    """The OSError of some work, if there is one."""
    try:
        work(*given)
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("point", range(4))
def test_a_disk_that_fails_as_a_file_is_read_is_an_error_with_the_path(suffix, point, tmp_path, monkeypatch):
    path = fp.save(tmp_path / f"a{suffix}")({"a": mx.arange(100_000)})
    fail_read(monkeypatch, point)
    errors = [error for read in (fp.load, peek) for error in [raised(read, path)] if error is not None]
    assert {(error.errno, error.filename) for error in errors} == {(errno.EIO, str(path))}


def test_a_folder_in_the_place_of_a_checkpoint_is_none(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        fp.load(tmp_path / "a")
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        resumed(tmp_path, {**bundle_of("a", tmp_path), "checkpoint": None})
