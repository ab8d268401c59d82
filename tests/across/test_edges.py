"""Around a run in several processes: sweeps, evaluations, and errors before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import finish, run, start

PROGRAM = Path(__file__).with_name("edges.py")


def results(mode, place, ranks=2):
    return [each["result"] for each in run(PROGRAM, ranks, place, mode, place / "runs")]


@pytest.mark.slow
def test_a_sweep_has_the_same_trials_in_all_processes_and_prints_once(tmp_path):
    (tmp_path / "runs").mkdir()
    (_, printed, _), (_, silent, _) = finish(start(PROGRAM, 2, tmp_path, "sweep", tmp_path / "runs"))
    assert printed.splitlines()[-1].startswith('{"result": [[{"optimizer.learning_rate": 0.01')
    assert silent.splitlines() == printed.splitlines()[-1:]
    assert sum(line.startswith("trial ") for line in printed.splitlines()) == 3
    folders = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/1.safetensors"))
    assert folders == ["trial-1", "trial-2", "trial-3"]


@pytest.mark.slow
def test_a_trial_that_fails_in_one_process_fails_in_all_and_the_sweep_goes_on(tmp_path):
    first, second = results("sweep_that_fails", tmp_path)
    assert first[0] == first[2] == second[0] == second[2] == ""
    assert first[1].startswith("PeerError: process 1 has failed: ValueError: a bad trial")
    assert second[1].startswith("ValueError: a bad trial")


@pytest.mark.slow
def test_a_stream_of_events_has_the_losses_of_one_process(tmp_path):
    (alone,), (first, second) = results("stream", tmp_path, ranks=1), results("stream", tmp_path)
    assert first == second
    assert [step for step, _ in first] == [step for step, _ in alone] == list(range(10))
    assert [loss for _, loss in first] == pytest.approx([loss for _, loss in alone], rel=1e-5)


def test_parameters_that_drift_apart_are_found_where_they_are_compared(tmp_path):
    for result in results("checked", tmp_path):
        assert result["error"] == "ValueError"
        assert result["text"].startswith("the processes differ in the parameters: bias has not the same bits")


@pytest.mark.parametrize(
    ("mode", "rank", "text"),
    [
        ("evaluate", 1, "ValueError: a bad row"),
        ("start", 1, "FileNotFoundError: "),
        ("locked", 0, "BlockingIOError: "),
    ],
)
@pytest.mark.usual("locked-0-BlockingIOError: ")
def test_an_error_outside_the_steps_of_one_process_reaches_the_other(tmp_path, mode, rank, text):
    by_rank = results(mode, tmp_path)
    kind, _, words = text.partition(": ")
    assert by_rank[rank]["error"] == kind
    assert by_rank[rank]["text"].startswith(words)
    assert by_rank[1 - rank]["error"] == "PeerError"
    assert by_rank[1 - rank]["text"].startswith(f"process {rank} has failed: {text}")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("other_seed", "the processes differ in training data"),
        ("other_rate", "the processes differ in the state of the optimiser: optimizer.learning_rate"),
        ("other_params", "the processes differ in the parameters: weight has not the same bits"),
    ],
)
@pytest.mark.usual("other_seed-the processes differ in training data")
def test_an_error_names_the_difference_of_processes_at_the_start(tmp_path, mode, text):
    for result in results(mode, tmp_path):
        assert result["error"] == "ValueError"
        assert result["text"].startswith(text)
