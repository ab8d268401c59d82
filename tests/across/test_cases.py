"""Runs of which one process has something special: the figures of one process, and the same in each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import run

PROGRAM = Path(__file__).with_name("cases.py")


def results(mode, ranks, place):
    """Return the results of all processes, as texts, because NaN is not equal to NaN."""
    (folder := place / f"{mode}-{ranks}").mkdir()
    return [json.dumps(each) for each in run(PROGRAM, ranks, place, mode, folder)]


def assert_as_one(mode, ranks, place):
    """All processes have the same results, which are those of one process to rounding."""
    (one,), each = results(mode, 1, place), results(mode, ranks, place)
    assert len(set(each)) == 1
    alone, together = json.loads(one), json.loads(each[0])
    for name in ("losses", "steps"):
        assert together[name] == pytest.approx(alone[name], rel=2e-5, abs=2e-5, nan_ok=True)
    assert together["files"] == alone["files"]
    for (loss, named), (loss_alone, named_alone) in zip(together["figures"], alone["figures"], strict=True):
        assert loss == pytest.approx(loss_alone, rel=2e-5, abs=2e-5, nan_ok=True)
        assert named == pytest.approx(named_alone, rel=2e-5, abs=2e-5, nan_ok=True)


@pytest.mark.slow
def test_a_stop_in_one_process_ends_a_run_that_accumulates(tmp_path):
    first, second = (json.loads(each) for each in results("accumulated_stop", 2, tmp_path))
    assert first == second
    assert (
        len(first["losses"]) == 6
    )  # the request is made after 4 steps, travels with the fifth, and is read after the sixth


@pytest.mark.parametrize("mode", ["few_rows", "masked_rows"])
@pytest.mark.slow
def test_figures_that_count_in_some_processes_alone(tmp_path, mode):
    assert_as_one(mode, 3, tmp_path)


@pytest.mark.slow
def test_all_processes_group_steps_in_the_same_way(tmp_path):
    assert_as_one("groups", 2, tmp_path)


def test_rows_name_the_files_that_are_there_in_all_processes(tmp_path):
    assert_as_one("kept_files", 2, tmp_path)


@pytest.mark.slow
def test_the_memory_of_a_metric_travels_with_all_its_bits(tmp_path):
    assert_as_one("wide_memory", 2, tmp_path)
