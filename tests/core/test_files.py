"""At every instant a path holds the whole old file or the whole new one."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import child_env

from mlx_fp.core import _files as files
from mlx_fp.core._files import file_sha256, write_whole

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


def names(folder):
    return sorted(os.listdir(folder))


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_is_written_and_its_folders_made(tmp_path):
    path = write_whole(tmp_path / "a" / "b" / "c.bin", b"one")
    assert path == tmp_path / "a" / "b" / "c.bin"
    assert path.read_bytes() == b"one"
    assert names(path.parent) == ["c.bin"]


def test_a_path_may_be_a_string_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_whole("c.bin", b"") == Path("c.bin")
    assert (tmp_path / "c.bin").read_bytes() == b""


def test_a_new_file_takes_the_place_of_the_old_whatever_their_sizes(tmp_path):
    path = tmp_path / "c.bin"
    for content in (b"long" * 100_000, b"short", b""):
        assert write_whole(path, content).read_bytes() == content
    assert names(tmp_path) == ["c.bin"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, call):
    path = write_whole(tmp_path / "c.bin", b"old")
    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, os.fspath(path))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["c.bin"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "c.bin", b"new")
    assert names(tmp_path) == []


def test_an_interrupt_in_the_middle_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    path = write_whole(tmp_path / "c.bin", b"old")
    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["c.bin"]


def test_the_content_is_on_disk_before_the_file_is_put_there(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda number: order.append("flush") or fsync(number))
    monkeypatch.setattr(files.os, "replace", lambda a, b: order.append(Path(a).read_bytes()) or replace(a, b))
    write_whole(tmp_path / "c.bin", b"new")
    assert order[:2] == ["flush", b"new"]


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path):
    (tmp_path / "c.bin").mkdir()
    with pytest.raises(OSError, match=r"c\.bin"):
        write_whole(tmp_path / "c.bin", b"new")
    assert names(tmp_path) == ["c.bin"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="a"):
        write_whole(tmp_path / "a" / "c.bin", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@POSIX
def test_a_symbolic_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"old")
    (tmp_path / "c.bin").symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "c.bin", b"new")
    assert not (tmp_path / "c.bin").is_symlink()
    assert ((tmp_path / "elsewhere").read_bytes(), (tmp_path / "c.bin").read_bytes()) == (b"old", b"new")


@POSIX
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        path = write_whole(tmp_path / "c.bin", b"new")
        assert os.umask(mask) == mask, "writing changed the umask"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@POSIX
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root writes anywhere")
def test_a_folder_that_takes_no_files_is_an_error_and_the_old_file_stays(tmp_path):
    path = write_whole(tmp_path / "c.bin", b"old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            write_whole(path, b"new")
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == b"old"


WRITER = """
import os, signal, sys
from mlx_fp.core._files import write_whole

def content(path):
    with open(path, "wb") as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        sys.stdin.readline()
        file.write(b"whole")

write_whole(sys.argv[1], content)
"""


def writer(path):
    """A process that is in the middle of writing a file; a line on its input lets it end."""
    command = [sys.executable, "-c", WRITER, os.fspath(path)]
    process = subprocess.Popen(command, env=child_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def killed(path):
    with writer(path) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL


@POSIX
def test_what_a_killed_writer_left_goes_with_the_next_write_of_that_file(tmp_path):
    for name in ("a", "a.b", "c"):
        killed(tmp_path / name)
    assert len(names(tmp_path)) == 3
    write_whole(tmp_path / "a", b"one")
    assert [name[: -len("01234567.mlx_fp-tmp")] for name in names(tmp_path)] == [".a.b.", ".c.", ""]
    write_whole(tmp_path / "a.b", b"two")
    write_whole(tmp_path / "c", b"three")
    assert names(tmp_path) == ["a", "a.b", "c"]


@POSIX
def test_a_writer_that_lives_keeps_what_it_writes_whoever_sweeps(tmp_path):
    with writer(tmp_path / "a") as process:
        assert write_whole(tmp_path / "a", b"meanwhile").read_bytes() == b"meanwhile"
        files.remove_leftovers(tmp_path)
        assert len(names(tmp_path)) == 2
        process.communicate("go on\n")
    assert process.returncode == 0
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"halfwhole"


@POSIX
def test_a_writer_keeps_what_it_writes_from_others_in_its_process_until_it_is_in_place(tmp_path, monkeypatch):
    def content(path):
        write_whole(tmp_path / "a", b"inner")
        path.write_bytes(b"outer")

    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda *names: files.remove_leftovers(tmp_path) or replace(*names))
    assert write_whole(tmp_path / "a", content).read_bytes() == b"outer"
    assert names(tmp_path) == ["a"]


@POSIX
def test_a_sweep_that_comes_before_the_lock_costs_the_writer_nothing(tmp_path, monkeypatch):
    hold, swept = files.lock_file, []

    def late(file, **options):
        if not swept:
            swept.extend(tmp_path.glob(".a.*"))
            files.remove_leftovers(tmp_path)
        hold(file, **options)

    monkeypatch.setattr(files, "lock_file", late)
    assert write_whole(tmp_path / "a", b"one").read_bytes() == b"one"
    assert len(swept) == 1
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("content", [b"", b"one", b"x" * 1_000_000])
def test_the_digest_is_sha_256(tmp_path, content):
    assert file_sha256(write_whole(tmp_path / "c.bin", content)) == hashlib.sha256(content).hexdigest()
