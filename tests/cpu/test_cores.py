"""A container's quota of CPU time limits the number of threads."""

from __future__ import annotations

import os

import pytest

from mlx_fp.cpu._cores import allowed_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes the files of a system with 8 cores, and counts."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def counted(groups, **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            path = (
                tmp_path / "sys/fs/cgroup" / name.replace("__", "/").replace("_max", ".max").replace("cfs", "cpu.cfs")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return allowed_cores(str(tmp_path))

    return counted


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("150000 100000", 2), ("200000 100000", 2), ("5000 100000", 1), ("9000000 100000", 8)],
)
def test_the_quota_of_a_container(machine, quota, cores):
    assert machine("0::/\n", cpu_max=quota) == cores


def test_the_least_of_the_groups_above_counts(machine):
    assert machine("0::/a/b\n", cpu_max="max 100000", a__cpu_max="300000 100000", a__b__cpu_max="600000 100000") == 3


def test_the_first_version_of_groups(machine):
    files = {"cpu__job__cfs_quota_us": "250000\n", "cpu__job__cfs_period_us": "100000\n"}
    assert machine("3:memory:/other\n4:cpu,cpuacct:/job\n", **files) == 3


def test_no_quota(machine):
    files = {"cpu__job__cfs_quota_us": "-1\n", "cpu__job__cfs_period_us": "100000\n"}
    assert machine("4:cpu:/job\n", **files) == 8


def test_a_system_without_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowed_cores(tmp_path) == 1
