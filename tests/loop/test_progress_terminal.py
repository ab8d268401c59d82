"""The bar on a terminal: no part of the line is cut, however narrow the terminal is."""

import io

import pytest

from mlx_fp.loop._progress_line import Line

LINE = Line(
    "epoch 1017 of 4000",
    13,
    25,
    ("loss 0.0071", "val_loss 0.0156", "lr 0.01", "7,058 rows/s", "310 KB", "0:07:35 left"),
)


@pytest.mark.parametrize(("width", "lines"), [(160, 1), (100, 2), (80, 2), (50, 3)])
def test_each_part_is_shown_whole_at_each_width(width, lines):
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=width)
    from mlx_fp.loop._progress_terminal import _drawn

    console.print(_drawn(LINE, width))
    text = console.file.getvalue()
    assert all(part in " ".join(text.split()) for part in (LINE.name, LINE.counted, *LINE.figures))
    assert "…" not in text
    assert len(text.splitlines()) == lines
