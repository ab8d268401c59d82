"""One writer for a folder: the lock is a regular file of its own, and the system says whether another has it."""

import errno
import os
import sys

import pytest

from mlx_fp.store._folder_lock import Lock

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
NAME = ".mlx_fp.lock"


@POSIX
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_what_a_stranger_put_in_the_place_of_the_lock_is_an_error_and_nothing_is_written_through_it(kind, tmp_path):
    folder, other = tmp_path / "runs", tmp_path / "precious"
    folder.mkdir()
    lock = folder / NAME
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(other)
    if kind == "link":
        other.write_text("precious")
    with pytest.raises(OSError, match="delete it|directory|denied") as caught:
        Lock(folder).take()
    assert caught.value.filename == str(lock)
    assert other.exists() == (kind == "link")
    assert kind != "link" or other.read_text() == "precious"
    assert os.path.lexists(lock)


@POSIX
def test_a_file_of_another_name_too_is_locked_and_keeps_its_content(tmp_path):
    other = tmp_path / "precious"
    other.write_text("precious")
    os.link(other, tmp_path / NAME)
    one, two = Lock(tmp_path), Lock(tmp_path)
    one.take()
    with pytest.raises(BlockingIOError):
        two.take()
    one.give_back()
    assert other.read_text() == "precious"


def answering(number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    return flock


@POSIX
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning_and_no_other_run(number, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("fcntl.flock", answering(number))
    lock = Lock(tmp_path)
    lock.take()
    assert f"the file system of {tmp_path} has no locks" in caplog.text
    assert (tmp_path / NAME).read_text().startswith(f"process {os.getpid()} on ")
    lock.give_back()


@POSIX
@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_another_has_is_another_run(number, tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", answering(number))
    with pytest.raises(BlockingIOError, match="another run writes here") as caught:
        Lock(tmp_path).take()
    assert caught.value.filename == str(tmp_path)


@POSIX
def test_any_other_answer_is_the_error_that_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", answering(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as caught:
        Lock(tmp_path).take()
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / NAME))
    assert not isinstance(caught.value, BlockingIOError)
