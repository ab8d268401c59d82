"""Progress: lines in a pipe, a bar on a terminal, nothing when quiet."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

SCRIPT = """
import mlx.core as mx, mlx_fp as fp
from mlx_fp import nn
batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 6
fp.fit(batches, validation=batches[:1], epochs=2, quiet={quiet})(fp.trainer(nn.linear(3, 2), fp.classification()))
"""
ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm", "COLUMNS": "120"}


def run(quiet):
    command = [sys.executable, "-c", SCRIPT.format(quiet=quiet)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENV).stdout


def test_a_pipe_gets_a_line_per_epoch():
    lines = run(quiet=False).splitlines()
    assert [line.split()[:3] for line in lines] == [["epoch", "1/2", "loss"], ["epoch", "2/2", "loss"]]
    assert all("val_accuracy" in line and "examples/s" in line for line in lines)


def test_quiet_is_quiet():
    assert run(quiet=True) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_with_counts_and_loss():
    pytest.importorskip("rich")
    main, other = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", SCRIPT.format(quiet=False)], stdout=other, env=ENV)
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
    assert child.wait() == 0
    text = shown.decode()
    assert "/6" in text  # batches of the epoch
    assert "epoch 2/2  loss" in text


def test_progress_is_hooks_like_any_other():
    from mlx_fp.loop.progress import progress

    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.with_hooks(*progress()))
    assert all(isinstance(h, type(progress()[0])) for h in target.hooks)
