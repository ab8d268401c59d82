"""Progress: lines in a pipe, a bar on a terminal, nothing when quiet; and a run is the same with any of them."""

import io
import os
import pty
import re
import subprocess
import sys

import mlx.core as mx
import pytest
from helpers import child_env, run_python
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

SCRIPT = """
import threading, mlx.core as mx, mlx_fp as fp
from mlx_fp import data, nn
batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 6
model = fp.trainer(nn.linear(3, 2), fp.classification())
"""
TWO_EPOCHS = SCRIPT + "fp.fit(batches, validation=batches[:1], epochs=2, quiet={quiet})(model)"
ENV = {"TERM": "xterm", "COLUMNS": "120"}
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def run(quiet):
    return run_python(TWO_EPOCHS.format(quiet=quiet), **ENV)


def on_terminal(script, cwd=None):
    """What a script writes to a terminal."""
    pytest.importorskip("rich")
    main, other = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", script], stdout=other, env=child_env(**ENV), cwd=cwd)
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert child.wait() == 0
    return shown.decode()


def frames(text):
    """The lines of all that was drawn, without what moves the cursor and colours it."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line.strip() for line in re.split(r"[\r\n]+", plain)]


def counts(text):
    """What the bars of an epoch's batches say, each once, in order."""
    found = [re.match(r"epoch \d+(?: of \d+)? [━╸╺][━╸╺ ]*(\S+)", line) for line in frames(text)]
    return list(dict.fromkeys(match[1] for match in found if match))


def test_a_pipe_gets_a_line_per_epoch():
    first, *lines = [line for line in run(quiet=False).splitlines() if not re.fullmatch(r"compiled \d+ kernels", line)]
    assert first == "compiling"
    assert [line.split("  ")[0] for line in lines] == ["epoch 0 of 2", "epoch 1 of 2"]
    assert all("val_accuracy" in line and "rows/s" in line for line in lines)


def test_quiet_is_quiet():
    assert run(quiet=True) == ""


# on a terminal


def test_a_terminal_gets_a_bar_with_counts_and_loss():
    text = on_terminal(TWO_EPOCHS.format(quiet=False))
    assert counts(text)[0] == "0/6"
    assert counts(text)[-1] == "6/6"
    assert "epoch 1 of 2  loss" in text
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_a_stream_of_unknown_length_has_a_count_without_a_total():
    text = on_terminal(SCRIPT + "fp.fit(data.stream(lambda: iter(batches)))(model)")
    assert (counts(text)[0], counts(text)[-1]) == ("0", "6/6")
    assert all(count.isdigit() for count in counts(text)[:-1])


def test_a_run_resumed_within_an_epoch_has_a_bar_from_there(tmp_path):
    text = on_terminal(
        SCRIPT
        + """
model = fp.checkpoints("ep-{step}")(model)
pause = fp.on("after_step", lambda event: fp.Stop("pause", final=False) if event.step == 3 else None)
fp.fit(batches, quiet=True)(pause(model))
fp.fit(batches, epochs=2, resume="latest")(pause(model))
""",
        cwd=tmp_path,
    )
    shown = counts(text)
    assert shown[0] == "4/6"
    assert "resumed from ep-4.safetensors: goes on after step 4, in epoch 0" in frames(text)
    assert {"6/6", "0/6"} <= set(shown)
    assert [line.split("  ")[0] for line in frames(text) if "accuracy" in line] == ["epoch 0 of 2", "epoch 1 of 2"]


