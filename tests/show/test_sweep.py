"""Pictures of sweeps."""

from itertools import product

import pytest
from helpers import report_of

from mlx_fp.experiments._sweep import Sweep, Trial
from mlx_fp.loop._rows import Row
from mlx_fp.show import sweep

pytest.importorskip("matplotlib")

ROWS = [Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]


def found(grid, values):
    cases = [dict(zip(grid, case, strict=True)) for case in product(*grid.values())]
    trials = tuple(
        Trial(case, None if value == "error" else report_of(ROWS, best_value=value))
        for case, value in zip(cases, values, strict=True)
    )
    return Sweep("widths", trials, trials[0])


def test_two_settings_are_a_heat_map():
    figure = sweep(found({"rate": [0.1, 0.2], "seed": [0], "width": [8, 16, 32]}, [1.0, 2.0, "error", 4.0, None, 6.0]))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "16", "32"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0.1", "0.2"]
    assert [text.get_text() for text in axes.texts] == ["1.0000", "2.0000", "4.0000", "6.0000"]
    assert axes.get_title() == "widths"


def test_other_sweeps_are_parallel_coordinates():
    grid = {"optimizer.rate": [0.001, 0.01, 0.1], "width": [8, 16], "kind": ["gelu", None]}
    axes = sweep(found(grid, [float(n) for n in range(12)])).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["rate", "width", "kind", "best loss"]
    lines = [line.get_ydata() for line in axes.get_lines() if len(line.get_ydata()) == 4]
    assert len(lines) == 12
    assert sorted({round(float(line[0]), 3) for line in lines}) == [0, 0.5, 1]
    assert lines[-1][3] == 1


def test_one_setting_is_drawn_and_written(tmp_path):
    assert sweep(found({"rate": [0.1, 0.2]}, [1.0, 1.0]), tmp_path / "s").name == "s.png"
    assert sweep(found({"rate": [0.1]}, [1.0]), tmp_path / "t.svg", title="one").exists()


def test_a_sweep_without_values_is_an_error():
    with pytest.raises(ValueError, match="no trial"):
        sweep(found({"rate": [0.1, 0.2]}, [None, float("nan")]))
    with pytest.raises(TypeError, match="fp.sweep"):
        sweep([])
