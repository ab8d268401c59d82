"""Pictures of runs."""

import sys

import pytest
from helpers import report_of

from mlx_fp.loop._rows import Row
from mlx_fp.show import curves


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.usual("False")
def test_curves_writes_a_picture_and_makes_the_folder(tmp_path, validation):
    pytest.importorskip("matplotlib")
    held = (0.5, {"accuracy": 0.5}, 1) if validation else (None, {}, 0)
    rows = [Row(e, 1, 8, e + 1, 1 / (e + 1), {"accuracy": e / 3}, *held, 1.0) for e in range(3)]
    path = curves(report_of(rows), tmp_path / "new" / "curves.png", title="a run")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_path_without_a_suffix_gets_one(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]
    assert curves(report_of(rows), tmp_path / "lr.0-1" / "c") == tmp_path / "lr.0-1" / "c.png"
    assert curves(report_of(rows), tmp_path / "c.svg").read_bytes().startswith(b"<?xml")


def test_curves_may_go_to_the_home_of_the_user(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    rows = [Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]
    assert curves(report_of(rows), "~/c.png") == tmp_path / "c.png"
    assert (tmp_path / "c.png").exists()


def test_a_link_in_the_place_of_the_picture_is_replaced_and_nothing_is_written_through_it(tmp_path):
    pytest.importorskip("matplotlib")
    other = tmp_path / "precious"
    other.write_text("precious")
    (tmp_path / "c.svg").symlink_to(other)
    rows = [Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]
    assert b"<svg" in curves(report_of(rows), tmp_path / "c.svg").read_bytes()
    assert other.read_text() == "precious"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.usual("-1")
def test_an_epoch_that_was_cut_leaves_its_validation_out(tmp_path, order):
    pytest.importorskip("matplotlib")
    whole = Row(0, 1, 8, 1, 1.0, {"accuracy": 0.5}, 0.5, {"accuracy": 0.5}, 1, 1.0)
    cut = Row(1, 1, 8, 2, 0.5, {"accuracy": 0.6}, None, {}, 0, 1.0)
    assert curves(report_of([whole, cut][::order]), tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_without_epochs_has_no_curves(tmp_path):
    with pytest.raises(ValueError, match="without epochs"):
        curves(report_of([]), tmp_path / "x.png")


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"mlx-fp\[show\]"):
        curves(report_of([Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]), tmp_path / "x.png")
