"""`mlx-fp check` and `mlx-fp bench`: one batch and a rate, without a trained parameter or a file."""

from __future__ import annotations

import pytest
from commands import EXPERIMENT, called, refused, write_experiment

ON_STEP = """
def tell(event):
    raise AssertionError("a run began")


sums = replace(sums, verbs=(*sums.verbs, fp.on("before_fit", tell)))
"""


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


def test_check_shows_data_model_figures_traces_and_memory(tmp_path):
    ended = called("check", "train.py", "data.batch_size=32", "model.width=8")
    assert (ended.status, ended.errors) == (0, [])
    assert ended.row("experiment")[1:3] == ["experiment('sums',", "epochs=2,"]
    assert ended.row("training")[:3] == ["training", "2", "×"]
    assert ended.row("validation")[:3] == ["validation", "1", "×"]
    assert ended.row("length") == ["length", "2", "epochs"]
    assert ended.row("x") == ["x", "32×3", "float32"]
    assert ended.row("y") == ["y", "32", "float32"]
    arrays = ["weight", "8×3", "bias", "8", "float32"]
    assert ended.row("layers.0") == ["layers.0", "Linear", *arrays, "32×8", "32", "32", "128", "B"]
    assert ended.row("total") == ["total", "41", "41", "164", "B"]
    assert ended.row("first") == ["first", "batch", "training", "validation"]
    assert all(float(cell) > 0 for cell in ended.row("loss")[1:])
    assert ended.row("traces") == ["traces", "1", "1"]
    assert ended.row("memory") == ["memory", "32", "rows"]
    assert ended.row("peak")[:3] == ["peak", "to", "expect"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["train.py"]


def test_check_and_bench_begin_no_run(tmp_path):
    write_experiment(tmp_path, "watched.py", more="from dataclasses import replace\n" + ON_STEP)
    assert called("check", "watched.py").status == 0
    assert called("bench", "watched.py", "--seconds", 0.01).status == 0


def test_named_validation_sets_and_steps_are_shown(tmp_path):
    more = "sums = fp.override({'epochs': 1, 'steps': 6})(sums)\n"
    more += "from dataclasses import replace\nsets = {'easy': [(X[:8], Y[:8])], 'hard': [(X[8:], Y[8:])]}\n"
    more += "sums = replace(sums, verbs=(fp.with_options(validation=sets),))\n"
    write_experiment(tmp_path, "sets.py", more=more)
    ended = called("check", "sets.py")
    assert ended.row("length") == ["length", "6", "steps"]
    assert ended.row("first") == ["first", "batch", "training", "validation", "easy", "validation", "hard"]
    assert ended.row("traces") == ["traces", "1", "1", "1"]


def test_check_of_data_without_a_batch_is_one_line(tmp_path):
    write_experiment(tmp_path, "none.py", more="X = X[:0]\nY = Y[:0]\n")
    ended = called("check", "none.py")
    assert ended.status == 2
    assert ended.errors[0].startswith("mlx-fp: the training data have no batch: pipe(arrays(")


def test_an_error_of_the_model_keeps_its_class(tmp_path):
    write_experiment(tmp_path, "wrong.py", more="X = X[:, :2]\n")
    with pytest.raises(ValueError, match="Last dimension"):
        called("check", "wrong.py")


def test_bench_gives_the_rate_of_the_step():
    ended = called("bench", "train.py", "--seconds", "0.05", "data.batch_size=8")
    assert ended.status == 0
    rows, rate = ended.row("rows"), float(ended.row("rows/s")[1].replace(",", ""))
    assert rows == ["rows", "of", "a", "batch", "8"]
    milliseconds = float(ended.row("ms")[-1])
    assert rate == pytest.approx(8 / milliseconds * 1000, rel=0.01)
    low, high = (float(cell) for cell in ended.row("quartiles,")[2::2])
    assert low <= milliseconds <= high
    assert int(ended.row("timed")[-1].replace(",", "")) >= 5
    assert ended.row("traces") == ["traces", "1"]


@pytest.mark.slow
def test_bench_takes_as_many_steps_in_a_call_as_a_run(tmp_path):
    write_experiment(tmp_path, "calls.py", text=EXPERIMENT.replace("log_every=2", "steps_per_call=3"))
    ended = called("bench", "calls.py", "--seconds", "0.01")
    assert int(ended.row("timed")[-1].replace(",", "")) % 3 == 0
    assert refused("bench", "calls.py", "with_options.steps_per_call=0").startswith("the experiment cannot be built")
