"""The panels of a run: which figures stand together, and over which steps."""

import pytest
from pages import run_of

from mlx_fp.page._panels import best_point, panels
from mlx_fp.page._runs import runs_of

pytestmark = pytest.mark.without_mlx


def of(**fields):
    bundle = run_of()
    return runs_of([{**bundle, "report": {**bundle["report"], **fields}}])[0]


def test_training_and_validation_share_a_panel():
    found = {panel.title: [line.name for line in panel.lines] for panel in panels(of())}
    assert found == {
        "loss": ["each step", "train", "validation"],
        "accuracy": ["train", "validation"],
        "learning_rate": ["each step"],
        "grad_norm": ["each step"],
        "rows per second": ["each step", "each epoch"],
        "peak memory (MB)": ["each step"],
    }


def test_without_logged_steps_the_losses_of_the_report_are_drawn():
    line = panels(of(steps=[], losses=[float(n) for n in range(30)]))[0].lines[0]
    assert (line.name, line.steps[:2], line.values[-1], line.epochs[9:11]) == ("each step", (1.0, 2.0), 29.0, (0, 1))
    assert [line.name for line in panels(of(steps=[], losses=[1.0]))[0].lines] == ["train", "validation"]


def test_named_sets_of_validation_have_a_line_each():
    setup = {"validation": {"easy": "data", "hard": "data"}}
    each = [{"epoch": 0, "step": 5, "val_easy_loss": 0.5, "val_hard_loss": 0.9, "val_hard_accuracy": 0.1}]
    found = {panel.name: [line.name for line in panel.lines] for panel in panels(of(setup=setup, evaluations=each))}
    assert found["loss"][2:] == ["validation easy", "validation hard"]
    assert found["accuracy"][1:] == ["validation hard"]


def test_the_best_point_is_on_the_line_of_the_monitor():
    assert best_point(of()) == ("accuracy", "validation", 30.0, 0.8)
    assert best_point(of(monitor_name="loss", best_value=0.1)) == ("loss", "train", 30.0, 0.1)
    assert best_point(of(best_value=None)) is None
