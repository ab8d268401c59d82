"""The file of logged steps: whole lines, cut at a step, and rows that are not finite."""

import errno
import json
import math
import os

import pytest

from mlx_fp.store import _steps_file
from mlx_fp.store._steps_file import StepsFile, read_steps


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "steps.jsonl"


def write(path, steps, since=0):
    file = StepsFile(path)
    file.open(since)
    for step in steps:
        file.append({"step": step, "loss": 1 / step}.copy)
    file.close()


def steps(path):
    return [row["step"] for row in read_steps(path)]


def test_rows_come_back(path):
    write(path, range(1, 6))
    assert read_steps(path) == [{"step": step, "loss": 1 / step} for step in range(1, 6)]


def test_a_missing_file_has_no_rows(path):
    assert read_steps(path) == []


def test_a_run_that_continues_drops_later_rows(path):
    write(path, range(1, 8))
    write(path, range(5, 7), since=4)
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_a_run_from_the_start_drops_all_rows(path):
    write(path, range(1, 8))
    write(path, [1, 2])
    assert steps(path) == [1, 2]


def test_an_incomplete_last_line_is_left_out_and_dropped(path):
    write(path, [1, 2])
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert steps(path) == [1, 2]
    write(path, [3], since=2)
    assert steps(path) == [1, 2, 3]


def test_numbers_that_are_not_finite_are_valid_json(path):
    file = StepsFile(path)
    file.open(0)
    file.append({"step": 1, "loss": math.nan, "grad_norm": math.inf, "figure": -math.inf}.copy)
    file.close()
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["loss"] == "nan"
    (row,) = read_steps(path)
    assert math.isnan(row["loss"])
    assert (row["grad_norm"], row["figure"]) == (math.inf, -math.inf)


def test_a_damaged_line_is_named(path):
    write(path, [1])
    with path.open("a") as file:
        file.write("[1]\n")
    with pytest.raises(ValueError, match=r"line 2 of .*steps\.jsonl is no logged step"):
        read_steps(path)


def test_a_row_reaches_the_disk_while_the_run_goes_on(path, monkeypatch):
    monkeypatch.setattr(_steps_file, "_SECONDS", -1)
    file = StepsFile(path)
    file.open(0)
    file.append({"step": 1}.copy)
    assert steps(path) == [1]
    file.close()


def test_a_full_disk_is_a_warning_and_the_rows_come_later(path, monkeypatch, caplog):
    file, write_part = StepsFile(path), os.write
    file.open(0)
    file.append({"step": 1}.copy)

    def full(number, content):
        if len(content) > 4:
            return write_part(number, content[:4])  # a part of the line is on disk before the disk is full
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        file.flush()
        file.append({"step": 2}.copy)
        file.flush()
    assert path.read_bytes() == b""
    assert len(caplog.records) == 1
    file.close()
    assert steps(path) == [1, 2]


def test_a_link_in_the_place_of_the_file_is_an_error(path, tmp_path):
    path.parent.mkdir()
    (tmp_path / "other").write_text("kept")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic link"):
        StepsFile(path).open(0)
    assert (tmp_path / "other").read_text() == "kept"
