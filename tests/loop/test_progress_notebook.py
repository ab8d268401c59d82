"""Progress in a notebook: one output that updates in place, and at the end the report."""

import signal
import sys
import time
import types

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.loop import _progress, _progress_notebook

BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 6
MODEL = fp.trainer(nn.linear(3, 2), fp.classification())


class HTML:
    def __init__(self, data):
        self.data = data


@pytest.fixture
def pages(monkeypatch):
    """The pages of a notebook, in order: one output, which each page replaces."""
    pages = []

    class Handle:
        def update(self, page):
            pages.append(page.data)

    def display(page, display_id):
        assert display_id is True
        assert not pages, "a second output"
        pages.append(page.data)
        return Handle()

    package, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    package.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module.HTML, module.display = HTML, display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(_progress_notebook, "_SECONDS", 0.01)
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    return pages


def slowly(event):
    time.sleep(0.03)


def test_the_report_takes_the_place_of_the_progress(pages, capsys):
    report = pipe(MODEL, fp.on("after_step", slowly), fp.fit(BATCHES, validation=BATCHES[:1], epochs=2))
    assert pages[-1] == report._repr_html_()
    assert "starting" in pages[0]
    assert any("compiling" in page for page in pages)
    assert any('<progress value="4" max="6">' in page and "epoch 1 of 2" in page for page in pages)
    assert any("val_loss" in page and " left" in page for page in pages)
    assert not any("<script" in page for page in pages)
    assert capsys.readouterr().out == ""


def test_an_interrupt_leaves_the_report(pages):
    def interrupt(event):
        if event.step == 3:
            signal.raise_signal(signal.SIGINT)

    report = pipe(MODEL, fp.on("after_step", interrupt), fp.fit(BATCHES, epochs=2))
    assert report.stop_reason == "SIGINT"
    assert pages[-1] == report._repr_html_()
    assert "stopped: SIGINT" in pages[-1]
    assert "0 (cut)" in pages[-1]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_leaves_the_notes_and_its_name(pages, error):
    def fail(event):
        if event.step == 8:
            raise error

    with pytest.raises(error):
        pipe(MODEL, fp.on("after_step", fail), fp.fit(BATCHES, epochs=2))
    assert "epoch 0 of 2" in pages[-1]
    assert f"ended by {error.__name__}" in pages[-1]
    assert "<progress" not in pages[-1]


def test_names_are_no_markup(pages):
    count = fp.Metric("<b>", init=lambda: mx.array(0), update=lambda m, o, x, y: m + 1, value=lambda m: m)
    pipe(MODEL, fp.with_metrics(count), fp.on("after_step", slowly), fp.fit(BATCHES, epochs=2))
    assert any("&lt;b&gt;" in page for page in pages)
    assert not any("<b>" in page for page in pages)


def test_quiet_shows_nothing(pages):
    pipe(MODEL, fp.fit(BATCHES, quiet=True))
    assert pages == []


def test_a_run_leaves_no_thread(pages):
    import threading

    pipe(MODEL, fp.fit(BATCHES))
    assert not [thread for thread in threading.enumerate() if thread.name == "mlx_fp-progress"]


def test_ipython_on_a_terminal_is_no_notebook(pages, capsys):
    sys.modules["IPython"].get_ipython = lambda: types.SimpleNamespace()
    pipe(MODEL, fp.fit(BATCHES))
    assert pages == []
    assert "epoch 0 of 1" in capsys.readouterr().out


def test_the_newest_notes_are_shown(pages):
    pipe(MODEL, fp.on("after_step", slowly), fp.fit(BATCHES[:1], epochs=40, nonfinite="keep"))
    progress = [page for page in pages if "<progress" in page]
    assert max(page.count("rows/s</td>") for page in progress) <= 25
