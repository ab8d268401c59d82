"""Pictures of runs."""

import sys

import pytest

from mlx_fp.loop.report import Report, Row
from mlx_fp.show import curves


def report(rows):
    ran = len(rows)
    return Report(
        tuple(rows), (), False, "epoch_loss", "min", None, None, 3, ran, ran, 0, False, *[None] * 3, (), *[{}] * 3
    )


@pytest.mark.parametrize("validation", [True, False])
def test_curves_writes_a_picture_and_makes_the_folder(tmp_path, validation):
    pytest.importorskip("matplotlib")
    held = (0.5, {"accuracy": 0.5}, 1) if validation else (None, {}, 0)
    rows = [Row(e, 1, 8, e + 1, 1 / (e + 1), {"accuracy": e / 3}, *held, 1.0) for e in range(3)]
    path = curves(report(rows), tmp_path / "new" / "curves.png", title="a run")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_report_without_epochs_has_no_curves(tmp_path):
    with pytest.raises(ValueError, match="without epochs"):
        curves(report([]), tmp_path / "x.png")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"mlx-fp\[show\]"):
        curves(report([Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]), tmp_path / "x.png")
