"""Pictures of confusion matrices."""

import mlx.core as mx
import pytest
from helpers import report_of
from pages import run_of

from mlx_fp.loop._rows import Row
from mlx_fp.show import confusion

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("given", [run_of(), [[8, 2], [1, 9]], mx.array([[8, 2], [1, 9]])])
def test_a_matrix_has_its_counts_and_the_shares_of_the_labels(given):
    axes = confusion(given).axes[0]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "1", "9"]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [0.1, 0.9]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "label")


def test_the_matrix_of_the_best_epoch_is_drawn():
    rows = [Row(e, 1, 8, e + 1, 1.0, {}, 1.0, {"confusion": [[e, 0], [0, e]]}, 1, 1.0) for e in range(3)]
    axes = confusion(report_of(rows, best_epoch=1)).axes[0]
    assert (axes.get_title(), axes.texts[0].get_text()) == ("val_confusion", "1")


def test_a_picture_is_a_file(tmp_path):
    assert confusion([[1, 0], [0, 0]], tmp_path / "new" / "c") == tmp_path / "new" / "c.png"
    assert confusion([[1] * 40] * 40, tmp_path / "d.png").exists()


def test_a_report_without_a_matrix_says_how_to_measure_one():
    with pytest.raises(ValueError, match="fp.metrics.confusion"):
        confusion(report_of([Row(0, 1, 8, 1, 1.0, {}, None, {}, 0, 1.0)]))
    with pytest.raises(ValueError, match="matrix"):
        confusion([[1, 2, 3], [4, 5, 6]])
