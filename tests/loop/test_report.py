"""Rows and reports as records, JSON and tables."""

import json
import math
from dataclasses import replace

import pytest
from helpers import report_of

from mlx_fp.loop._rows import Evaluation, Row, StepRow


def row(epoch=0, loss=0.5, val=0.25):
    return Row(epoch, 3, 40, 3 * (epoch + 1), loss, {"accuracy": 0.75}, val, {"accuracy": 0.5}, 2, 2.0)


def report(*rows):
    return report_of(
        rows,
        evaluations=(Evaluation(0, 3, 0.25, {"accuracy": 0.5}, 2, 0.5, True, 0, "runs/3"),),
        steps=(StepRow(2, 0, math.nan, {"size": 8.0}, 0.1, math.inf),),
        losses=(1.0, math.nan),
        losses_kept=True,
        monitor_name="val_accuracy",
        monitor_mode="max",
        best_value=0.5,
        best_epoch=0,
        best_step=3,
        epochs_target=2,
        policy=None,
        params={"w": object()},
        best_params={"w": object()},
    )


def test_metrics_read_as_attributes_and_unknown_ones_name_those_there_are():
    assert (row().accuracy, row().val_accuracy, row().examples_per_second) == (0.75, 0.5, 20.0)
    assert row(loss=0.125).loss == 0.125
    with pytest.raises(AttributeError, match="val_accuracy"):
        row().val_acuracy
    evaluation = Evaluation(0, 3, 0.25, {"accuracy": 0.5}, 2)
    assert evaluation.val_accuracy == 0.5
    with pytest.raises(AttributeError, match="an evaluation has no 'val_acuracy'; its metrics: val_accuracy"):
        evaluation.val_acuracy


def test_the_best_checkpoint_is_that_of_the_best_evaluation():
    assert report(row()).best_checkpoint == "runs/3"
    assert replace(report(row()), best_step=None).best_checkpoint is None


def test_json_leaves_arrays_out_and_keeps_numbers_that_are_not_finite():
    read = json.loads(report(row(), row(1, loss=math.inf)).to_json())
    assert read["rows"][0]["val_accuracy"] == 0.5
    assert read["rows"][1]["epoch_loss"] == "inf"
    assert read["losses"] == [1.0, "nan"]
    assert read["evaluations"] == [
        {
            "epoch": 0,
            "step": 3,
            "val_loss": 0.25,
            "batches": 2,
            "monitor_value": 0.5,
            "improved": True,
            "stale": 0,
            "checkpoint": "runs/3",
            "val_accuracy": 0.5,
        }
    ]
    (logged,) = read["steps"]
    assert (logged["step"], logged["loss"], logged["size"], logged["grad_norm"]) == (2, "nan", 8.0, "inf")
    assert not {"params", "opt_state", "best_params"} & read.keys()
    assert (read["epochs_target"], read["steps_target"], read["best_step"]) == (2, None, 3)


def test_the_table_has_a_line_per_epoch():
    lines = str(report(row(), row(1))).splitlines()
    assert lines[0].split() == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert lines[2].split() == ["1", "0.5000", "0.7500", "0.2500", "0.5000", "2.00"]
    assert str(report()) == "no epochs"


def test_an_epoch_that_was_cut_has_no_figures_of_validation():
    cut = Row(1, 1, 1, 1, 0.5, {"accuracy": 0.75}, None, {}, 0, 1.0)
    lines = str(report(row(), cut)).splitlines()
    assert lines[1].split() == ["0", "0.5000", "0.7500", "0.2500", "0.5000", "2.00"]
    assert lines[2].split() == ["1", "0.5000", "0.7500", "1.00"]
    assert len(str(report(cut, row())).splitlines()) == 3


def test_without_validation_there_are_no_columns_for_it():
    bare = Row(0, 1, 1, 1, 0.5, {}, None, {}, 0, 1.0)
    assert str(report(bare)).splitlines()[0].split() == ["epoch", "loss", "seconds"]


def test_an_epoch_that_was_cut_is_marked_in_the_table_and_in_plain_values():
    cut = Row(1, 1, 1, 1, 0.5, {"accuracy": 0.75}, None, {}, 0, 1.0, cut=True)
    shown = report(row(), cut)
    assert [line.split()[:2] for line in str(shown).splitlines()[1:]] == [["0", "0.5000"], ["1", "(cut)"]]
    assert [plain["cut"] for plain in json.loads(shown.to_json())["rows"]] == [False, True]
    assert "<td" in shown._repr_html_()
    assert "1 (cut)</td>" in shown._repr_html_()


def test_a_notebook_shows_the_epochs_and_a_curve_of_the_loss():
    page = replace(report(row(), row(1)), losses=(1.0, 0.5, 0.25), stop_reason="<SIGINT>")._repr_html_()
    assert page.count("<tr") == 3
    assert page.count("<polyline") == 1
    assert "stopped: &lt;SIGINT&gt;" in page
    assert "<script" not in page
    assert "<svg" not in replace(report(row()), losses=())._repr_html_()
    assert report()._repr_html_().count("<tr") == 1


def test_the_curve_of_many_losses_is_thinned():
    page = replace(report(row()), losses=tuple(1 / (i + 1) for i in range(100_000)))._repr_html_()
    assert len(page) < 10_000
