"""A folder appears complete or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
from helpers import child_env

from mlx_fp.core import _files as files
from mlx_fp.store._folders import write_folder


def names(folder):
    return sorted(os.listdir(folder))


def one_file(content):
    return lambda new: (new / "a.bin").write_bytes(content)


def test_a_folder_is_written_with_the_folders_in_it(tmp_path):
    def fill(new):
        (new / "a.bin").write_bytes(b"one")
        (new / "more").mkdir()
        (new / "more" / "b.bin").write_bytes(b"two")

    folder = write_folder(tmp_path / "deep" / "model", fill)
    assert folder == tmp_path / "deep" / "model"
    assert (names(folder), (folder / "more" / "b.bin").read_bytes()) == (["a.bin", "more"], b"two")
    assert names(folder.parent) == ["model"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    assert names(write_folder(tmp_path / "model", one_file(b"one"))) == ["a.bin"]


def test_a_folder_with_files_is_refused_and_stays(tmp_path):
    folder = write_folder(tmp_path / "model", one_file(b"old"))
    with pytest.raises(FileExistsError, match="has files in it"):
        write_folder(folder, one_file(b"new"))
    assert (folder / "a.bin").read_bytes() == b"old"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError, match="is not a folder"):
        write_folder(tmp_path / "file", one_file(b"new"), replace=True)


def test_a_folder_that_is_replaced_keeps_none_of_its_files(tmp_path):
    folder = write_folder(tmp_path / "model", lambda new: (new / "old.bin").write_bytes(b"old"))
    write_folder(folder, one_file(b"new"), replace=True)
    assert (names(folder), names(tmp_path)) == (["a.bin"], ["model"])


@pytest.mark.parametrize("call", ["fsync", "mkdir"])
def test_a_write_that_fails_leaves_the_old_folder_and_nothing_beside_it(tmp_path, monkeypatch, call):
    folder = write_folder(tmp_path / "model", one_file(b"old"))

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_folder(folder, one_file(b"new"), replace=True)
    assert (names(tmp_path), (folder / "a.bin").read_bytes()) == (["model"], b"old")


def test_an_error_of_the_writer_leaves_nothing(tmp_path):
    def fill(new):
        (new / "a.bin").write_bytes(b"half")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_folder(tmp_path / "model", fill)
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")
def test_the_next_writer_deletes_the_files_of_a_killed_one(tmp_path):
    code = (
        "import os, signal, sys; from mlx_fp.store._folders import write_folder\n"
        "def fill(new):\n"
        "    (new / 'a.bin').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_folder(sys.argv[1], fill)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], env=child_env(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert len(names(tmp_path)) == 1
    write_folder(tmp_path / "model", one_file(b"new"))
    assert names(tmp_path) == ["model"]
