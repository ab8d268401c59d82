"""Pictures of curves: which lines stand on which axes."""

import math

import pytest
from helpers import report_of
from pages import run_of

from mlx_fp.loop._rows import Row
from mlx_fp.show import curves

pytest.importorskip("matplotlib")


def axes_by_name(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}


def lines_of(axes):
    return {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in axes.get_lines()}


def test_curves_of_a_run_of_steps_stand_over_steps():
    import mlx.core as mx

    import mlx_fp as fp
    from mlx_fp import nn

    batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 4
    trainer = fp.trainer(nn.linear(3, 2), fp.classification())
    report = fp.fit(batches, validation=batches[:1], steps=6, validate_every=3, log_every=2, quiet=True)(trainer)
    found = axes_by_name(curves(report))
    loss = lines_of(found["loss"])
    assert found["loss"].get_xlabel() == "step"
    assert loss["each step"] == [(row.step, row.loss) for row in report.steps]
    assert loss["validation"] == [(3, report.evaluations[0].val_loss), (6, report.evaluations[1].val_loss)]
    accuracy = lines_of(found["accuracy"])
    assert [place for place, _ in accuracy["train"]] == [4, 6]
    assert [place for place, _ in accuracy["validation"]] == [3, 6]
    assert {"learning_rate", "grad_norm", "rows per second"} <= found.keys()
    by_epoch = axes_by_name(curves(fp.fit(batches, validation=batches[:1], quiet=True)(trainer)))
    assert {name: axes.get_xlabel() for name, axes in by_epoch.items()} == {"loss": "epoch", "accuracy": "epoch"}


def test_the_best_evaluation_is_marked():
    axes = axes_by_name(curves(run_of()))["accuracy"]
    assert lines_of(axes)["best 0.8000"] == [(30, 0.8)]


def test_positive_figures_over_decades_are_logarithmic():
    found = axes_by_name(curves(run_of()))
    assert (found["grad_norm"].get_yscale(), found["accuracy"].get_yscale()) == ("log", "linear")


def test_several_runs_share_axes_with_the_best_first_in_the_legend():
    figure = curves([run_of(rate=0.1, best=0.5), run_of(rate=0.2, best=0.9)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["2 · rate=0.2", "1 · rate=0.1"]
    assert len(axes_by_name(figure)["accuracy"].get_lines()) == 4


def test_a_figure_that_is_not_finite_leaves_a_gap():
    rows = [Row(e, 1, 8, e + 1, loss, {}, None, {}, 0, 1.0) for e, loss in enumerate((1.0, math.inf, 0.5))]
    ((_, one), (_, gap), (_, other)) = lines_of(axes_by_name(curves(report_of(rows)))["loss"])["train"]
    assert (one, math.isnan(gap), other) == (1.0, True, 0.5)


def test_a_notebook_displays_the_figure():
    assert curves(run_of())._repr_png_().startswith(b"\x89PNG")


def test_names_are_no_formulas(tmp_path):
    rows = [Row(0, 1, 8, 1, 1.0, {"$x_{": 1.0, "_y": 2.0}, None, {}, 0, 1.0)]
    assert curves(report_of(rows), tmp_path / "a", title="$a_b").exists()
    assert curves([report_of(rows)] * 12, tmp_path / "b.svg").exists()


def test_another_value_than_a_report_is_an_error():
    with pytest.raises(TypeError, match="curves takes a Report"):
        curves(3)
