"""The folder for built libraries is where it should be, and nobody else can put a file there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libraries are built on Linux")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make the folder below `tmp_path / "home"`, or where XDG_CACHE_HOME says."""
    from mlx_fp.cpu._private_folder import make_private

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)

    def made(cache=None):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if cache is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        return Path(make_private("kernels", "all that is known of the kernels"))

    return made


def test_it_is_of_the_user_alone(make):
    assert make().stat().st_mode & 0o777 == 0o700
    assert make() == make()


@pytest.mark.parametrize("cache", ["", "cache", "./cache", "../cache"])
def test_a_path_that_is_not_absolute_is_ignored(make, tmp_path, cache):
    assert make(cache).is_relative_to(tmp_path / "home" / ".cache")
    assert not (tmp_path / "cache").exists()


def test_a_home_that_is_not_absolute_is_refused(make, monkeypatch):
    monkeypatch.setenv("HOME", "here")
    with pytest.raises(RuntimeError, match="XDG_CACHE_HOME names a place"):
        make()


@pytest.mark.parametrize("above", ["a", "a/b", "a/b/mlx_fp"])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775])
def test_a_folder_above_that_others_can_write_to_is_refused(make, tmp_path, above, mode, monkeypatch):
    import grp

    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group(("staff", "x", number, ["other"])))
    (tmp_path / "a" / "b" / "mlx_fp").mkdir(parents=True)
    (tmp_path / above).chmod(mode)
    with pytest.raises(RuntimeError, match="others can write to"):
        make(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b" / "mlx_fp").iterdir())


def test_a_link_to_a_folder_that_others_can_write_to_is_refused(make, tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to("open")
    with pytest.raises(RuntimeError, match=f"others can write to {tmp_path}/open"):
        make(tmp_path / "link")


def test_a_folder_where_nobody_replaces_that_of_another_may_stand_above(make, tmp_path):
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    folder = make(tmp_path / "sticky")
    folder.chmod(0o1777)  # in the folder itself they could put a kernel
    with pytest.raises(RuntimeError, match="others can write to"):
        make(tmp_path / "sticky")


def test_the_group_of_the_user_alone_may_write(make, tmp_path, monkeypatch):
    import grp
    import pwd

    name = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group((name, "x", number, [])))
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o775)
    assert make(tmp_path / "group").is_dir()


def test_a_folder_of_another_user_is_refused(make, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    stat = os.stat

    def stated(path, **options):
        found = stat(path, **options)
        return os.stat_result((*found[:4], 12345, *found[5:])) if os.path.basename(path) == "theirs" else found

    monkeypatch.setattr(os, "stat", stated)
    with pytest.raises(RuntimeError, match=r"theirs is another user's \(uid 12345\)"):
        make(tmp_path / "theirs")
