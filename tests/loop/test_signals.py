"""Ctrl-C and SIGTERM end a run after the step at hand, with a whole report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn

X = mx.random.normal((8, 4), key=mx.random.key(3))
PAIR = (X, (X[:, 0] > 0).astype(mx.int32))
TRAIN = [PAIR] * 4
BOTH = (signal.SIGINT, signal.SIGTERM)


def trainer(*verbs):
    return pipe(fp.trainer(nn.linear(4, 2), fp.classification()), *verbs)


def send(number, *, step, how=signal.raise_signal, times=1):
    """A hook that sends a signal in the middle of a step."""
    return fp.on("after_step", lambda e: [how(number) for _ in range(times)] and None if e.step == step else None)


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.fixture(autouse=True)
def _restored():
    before = handlers()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    yield
    for number, handler in zip(BOTH, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_ends_the_run_after_the_step_at_hand_with_a_whole_report(number):
    ended = []
    target = trainer(send(number, step=5), fp.on("after_fit", lambda e: ended.append(e.report)))
    report = fp.fit(TRAIN, epochs=3, quiet=True)(target)
    assert (report.epochs_completed, report.epochs_ran, report.rows[-1].steps) == (1, 2, 6)
    assert (report.stopped_early, report.stop_reason) == (True, number.name)
    assert len(report.losses) == 6
    assert [one.stop_reason for one in ended] == [number.name]


def test_a_terminal_is_told_that_the_run_stops(monkeypatch):
    pty = pytest.importorskip("pty")
    reader, terminal = pty.openpty()
    monkeypatch.setattr("mlx_fp.loop._signals._STDERR", terminal)
    fp.fit(TRAIN, quiet=True)(trainer(send(signal.SIGINT, step=1)))
    assert b"once more to stop at once" in os.read(reader, 200)


def test_nothing_is_written_by_a_handler_where_nobody_reads(capfd):
    fp.fit(TRAIN, quiet=True)(trainer(send(signal.SIGINT, step=1)))
    assert capfd.readouterr().err == ""


SCRIPT = """
import signal, sys
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn

def speak(event):
    print("step", event.step, flush=True)
    if event.step == 5:
        input()  # by then the reader of the output is gone
        signal.raise_signal(int(sys.argv[2]))
        print("once more", flush=True)

pair = (mx.ones((8, 4)), mx.zeros((8,), mx.int32))
trainer = fp.trainer(nn.linear(4, 2), fp.classification())
trainer = fp.checkpoints(sys.argv[1] + "/step-{step}")(trainer)
if sys.argv[3] != "none":
    trainer = fp.on(sys.argv[3], speak)(trainer)
