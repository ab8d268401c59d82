"""Ctrl-C ends the compiler of MLX's kernels, too. The run ends after its step all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import mlx.core as mx
import pytest
from helpers import assert_same_bits, child_env
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

POSIX = pytest.mark.skipif(sys.platform != "linux", reason="needs the compiler of MLX's Linux build")
X = mx.random.normal((8, 4), key=mx.random.key(3))
TRAIN = [(X, (X[:, 0] > 0).astype(mx.int32))] * 4
UNBUILT = "[Compile::eval_cpu] Failed to compile function Abs: Failed to execute command with return code 130"


def run(**options):
    return pipe(fp.trainer(nn.linear(4, 2), fp.classification()), fp.fit(TRAIN, quiet=True, seed=0, **options))


@pytest.fixture
def interrupted(monkeypatch):
    """Let the compiler fail in a step, and let signals come at the same time; return the function that says where."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it

    def at(name, call, signals):
        evaluate, calls = getattr(mx, name), []

        def fails(*trees):
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # within the run
                calls.append(trees)
            if len(calls) == call:
                calls.append(())
                for _ in range(signals):
                    signal.raise_signal(signal.SIGINT)
                raise RuntimeError(UNBUILT)
            evaluate(*trees)

        monkeypatch.setattr(mx, name, fails)

    yield at
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("compile", [True, False])
def test_a_run_ends_after_the_step_in_which_a_signal_has_ended_the_compiler(interrupted, compile):
    whole = run(epochs=1, compile=compile)
    interrupted("async_eval", len(TRAIN), 1)
    report = run(epochs=3, compile=compile)
    assert (report.stop_reason, report.rows[-1].steps) == ("SIGINT", len(report.losses))
    assert report.losses == whole.losses[: len(report.losses)]


def test_the_parameters_are_those_of_a_run_without_the_error(interrupted):
    interrupted("eval", 4, 1)
    report = run(epochs=3, sync="step")
    assert report.stop_reason == "SIGINT"
    assert_same_bits(report.params, run(steps=report.rows[-1].steps).params)


def test_a_second_signal_raises(interrupted):
    interrupted("async_eval", 3, 2)
    with pytest.raises(KeyboardInterrupt):
        run(epochs=3)


def test_an_error_of_the_compiler_without_a_signal_ends_no_run(interrupted):
    interrupted("async_eval", 3, 0)
    assert run(epochs=3).stop_reason is None


SCRIPT = """
import signal, sys
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn

signal.signal(signal.SIGINT, signal.default_int_handler)
pair = (mx.ones((8, 4)), mx.zeros((8,), mx.int32))
trainer = fp.trainer(nn.linear(4, 2), fp.classification())
if sys.argv[1] != "none":
    trainer = fp.checkpoints(sys.argv[1] + "/step-{step}")(trainer)
report = fp.fit([pair] * 4, validation=[pair], epochs=10**6)(trainer)
print("ended by", report.stop_reason, "after", report.rows[-1].steps, flush=True)
"""


def interrupt_group(folder, checkpoints, seconds, signals):
    """Run the script without kernels in a process group, and interrupt the group. Return its status and its output."""
    env = child_env(TMPDIR=str(folder), MLX_FP_JIT=None)
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-u", "-c", SCRIPT, checkpoints]
    with subprocess.Popen(command, env=env, text=True, start_new_session=True, **pipes) as process:

        def interrupt():
            for _ in range(signals):
                time.sleep(seconds)
                os.killpg(process.pid, signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        for line in process.stdout:
            if line.startswith("compiling"):
                interrupter.start()
                break
        output, errors = process.communicate(timeout=300)
        interrupter.join()
    return process.returncode, output, errors


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0])
def test_ctrl_c_while_kernels_compile_ends_the_run_with_its_report(tmp_path, seconds):
    status, output, errors = interrupt_group(tmp_path, str(tmp_path), seconds, 1)
    assert (status, errors) == (0, "")
    steps = int(output.rpartition("ended by SIGINT after ")[2])
    assert steps in [fp.load(path).metadata["step"] for path in tmp_path.glob("step-*")]
    assert not list(tmp_path.glob(".*mlx_fp-tmp"))


@POSIX
@pytest.mark.slow
def test_two_ctrl_c_while_kernels_compile_raise(tmp_path):
    status, _, errors = interrupt_group(tmp_path, "none", 0.5, 2)
    assert status == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
