"""An interrupt at any instant costs a run nothing: it saves and goes on later, or leaves what the caller had."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import bits, numbers, run_call
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop._signals import Signals

pytestmark = pytest.mark.slow

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
EPOCHS = 6


def trainer(*verbs):
    model = nn.sequential(nn.linear(4, 8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))
    optimizer = optim.adamw(optim.cosine_decay(1e-2, 20))
    return pipe(fp.trainer(model, fp.classification()), fp.with_optimizer(optimizer), fp.monitor("val_loss"), *verbs)


def rows():
    x = mx.random.normal((40, 4), key=mx.random.key(3))
    return data.arrays(x=x, y=(x[:, 0] > 0).astype(mx.int32))


def fit(target, epochs=EPOCHS, **options):
    train, held_out = pipe(rows(), data.shuffle(seed=5), data.batch(8)), pipe(rows(), data.batch(8))
    return pipe(target, fp.fit(train, validation=held_out, epochs=epochs, seed=9, quiet=True, **options))


def end(report):
    values = [(one.step, one.val_loss, one.improved) for one in report.evaluations]
    return json.loads(
        json.dumps({"end": numbers(report.params, report.opt_state), "losses": report.losses, "evaluations": values})
    )


# signals


def in_child(work, path, signals=None, delay=0.0):
    """Write what some work gives, from a process of its own that may get a signal a while after it said it begins."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            path.write_text(json.dumps(work(lambda: os.write(writer, b"."))))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(writer)
    os.read(reader, 1)
    time.sleep(delay)
    if signals is not None:
        os.kill(child, signals)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(path.read_text())


def interrupted(folder, begin, accumulate):
    """Train until a signal comes; tell where it came, where the run ended, and which step its newest file is of."""
    came, steps = [], [0]
    first = Signals._first
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # what a signal does that comes before the run or after it

    def noting(self, number, frame):
        came.append(steps[0])
        first(self, number, frame)

    def paced(event):
        steps[0] = event.step + 1
        time.sleep(0.005)

    Signals._first = noting
    begun = fp.on("before_fit", lambda event: begin() and None)
    policy = fp.checkpoints(folder / "s-{step}-{next_epoch}", every=3)
    report = fit(trainer(policy, begun, fp.on("after_step", paced)), accumulate=accumulate)
    saved = [fp.load(file).metadata["step"] for file in folder.glob("*.safetensors")]
    ended = report.rows[-1].steps if report.rows else 0
    return {"came": came, "ended": ended, "saved": max(saved, default=0), "why": report.stop_reason}


def resumed(folder, begin, accumulate):
    begin()
    target = trainer(fp.checkpoints(folder / "s-{step}-{next_epoch}", every=3))
    return end(fit(target, resume="latest", accumulate=accumulate))


def signals_everywhere(folder, seed):
    """Print what became of runs that got a signal at random instants; MLX has not worked in this process before."""
    _ = fp.fit, fp.checkpoints, fp.load, fp.classification, fp.on, optim.adamw
    folder, draw = Path(folder), random.Random(seed)
    alone = {
        n: in_child(lambda begin, n=n: begin() and end(fit(trainer(), accumulate=n)), folder / f"alone-{n}.json")
        for n in (1, 2)
    }
    for i in range(16):
        here, number, n = folder / str(i), (signal.SIGTERM, signal.SIGINT)[i % 2], 1 + i % 4 // 2
        came = in_child(
            lambda begin, here=here, n=n: interrupted(here, begin, n),
            folder / f"{i}.json",
            number,
            draw.uniform(0, 0.15 / n),
        )
        after = in_child(lambda begin, here=here, n=n: resumed(here, begin, n), folder / f"{i}-after.json")
        litter = [path.name for path in here.glob(".*") if path.name != ".mlx_fp.lock"]
        print(json.dumps({**came, "sent": number.name, "same": after == alone[n], "litter": litter}), flush=True)


@POSIX
def test_a_signal_at_any_instant_ends_the_run_within_a_step_with_a_file_to_go_on_from(tmp_path):
    printed = run_call(__file__, f"signals_everywhere({str(tmp_path)!r}, 0)")
    runs = [json.loads(line) for line in printed.splitlines()]
    stopped = [one for one in runs if one["why"] == one["sent"]]
    assert len(stopped) >= 8
    for one in stopped:
        assert one["ended"] <= one["came"][0] + 1, one
        assert one["saved"] == one["ended"], one
    assert all(one["same"] and not one["litter"] for one in runs)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 5), (2, 3)])
@pytest.mark.parametrize(
    "event", ["before_validation", "after_validation_batch", "after_validation", "after_evaluation", "after_epoch"]
)
def test_a_signal_after_the_last_step_of_an_epoch_does_not_lose_the_epoch(event, accumulate, steps, tmp_path):
    alone = end(fit(trainer(), accumulate=accumulate))
    once = fp.on(event, lambda e: signal.raise_signal(signal.SIGTERM), once=True)
    policy = fp.checkpoints(tmp_path / "{step}", every=100)
    report = fit(trainer(once, policy), accumulate=accumulate)
    assert (report.stop_reason, report.rows[-1].steps) == ("SIGTERM", steps)
    assert [fp.load(path).metadata["step"] for path in tmp_path.glob("*.safetensors")] == [steps]
    assert end(fit(trainer(policy), resume="latest", accumulate=accumulate)) == alone