def test_a_terminal_says_what_the_run_does_now(tmp_path):
    text = on_terminal(
        SCRIPT
        + """
import time
from mlx_fp.checkpointing import _writer
write = _writer.prepare_save
_writer.prepare_save = lambda *args, **options: time.sleep(0.3) or write(*args, **options)
slow = fp.on("after_step", lambda event: time.sleep(0.06))
slow_validation = fp.on("after_validation_batch", lambda event: time.sleep(0.3))
model = fp.checkpoints("ep-{epoch}")(slow_validation(slow(model)))
fp.fit(batches * 3, validation=batches[:1])(model)
""",
        cwd=tmp_path,
    )
    lines = frames(text)
    assert any(line.endswith(" 0/18 starting") for line in lines)
    assert any(re.search(r" 1/18 compiling(, \d+ kernels?)?$", line) for line in lines)
    assert any(re.search(r"loss \d\.\d{4}  [\d,]+ rows/s  .*B  0:00:0\d left$", line) for line in lines)
    assert any(line.endswith("validating") and " 18/18 " in line for line in lines)
    assert any(line.endswith("saving") and "val_loss" in line for line in lines)


@pytest.mark.parametrize("event", ["before_epoch", "after_step", "after_epoch", "after_fit"])
def test_a_hook_that_raises_leaves_no_bar_behind(event):
    text = on_terminal(
        SCRIPT
        + f"""
try:
    fp.fit(batches)(fp.on({event!r}, lambda event: 1 / 0)(model))
except ZeroDivisionError:
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    [thread.join(60) for thread in others]
    print("alive:", [thread for thread in others if thread.is_alive()])
"""
    )
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert frames(text[text.rindex(SHOW) :])[-2:] == ["alive: []", ""]


@pytest.mark.parametrize("name", ["iou[car]", "a[/b]", ":smile:"])
def test_names_are_no_markup(name):
    text = on_terminal(
        SCRIPT
        + f"""
count = fp.Metric({name!r}, init=lambda: mx.array(0), update=lambda m, o, x, y: m + 1, value=lambda m: m)
fp.fit(batches)(fp.with_metrics(count)(model))
"""
    )
    assert any(f"  {name} 6.0000  " in line for line in frames(text))


# no part of the run


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


WAYS = {"quiet": (io.StringIO, True), "lines": (io.StringIO, False), "bar": (Terminal, False)}


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """A run with checkpoints, shown one way or another."""
    pytest.importorskip("rich")
    batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 3
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.checkpoints(tmp_path / "ep-{epoch}"))

    def fitted(way, *verbs, **options):
        stdout, quiet = WAYS[way]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout())
            return pipe(target, *verbs, fp.fit(batches, quiet=quiet, **options))

    return fitted


@pytest.mark.parametrize("after", WAYS)
@pytest.mark.parametrize("before", WAYS)
def test_a_resumed_run_may_be_shown_another_way(fit, before, after, caplog):
    first = fit(before, epochs=1)
    again = fit(after, epochs=2, resume="latest")
    assert caplog.records == []
    assert again.rows[0] == first.rows[0]
    assert again.losses == fit("quiet", epochs=2).losses


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_holds_the_hooks_that_were_given(fit, way):
    def seen(event):
        assert event.epoch == 0

    report = fit(way, fp.on("after_epoch", seen))
    assert list(fp.load(report.checkpoints[-1]).metadata["hooks"]) == ["after_epoch seen 1"]


@pytest.mark.parametrize("error", [OSError("no space left"), ValueError("I/O operation on closed file.")])
def test_an_output_that_takes_nothing_does_not_end_a_run(monkeypatch, error):
    class Full(io.StringIO):
        def write(self, text):
            raise error

    monkeypatch.setattr(sys, "stdout", Full())
    report = fp.fit([(mx.ones((4, 3)), mx.zeros((4,), mx.int32))])(fp.trainer(nn.linear(3, 2), fp.classification()))
    assert (report.epochs_completed, report.stop_reason) == (1, None)


def test_another_error_of_progress_ends_the_run_as_one_of_a_hook_does(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise LookupError("no such encoding")

    ends = []
    target = fp.on("after_fit", lambda event: ends.append(event.report.stop_reason))(
        fp.trainer(nn.linear(3, 2), fp.classification())
    )
    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(LookupError, match="no such encoding"):
        fp.fit([(mx.ones((4, 3)), mx.zeros((4,), mx.int32))])(target)
    assert ends == ["LookupError: no such encoding"]
