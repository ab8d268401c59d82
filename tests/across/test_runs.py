"""Runs in several processes: the figures of one process, the same bits in each, and no process that hangs."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
from processes import finish, run, start, wait_until_ready

PROGRAM = Path(__file__).with_name("program.py")


def runs(ranks, place, **options):
    return run(PROGRAM, ranks, place, json.dumps(options))


def assert_same_run(one, other, tolerance=2e-5):
    """Losses, rows, evaluations and parameters of two runs agree to rounding."""
    assert one["losses"] == pytest.approx(other["losses"], rel=tolerance, abs=tolerance, nan_ok=True)
    assert one["row"] == pytest.approx(other["row"], rel=tolerance, abs=tolerance)
    assert one["stop"] == other["stop"]
    evaluations = {step: figures for step, *figures in one["evaluations"]}
    for step, *figures in other["evaluations"]:
        assert evaluations[step] == pytest.approx(figures, rel=tolerance, abs=tolerance)
    assert one["tested"] == pytest.approx(other["tested"], rel=tolerance, abs=tolerance)
    for path, values in one["params"].items():
        assert values == pytest.approx(other["params"][path], rel=1e-4, abs=2e-5)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "halves": True}], ids=["plain", "accumulate in halves"])
@pytest.mark.usual("accumulate in halves")
def test_two_processes_train_as_one(tmp_path, options):
    """Masks, uneven batches, clipping, validation every few steps."""
    one, two = runs(1, tmp_path, **options)[0], runs(2, tmp_path, **options)
    assert json.dumps(two[0]) == json.dumps(two[1])
    assert_same_run(two[0], one)


@pytest.mark.slow
def test_three_processes_of_which_some_have_no_row(tmp_path):
    one, three = runs(1, tmp_path, batch=2, steps=36)[0], runs(3, tmp_path, batch=2, steps=36)
    assert json.dumps(three[0]) == json.dumps(three[1]) == json.dumps(three[2])
    assert_same_run(three[0], one)


@pytest.mark.slow
def test_replicas_with_dropout_and_batch_norm_have_the_same_bits(tmp_path):
    first, second = runs(2, tmp_path, noisy=True, batch=10)
    assert json.dumps(first) == json.dumps(second)
    assert math.isfinite(first["row"]["loss"])


@pytest.mark.parametrize(
    "options",
    [
        {"noisy": True, "batch": 10, "steps_per_call": 2, "sharded": True},
        pytest.param({"accumulate": 2, "halves": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_messages_summed_outside_the_compiled_step_give_the_same_bits(tmp_path, options):
    """As on a GPU: two compiled functions, and the sum between them."""
    within, apart = runs(2, tmp_path, **options), runs(2, tmp_path, **options, apart=True)
    assert within[0]["row"]["steps"] == 24
    assert [json.dumps(each) for each in apart] == [json.dumps(each) for each in within]


@pytest.mark.slow
def test_a_run_continues_with_other_numbers_of_processes(tmp_path):
    folder = str(tmp_path / "run")
    runs(2, tmp_path, folder=folder, steps=9)
    runs(1, tmp_path, folder=folder, steps=14, resume="latest")
    three = runs(3, tmp_path, folder=folder, steps=22, resume="latest")
    whole = runs(1, tmp_path, steps=22)[0]
    assert json.dumps(three[0]) == json.dumps(three[1]) == json.dumps(three[2])
    assert_same_run(three[0], whole)


def test_a_sharded_optimiser_changes_no_bit_and_has_half_the_memory(tmp_path):
    whole, sharded = runs(2, tmp_path), runs(2, tmp_path, sharded=True)
    assert sharded[0]["checksums"] == sharded[1]["checksums"] == whole[0]["checksums"]
    assert sharded[0]["memory"] < 0.52 * whole[0]["memory"]


@pytest.mark.slow
def test_a_sharded_run_continues_with_other_numbers_of_processes(tmp_path):
    folder = str(tmp_path / "run")
    runs(2, tmp_path, folder=folder, steps=9, sharded=True)
    runs(3, tmp_path, folder=folder, steps=14, resume="latest", sharded=True)
    one = runs(1, tmp_path, folder=folder, steps=22, resume="latest", sharded=True)[0]
    assert_same_run(one, runs(1, tmp_path, steps=22)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data_fails_at": 7}, "a bad row"),
        ({"loss_fails": True}, "a bad loss"),
        ({"hook": "raise", "at": 6}, "a bad hook"),
        ({"hook": "raise", "at": 7}, "a bad hook"),
        ({"hook": "raise", "at": 23}, "a bad hook"),
        ({"hook": "raise", "at": 4, "sharded": True, "folder": "run"}, "a bad hook"),
    ],
    ids=["data", "loss", "hook", "hook before a validation", "hook after the last step", "sharded"],
)
@pytest.mark.usual("hook before a validation")
def test_an_error_in_one_process_reaches_the_others(tmp_path, options, text):
    options = {**options, "folder": str(tmp_path / options["folder"])} if "folder" in options else options
    first, second = runs(2, tmp_path, **options)
    assert second == {"error": "ValueError", "text": text}
    assert first == {"error": "PeerError", "text": f"process 1 has failed: ValueError: {text}"}


@pytest.mark.parametrize("hook", ["stop", "validate", "save"])
@pytest.mark.usual("stop")
def test_a_request_of_one_process_is_carried_out_by_all(tmp_path, hook):
    first, second = runs(2, tmp_path, hook=hook, at=0, batch=10, folder=str(tmp_path / "run"))
    assert first["checksums"] == second["checksums"]
    assert first["evaluations"] == second["evaluations"]
    if hook == "stop":
        assert (first["stop"], second["stop"]) == ("a hook of another process", "enough")
        assert first["row"]["steps"] == 4  # the request travels with the step after it, and is read two steps later
    elif hook == "validate":
        assert [step for step, *_ in first["evaluations"]] == [4, 8, 16, 24]
    else:
        assert (tmp_path / "run" / "4.safetensors").exists()


@pytest.mark.parametrize("nonfinite", ["raise", "stop", "skip", "keep"])
@pytest.mark.usual("raise")
def test_a_row_that_is_not_finite_in_one_process(tmp_path, nonfinite):
    first, second = runs(2, tmp_path, infinite_at=6, nonfinite=nonfinite)
    if nonfinite == "raise":
        assert first["error"] == second["error"] == "FloatingPointError"
        return
    assert first["checksums"] == second["checksums"]
    assert first["row"]["steps"] == {"stop": 8, "skip": 24, "keep": 24}[nonfinite]
    assert all(map(math.isfinite, first["params"]["layers.0.weight"])) == (nonfinite == "skip")


def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path):
    options = {"ready": str(tmp_path), "pause": 0.05, "steps": 2000, "folder": str(tmp_path / "run")}
    started = start(PROGRAM, 2, tmp_path, json.dumps(options))
    wait_until_ready(tmp_path, started)
    started[1].send_signal(signal.SIGTERM)
    first, second = (json.loads(out) for _, out, _ in finish(started))
    assert first["row"]["steps"] == second["row"]["steps"] < 2000
    assert first["stop"] == second["stop"] == "SIGTERM"
    assert first["checksums"] == second["checksums"]
    assert (tmp_path / "run" / f"{first['row']['steps']}.safetensors").exists()


def test_a_killed_process_ends_the_others_with_an_error(tmp_path):
    options = {"ready": str(tmp_path), "pause": 0.05, "steps": 2000, "folder": str(tmp_path / "run")}
    started = start(PROGRAM, 2, tmp_path, json.dumps(options))
    wait_until_ready(tmp_path, started)
    os.kill(started[1].pid, signal.SIGKILL)
    (_, out, _), (status, _, _) = finish(started)
    assert status == -signal.SIGKILL
    assert json.loads(out)["error"] == "RuntimeError"
    assert runs(1, tmp_path, folder=str(tmp_path / "run"), steps=12, resume="latest")[0]["row"]["steps"] == 12