# at any line


def passed(work, files="mlx_fp", at=0, act=lambda: None):
    """Do some work and return the lines that it ran of files of a name, in order; act at the one of a number from 1."""
    seen = []

    def trace(frame, event, arg):
        if files not in frame.f_code.co_filename:
            return None
        if event == "line":
            seen.append((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == at:
                act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


def interrupt():
    raise KeyboardInterrupt


def at_line(number, work):
    """Do some work, and interrupt it at the so-manieth line of mlx_fp."""
    with suppress(KeyboardInterrupt):
        passed(work, at=number, act=interrupt)


def lines(work, count, seed):
    """Draw so many of the lines that some work runs, or all if there are fewer."""
    every = range(1, len(passed(work)) + 1)
    return random.Random(seed).sample(every, min(count, len(every)))


@pytest.fixture
def harmless():
    """Have SIGTERM do nothing before a run and after it."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("_run.py", {}),
        ("_driving.py", {}),
        ("_training.py", {}),
        ("_training.py", {"accumulate": 2, "validate_every": 2}),
        ("_stepping.py", {"accumulate": 2}),
        ("_validation.py", {"validate_every": 2}),
        ("_checkpointing.py", {}),
        ("_dispatching.py", {}),
    ],
)
def test_a_signal_at_any_line_of_the_loop_ends_the_run_with_a_file_to_go_on_from(file, options, tmp_path, harmless):
    def train(folder, **more):
        target = trainer(fp.checkpoints(folder / "s-{step}-{next_epoch}", every=9))
        return fit(target, epochs=2, **options, **more)

    alone, loop = end(train(tmp_path / "alone")), f"{os.sep}loop{os.sep}{file}"
    ran = passed(lambda: train(tmp_path / "lines"), loop)
    last = {line: number for number, line in enumerate(ran, 1)}
    first = {line: number for number, line in reversed([*enumerate(ran, 1)])}
    for number in sorted({*first.values(), *last.values()}):
        folder, kept = tmp_path / str(number), []
        passed(lambda f=folder, k=kept: k.append(train(f)), loop, number, lambda: signal.raise_signal(signal.SIGTERM))
        ended = kept[0].rows[-1].steps if kept[0].rows else 0
        saved = [fp.load(path).metadata["step"] for path in folder.glob("*.safetensors")]
        assert kept[0].stop_reason is None or max(saved, default=0) == ended, ran[number - 1]
        assert end(train(folder, resume="latest")) == alone, ran[number - 1]


# an exception at any line


def test_an_interrupt_at_any_line_of_a_step_leaves_what_went_in_and_the_next_step_is_the_same():
    target = trainer()
    step = fp.train_step(target.model, target.task.loss, target.optimizer)
    batch = next(iter(data.batch(8)(rows())))
    batch = (batch["x"], batch["y"])
    params, state = step.init(9)
    params, state, _ = step(params, state, batch)
    before, wanted = bits([params, state]), bits(step(params, state, batch))
    for number in lines(lambda: step(params, state, batch), 30, seed=1):
        at_line(number, lambda: step(params, state, batch))
        assert bits([params, state]) == before
        assert bits(step(params, state, batch)) == wanted


def test_an_interrupt_at_any_line_of_the_first_step_does_not_spoil_the_compiled_function():
    target = trainer()
    batch = next(iter(data.batch(8)(rows())))
    batch = (batch["x"], batch["y"])

    def made():
        step = fp.train_step(target.model, target.task.loss, target.optimizer)
        return step, *step.init(9)

    step, params, state = made()
    wanted = bits(step(params, state, batch))

    def first():
        step, params, state = made()
        step(params, state, batch)

    for number in lines(first, 30, seed=2):
        step, params, state = made()
        at_line(number, lambda step=step, params=params, state=state: step(params, state, batch))
        assert bits(step(params, state, batch)) == wanted


def test_an_interrupted_run_lets_its_folder_go_at_once(tmp_path):
    """Without the garbage collector, which may come late."""

    def interrupted(event):
        raise KeyboardInterrupt

    def writers():
        return [one for one in gc.get_objects() if type(one).__name__ == "Writer" and one.policy.folder == tmp_path]

    policy = fp.checkpoints(tmp_path / "{epoch}")
    gc.disable()
    try:
        with suppress(KeyboardInterrupt):
            fit(trainer(policy, fp.on("after_step", interrupted)))
        assert writers() == []
    finally:
        gc.enable()


def test_an_interrupt_at_any_line_of_fit_leaves_the_callers_parameters(tmp_path):
    target, handler, threads = trainer(fp.checkpoints(tmp_path / "{epoch}")), signal.getsignal(signal.SIGINT), 0
    params = nn.init(4)(target.model)
    before, wanted = bits(params), end(fit(target, epochs=2, params=params))
    for number in lines(lambda: fit(target, epochs=2, params=params), 60, seed=3):
        threads = threading.active_count()
        try:
            at_line(number, lambda: fit(target, epochs=2, params=params))
        finally:
            signal.signal(signal.SIGINT, handler)
        assert bits(params) == before
        assert threading.active_count() == threads
    assert end(fit(target, epochs=2, params=params)) == wanted
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".mlx_fp.lock"]