report = fp.fit([pair] * 20, epochs=2, quiet=sys.argv[4] == "quiet")(trainer)
sys.exit(report.exit_status)
"""


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize("event", ["before_step", "after_step"])
@pytest.mark.parametrize("quiet", ["quiet", "lines"])
@pytest.mark.usual("lines-after_step-15")
def test_a_signal_that_ends_the_reader_of_the_output_too_loses_nothing(tmp_path, number, event, quiet):
    # Unbuffered: Python ends with 120 where its last flush of what it has buffered fails
    arguments = [sys.executable, "-u", "-c", SCRIPT, str(tmp_path), str(int(number)), event, quiet]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(arguments, **pipes) as run:
        for line in iter(run.stdout.readline, b"step 5\n"):
            assert line, "the output has ended"
        run.stdout.close()
        run.stderr.close()
        run.stdin.write(b"\n")
        run.stdin.close()
        assert run.wait(60) == 128 + number
    (saved,) = tmp_path.glob("step-*")
    assert fp.load(saved).metadata["step"] == (5 if event == "before_step" else 6)


def test_an_output_that_nobody_reads_any_more_does_not_end_a_run(tmp_path):
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path), "2", "none", "lines"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        errors = run.stderr.read()
        assert (run.wait(60), errors) == (0, b"")
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-20.safetensors", "step-40.safetensors"]


def test_a_signal_from_another_process_does_too():
    target = trainer(send(signal.SIGTERM, step=1, how=lambda number: os.kill(os.getpid(), number)))
    assert fp.fit(TRAIN, quiet=True)(target).stop_reason == "SIGTERM"


def test_an_interrupted_epoch_is_not_validated_and_gets_no_verdict():
    seen = []
    hooks = [fp.on(name, lambda e, name=name: seen.append(name)) for name in ("before_validation", "after_epoch")]
    report = fp.fit(TRAIN, validation=[PAIR], epochs=3, quiet=True)(trainer(send(signal.SIGINT, step=5), *hooks))
    assert seen == ["before_validation", "after_epoch", "after_epoch"]
    last = report.rows[-1]
    assert (last.val_loss, last.validation_batches, last.monitor_value, last.improved) == (None, 0, None, False)
    assert (report.monitor_name, report.best_epoch) == ("val_accuracy", 0)


def test_a_monitor_that_is_a_function_of_validation_is_not_asked_then():
    watch = fp.monitor("gap", metric=lambda row: row.val_loss - row.epoch_loss)
    report = fp.fit(TRAIN, validation=[PAIR], quiet=True)(trainer(watch, send(signal.SIGINT, step=1)))
    assert (report.stop_reason, report.best_value) == ("SIGINT", None)


def test_a_second_interrupt_ends_at_once():
    steps, ended = [], []
    hooks = (
        fp.on("after_step", lambda e: steps.append(e.step), priority=-1),
        fp.on("after_fit", lambda e: ended.append(e.report.stop_reason)),
    )
    with pytest.raises(KeyboardInterrupt):
        fp.fit(TRAIN, quiet=True)(trainer(send(signal.SIGINT, step=1, times=2), *hooks))
    assert steps == [0, 1]
    assert len(ended) == 1
    assert ended[0].startswith("KeyboardInterrupt")


def test_the_second_signal_does_what_it_did_before():
    got = []
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    report = fp.fit(TRAIN, quiet=True)(trainer(send(signal.SIGTERM, step=1, times=2)))
    assert got == [signal.SIGTERM]
    assert report.stop_reason == "SIGTERM"


def test_a_reason_that_is_there_already_stays():
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == 1 else None)
    assert fp.fit(TRAIN, quiet=True)(trainer(stop, send(signal.SIGINT, step=1))).stop_reason == "enough"


@pytest.mark.parametrize("event", ["before_fit", "before_epoch"])
def test_a_signal_before_the_first_step_trains_nothing(event):
    early = fp.on(event, lambda e: signal.raise_signal(signal.SIGINT))
    report = fp.fit(TRAIN, quiet=True)(trainer(early))
    assert (report.rows, report.losses, report.stop_reason) == ((), (), "SIGINT")


def test_handlers_are_there_during_the_run_and_restored_after_it():
    before, during = handlers(), []
    fp.fit(TRAIN, quiet=True)(trainer(fp.on("after_epoch", lambda e: during.append(handlers()))))
    assert all(now != then for now, then in zip(during[0], before, strict=True))
    assert handlers() == before


def test_handlers_are_restored_after_an_error_too():
    def broken(event):
        raise LookupError

    before = handlers()
    with pytest.raises(LookupError):
        fp.fit(TRAIN, quiet=True)(trainer(fp.on("after_step", broken)))
    assert handlers() == before


def test_off_the_main_thread_signals_are_left_alone():
    before, during, reports = handlers(), [], []
    target = trainer(fp.on("after_epoch", lambda e: during.append(handlers())))
    thread = threading.Thread(target=lambda: reports.append(fp.fit(TRAIN, quiet=True)(target)))
    thread.start()
    thread.join()
    assert during == [before]
    assert reports[0].epochs_completed == 1


def test_a_stream_of_events_installs_no_handler():
    before = handlers()
    run = fp.events(TRAIN, only=("after_step",))(trainer())
    next(run)
    assert handlers() == before
    run.close()


def test_a_second_signal_waits_for_the_checkpoint_that_is_being_written(tmp_path, monkeypatch):
    from mlx_fp.store import _checkpoint as checkpoint

    write = checkpoint.write_whole

    def interrupted(path, content, **options):
        signal.raise_signal(signal.SIGINT)  # the second one comes while the file is written
        return write(path, content, **options)

    cut = fp.on("after_step", lambda e: signal.raise_signal(signal.SIGINT) if e.step == 1 else None)
    batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 4
    target = cut(fp.checkpoints(tmp_path / "{step}")(fp.trainer(nn.linear(3, 2), fp.classification())))
    monkeypatch.setattr(checkpoint, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fp.fit(batches, quiet=True)(target)
    assert fp.load(tmp_path / "2").metadata["cursor"] == {"epoch": 0, "index": 2}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 0)])
def test_a_report_knows_the_exit_status(number, status):
    cut = fp.on("after_step", lambda e: None if number is None else signal.raise_signal(number), once=True)
    batches = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 2
    report = fp.fit(batches, quiet=True)(cut(fp.trainer(nn.linear(3, 2), fp.classification())))
    assert report.exit_status == status


TWICE = """
import signal, sys
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn

number = int(sys.argv[2])
pair = (mx.ones((8, 4)), mx.zeros((8,), mx.int32))
send = lambda event: [signal.raise_signal(number) for _ in range(2)] and None
twice = fp.on(sys.argv[3], send, when=lambda event: event.step == 5)
trainer = twice(fp.checkpoints(sys.argv[1] + "/step-{step}")(fp.trainer(nn.linear(4, 2), fp.classification())))
fp.fit([pair] * 20, epochs=2, quiet=True)(trainer)
"""


@pytest.mark.parametrize("number", BOTH)
@pytest.mark.parametrize(("event", "step"), [("before_step", 5), ("after_backward", 5), ("after_step", 6)])
@pytest.mark.usual("after_step-6-15")
def test_a_second_signal_before_the_save_does_not_lose_it(tmp_path, number, event, step):
    arguments = [sys.executable, "-c", TWICE, str(tmp_path), str(int(number)), event]
    ended = subprocess.run(arguments, capture_output=True, check=False, timeout=60)
    assert ended.returncode in (-number, 128 + number)
    (saved,) = tmp_path.glob("step-*")
    assert fp.load(saved).metadata["step"] == step


def test_the_third_signal_does_not_wait_for_a_file(tmp_path, monkeypatch):
    from mlx_fp.store import _checkpoint as checkpoint

    def stuck(path, content, **options):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the third signal ends this")

    target = fp.checkpoints(tmp_path / "{step}")(trainer(send(signal.SIGINT, step=1)))
    monkeypatch.setattr(checkpoint, "write_whole", stuck)
    with pytest.raises(KeyboardInterrupt):
        fp.fit(TRAIN, quiet=True)(target)


@pytest.mark.parametrize("step", [1, 3])
def test_the_run_is_saved_before_slow_hooks_of_its_end(tmp_path, step):
    there = []
    hook = fp.on("after_epoch", lambda e: there.append(sorted(path.name for path in tmp_path.glob("*.safetensors"))))
    target = trainer(fp.checkpoints(tmp_path / "{step}", every=10), send(signal.SIGTERM, step=step), hook)
    fp.fit(TRAIN, epochs=2, quiet=True)(target)
    assert there == [[f"{step + 1}.safetensors"]]


def test_the_checkpoint_of_a_signal_holds_the_memory_of_hooks_that_heard_of_its_step(tmp_path):
    logged = fp.fold("after_log", 0, lambda count, event: (count + 1, None), name="count")
    target = trainer(fp.checkpoints(tmp_path / "{step}", every=10), send(signal.SIGTERM, step=1), fp.with_hooks(logged))
    fp.fit(TRAIN, log_every=2, quiet=True)(target)
    saved = fp.load(tmp_path / "2").metadata
    assert saved["hooks"]["after_log count 1"]["memory"] == 1


def test_a_signal_after_an_epoch_that_was_not_the_best_loses_none_of_it(tmp_path):
    def worse(event):
        if event.row.epoch == 1:
            signal.raise_signal(signal.SIGTERM)

    watch = fp.monitor("epoch", metric=lambda row: row.epoch)
    kept = fp.checkpoints(tmp_path / "one", best=True, every=None)
    report = fp.fit(TRAIN, epochs=3, quiet=True)(trainer(watch, kept, fp.on("after_epoch", worse)))
    assert (report.best_epoch, report.stop_reason) == (0, "SIGTERM")
    assert fp.load(tmp_path / "one").metadata["step"] == 8
