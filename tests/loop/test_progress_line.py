"""The line of a run is a pure function of its progress."""

import re
from dataclasses import replace

import pytest

from mlx_fp.loop._progress_line import Note, figure_text, line_of, resume_text
from mlx_fp.loop._progress_record import Clock, Progress
from mlx_fp.loop._state import Origin

RUNNING = Progress(
    epochs=3,
    steps=None,
    epoch_steps=10,
    accumulate=1,
    unit="rows",
    validates_within=False,
    epoch=1,
    step=14,
    epoch_step=4,
    activity="",
    loss=0.25,
    validation=("val_loss", 0.5),
    learning_rate=1e-4,
    rate=12345.6,
    memory=8_000_000,
    first=Clock(100.0, 2, 64),
    newest=Clock(106.0, 14, 448),
    seconds=106.0,
)


def test_the_line_of_a_run_of_epochs():
    line = line_of(RUNNING)
    assert (line.name, line.counted) == ("epoch 1 of 3", "4/10")
    assert line.figures == (
        "loss 0.2500",
        "val_loss 0.5000",
        "lr 0.0001",
        "12,346 rows/s",
        "8 MB",
        "0:00:08 left",
    )


def test_the_line_of_a_run_of_steps_counts_over_the_run():
    line = line_of(replace(RUNNING, epochs=None, steps=20, unit="tokens"))
    assert (line.name, line.counted) == ("epoch 1", "14/20")
    assert line.figures[-1] == "0:00:03 left"
    assert "12,346 tokens/s" in line.figures


@pytest.mark.parametrize(
    "unknown",
    [{"epoch_steps": None}, {"first": None}, {"first": Clock(100.0, 14, 0)}],
    ids=["size", "step", "one step"],
)
def test_time_left_waits_for_the_first_step_and_for_a_known_end(unknown):
    assert replace(RUNNING, **unknown).seconds_left is None


def test_without_a_total_the_count_is_alone():
    assert line_of(replace(RUNNING, epoch_steps=None)).counted == "4"


@pytest.mark.parametrize(
    ("activity", "kernels", "text"),
    [
        ("starting", 3, "starting"),
        ("compiling", 0, "compiling"),
        ("compiling", 1, "compiling, 1 kernel"),
        ("compiling", 7, "compiling, 7 kernels"),
    ],
)
def test_before_the_first_step_only_the_activity_is_shown(activity, kernels, text):
    assert line_of(replace(RUNNING, activity=activity), kernels=kernels).figures == (text,)


def test_validating_and_saving_come_last():
    assert line_of(replace(RUNNING, activity="validating"), saving=True).figures[-2:] == ("validating", "saving")


def test_kernels_that_are_compiled_later_are_counted_after_the_activity():
    figures = line_of(replace(RUNNING, activity="validating"), kernels=2).figures
    assert figures[-2:] == ("validating", "compiling, 2 kernels")
    assert line_of(RUNNING, kernels=-1) == line_of(RUNNING)


def test_a_note_is_one_line():
    assert str(Note("step 3", {"loss": 0.5, "learning_rate": 3e-5}, "10 rows/s")) == (
        "step 3  loss 0.5000  learning_rate 3e-05  10 rows/s"
    )
    assert str(Note("saved a")) == "saved a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-5, 1e9, 0])
def test_every_number_has_a_text(value):
    assert re.fullmatch(r"-?[\d.e+-]+|nan|inf", figure_text(value))


def test_a_new_run_resumes_from_nothing():
    assert resume_text(Origin(), 0, 0) == ""
