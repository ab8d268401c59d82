"""MLX's thread on the core of the thread that feeds it: where both are, that it is undone, and that numbers stay."""

from __future__ import annotations

import os
import sys
import threading
import time

import mlx.core as mx
import pytest
from helpers import outcome
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.cpu import _affinity as cores
from mlx_fp.data import _prefetch as feed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are placed on Linux alone")


def whereabouts():
    """Where the calling thread and the one in which MLX computes for it may run, and how the latter is scheduled."""
    worker = cores._worker()
    return os.sched_getaffinity(0), os.sched_getaffinity(worker), os.sched_getscheduler(worker)


def trained(*verbs):
    x = mx.random.normal((32, 4), key=mx.random.key(0))
    rows = data.arrays(x, (x[:, 0] > 0).astype(mx.int32))
    model = nn.sequential(nn.linear(4, 8), nn.gelu, nn.dropout(0.2), nn.linear(8, 2))
    trainer = pipe(fp.trainer(model, fp.classification()), fp.with_optimizer(optim.adamw(1e-2)), *verbs)
    return pipe(trainer, fp.fit(pipe(rows, data.shuffle(seed=1), data.batch(8)), epochs=2, quiet=True))


def test_within_both_threads_share_the_core_of_the_caller_and_afterwards_all_is_as_before():
    before = whereabouts()
    with fp.cpu.one_core():
        own, worker, policy = whereabouts()
    assert own == worker <= before[0]
    assert (len(own), policy) == (1, os.SCHED_BATCH)
    assert whereabouts() == before


def test_an_exception_within_is_undone_and_goes_on():
    before = whereabouts()
    with pytest.raises(ZeroDivisionError), fp.cpu.one_core():
        1 / 0
    assert whereabouts() == before


def test_one_within_another_changes_nothing():
    before = whereabouts()
    with fp.cpu.one_core():
        outer = whereabouts()
        with fp.cpu.one_core():
            assert whereabouts() == outer
        assert whereabouts() == outer
    assert whereabouts() == before


def test_it_decorates_a_function():
    assert fp.cpu.one_core()(whereabouts)()[2] == os.SCHED_BATCH


def test_a_run_within_ends_with_the_same_bits():
    alone = outcome(trained())
    with fp.cpu.one_core():
        assert outcome(trained()) == alone


def test_each_thread_has_its_own():
    found = []

    def other():
        with fp.cpu.one_core():
            found.append((cores._worker(), whereabouts()))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    ((worker, (own, theirs, policy)),) = found
    assert worker != cores._worker()
    assert (len(own), own, policy) == (1, theirs, os.SCHED_BATCH)


def test_the_right_thread_is_found_among_busy_ones():
    worker, done = cores._worker(), threading.Event()

    def busy():
        while not done.is_set():
            time.sleep(0.0003)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert cores._worker() == worker
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_prefetching_uses_the_cores_that_there_were(monkeypatch):
    monkeypatch.setattr(feed, "_IDLE", [])  # a thread that is started within
    everywhere, seen = os.sched_getaffinity(0), []

    def note(row):
        seen.append((threading.current_thread().name, os.sched_getaffinity(0)))
        return row

    with fp.cpu.one_core():
        list(pipe(data.arrays(mx.arange(3)), data.map(note), data.prefetch(1)))
    assert seen == [("mlx_fp-prefetch", everywhere)] * 3


def test_checkpoints_are_written_on_the_cores_that_there_were(tmp_path):
    everywhere, seen = os.sched_getaffinity(0), []

    def note(event):
        threads = [t for t in threading.enumerate() if t.name.startswith("mlx_fp-checkpoint")]
        seen.extend(os.sched_getaffinity(thread.native_id) for thread in threads)

    with fp.cpu.one_core():
        trained(fp.checkpoints(tmp_path / "{epoch}", background=True), fp.on("after_checkpoint", note))
    assert seen
    assert all(mask == everywhere for mask in seen)


def test_where_mlx_computes_on_a_gpu_nothing_changes(monkeypatch):
    before = whereabouts()
    monkeypatch.setattr("mlx_fp.core._mlx.on_cpu", lambda: False)
    with fp.cpu.one_core():
        assert whereabouts() == before


@pytest.mark.parametrize("refused", ["sched_setaffinity", "sched_setscheduler", "sched_getaffinity"])
def test_where_the_system_refuses_a_warning_says_so_and_nothing_changes(refused, monkeypatch):
    before = whereabouts()

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    @fp.cpu.one_core()
    def within():
        monkeypatch.undo()
        return whereabouts()

    monkeypatch.setattr(os, refused, refuse)
    with pytest.warns(RuntimeWarning, match=r"one_core\(\) has no effect: .*Operation not permitted"):
        assert within() == before
    assert whereabouts() == before


def test_a_fork_leaves_the_threads_of_its_parent_alone():
    with fp.cpu.one_core():
        within, worker = whereabouts(), cores._worker()
        cores._place(os.getpid() + 1, worker, os.sched_getaffinity(os.getppid()), os.SCHED_OTHER)
        assert whereabouts() == within
