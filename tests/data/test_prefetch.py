"""Reading ahead: in order, no further than said, and over when its reader is."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_same_bits, child_env, python_process, read
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor, _prefetch

SOON = 30
"""Seconds after which something that must happen will not."""


class Watched:
    """A stream of numbers that lists those pulled, sets an event at one of them, and knows how many are open."""

    def __init__(self, size=20, at=None):
        self.size, self.at, self.pulled, self.opened, self.reached = size, at, [], 0, Event()

    def dataset(self):
        def rows():
            self.opened += 1
            try:
                for row in range(self.size):
                    self.pulled.append(row)
                    if row == self.at:
                        self.reached.set()
                    yield row
            finally:
                self.opened -= 1

        return data.stream(rows)


def ran(code, **env):
    done = python_process(code, timeout=SOON, **env)
    assert done.stderr == ""
    return done.stdout.split()


# order and place


@pytest.mark.parametrize("n", [1, 2, 50])
def test_items_come_in_order(n):
    assert read(pipe(data.stream(lambda: iter(range(30))), data.prefetch(n))) == list(range(30))
    assert read(pipe(data.source([]), data.prefetch(n))) == []


@pytest.mark.parametrize(
    "before",
    [
        pipe(data.source(range(9)), data.shuffle(seed=1), data.batch(2), data.map(lambda batch: batch.tolist())),
        data.stream(lambda epoch: iter(range(epoch, epoch + 5))),
        pipe(data.source(range(12)), data.filter(lambda n: n % 3)),
    ],
    ids=repr,
)
def test_from_every_cursor_on_comes_what_was_left(before):
    dataset = data.prefetch(3)(before)
    for epoch in (0, 2):
        whole = read(before, epoch)
        for index in range(len(whole) + 2):
            assert read(dataset, epoch, index) == whole[index:]


def test_a_cursor_is_sought_without_reading():
    taps = []
    dataset = pipe(data.source(range(100)), data.tap(taps.append), data.prefetch(2))
    assert read(dataset, 0, 97) == [97, 98, 99]
    assert taps == [97, 98, 99]


def test_operations_may_follow():
    dataset = pipe(data.source(range(9)), data.prefetch(2), data.map(lambda n, index: (n, index)), data.take(2))
    assert list(dataset) == [(0, 0), (1, 1)]


def test_it_reads_like_its_call_and_keeps_len():
    dataset = pipe(data.source("abc"), data.prefetch())
    assert (repr(dataset), len(dataset)) == ("pipe(source(str of 3), prefetch(2))", 3)


@pytest.mark.parametrize("n", [0, -1, 1.5, None, True])
def test_a_bad_n_is_refused_at_once(n):
    with pytest.raises(ValueError, match=r"the n of prefetch\(n\) must be an integer of at least 1; got"):
        data.prefetch(n)


# how far ahead


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("taken", [1, 4])
def test_so_many_items_are_read_ahead_and_no_more(taken, ahead):
    source = Watched(at=taken + ahead - 1)
    reader = pipe(source.dataset(), data.prefetch(ahead)).open()
    for _ in range(taken):
        next(reader)
    assert source.reached.wait(SOON)
    reader.close()
    assert source.pulled == list(range(taken + ahead))


def test_nothing_is_read_before_the_first_item_is_asked_for():
    source = Watched()
    reader = pipe(source.dataset(), data.prefetch(2)).open()
    reader.close()
    assert source.pulled == []


def test_the_next_item_is_read_while_the_one_before_is_in_use():
    in_use = Event()
    got = []

    def rows():
        yield "first"
        got.append(in_use.wait(SOON))
        yield "second"

    reader = pipe(data.stream(rows), data.prefetch(1)).open()
    assert next(reader) == "first"
    in_use.set()
    assert next(reader) == "second"
    assert got == [True]


def test_reading_goes_on_with_nobody_asking():
    source = Watched(at=2)
    reader = pipe(source.dataset(), data.prefetch(2)).open()
    assert next(reader) == 0
    assert source.reached.wait(SOON)
    assert list(reader) == list(range(1, 20))


def test_what_comes_before_runs_in_one_other_thread():
    threads = set()
    read(pipe(data.source(range(9)), data.map(lambda n: threads.add(threading.get_ident())), data.prefetch(3)))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_no_threads_are_made_over_many_epochs():
    threads = set()
    dataset = pipe(data.source(range(5)), data.tap(lambda n: threads.add(threading.get_ident())), data.prefetch(2))
    read(dataset)
    before = threading.active_count()
    for epoch in range(200):
        read(dataset, epoch)
    assert threading.active_count() == before
    assert len(threads) == 1


# errors


def test_an_error_comes_at_its_item_with_its_class_and_its_note():
    def fragile(n):
        return 6 // (n - 3)

    reader = pipe(data.source(range(9)), data.map(fragile), data.prefetch(4)).open(Cursor(2))
    assert [next(reader) for _ in range(3)] == [-2, -3, -6]
    with pytest.raises(ZeroDivisionError, match=r"^integer") as error:
        next(reader)
    assert error.value.__notes__ == ["at operation=map(fragile), split=train, epoch=2, index=3"]
    assert list(reader) == []


def test_the_epoch_after_an_error_is_read_as_ever():
    busy = {2}

    def fragile(n):
        if n in busy:
            raise OSError("busy")
        return n

    dataset = pipe(data.source(range(4)), data.map(fragile), data.prefetch(2))
    with pytest.raises(OSError, match="busy"):
        read(dataset)
    busy.clear()
    assert read(dataset) == [0, 1, 2, 3]


def test_an_error_of_a_factory_comes_out_as_itself():
    def factory():
        raise LookupError("no shard")

    with pytest.raises(LookupError, match="no shard") as error:
        read(pipe(data.stream(factory), data.prefetch(2)))
    assert error.value.__notes__ == ["at operation=stream(factory), split=train, epoch=0, index=0"]


def test_an_error_of_evaluating_says_where():
    """An array put off in one thread cannot be evaluated in another, and nobody sees what a function holds."""
    rows = [mx.zeros(2), mx.zeros(2) + 1]
    mx.eval(rows[0])
    with pytest.raises(RuntimeError, match="no Stream") as error:
        read(pipe(data.source(range(2)), data.map(lambda i: rows[i]), data.prefetch(1)), 3)
    assert error.value.__notes__ == ["at operation=prefetch(1), split=train, epoch=3, index=1"]


# its end


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_closes_the_source(taken):
    source = Watched()
    reader = pipe(source.dataset(), data.map(str), data.prefetch(2)).open()
    for _ in range(taken):
        next(reader)
    assert source.opened == 1
    reader.close()
    assert source.opened == 0
    assert len(source.pulled) <= taken + 2


def test_a_forgotten_reader_closes_the_source():
    source = Watched()
    next(pipe(source.dataset(), data.prefetch(2)).open())
    assert source.opened == 0


def test_closing_waits_for_the_item_at_hand_and_reads_no_other():
    at_hand, go, log = Event(), Event(), []

    def rows():
        try:
            yield 0
            at_hand.set()
            log.append(go.wait(SOON))
            yield 1
            log.append("more")
        finally:
            log.append("closed")

    reader = pipe(data.stream(rows), data.prefetch(3)).open()
    next(reader)
    assert at_hand.wait(SOON)
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(reader.close)
        assert not closing.done()
        go.set()
        closing.result(SOON)
    assert log == [True, "closed"]


def test_a_source_is_closed_when_an_operation_before_raises():
    source = Watched()
    with pytest.raises(ZeroDivisionError):
        read(pipe(source.dataset(), data.map(lambda n: 1 // (n - 4)), data.prefetch(2)))
    assert source.opened == 0


def test_a_source_is_closed_when_its_user_fails():
    source = Watched()
    reader = pipe(source.dataset(), data.prefetch(2)).open()
    next(reader)
    with pytest.raises(KeyError):
        reader.throw(KeyError("elsewhere"))
    assert source.opened == 0


def test_a_reader_that_is_left_does_not_keep_the_interpreter():
    code = """
from itertools import count
from toolz import pipe
from mlx_fp import data
reader = pipe(data.stream(count), data.map(lambda n: n * n), data.prefetch(4)).open()
print(next(reader), next(reader))
"""
    assert ran(code) == ["0", "1"]


def test_a_reader_that_is_left_while_it_computes_does_not_crash_the_interpreter():
    code = """
from itertools import count
import mlx.core as mx
from toolz import pipe
from mlx_fp import data
x = mx.ones((200, 200))
mx.eval(x)
reader = pipe(data.stream(count), data.map(lambda n: x @ x + n), data.prefetch(20)).open()
print(next(reader)[0, 0].item())
"""
    assert ran(code) == ["200.0"]


def test_a_reader_that_is_garbage_is_collected_and_leaves_its_thread_to_others():
    code = """
import gc
from itertools import count
from toolz import pipe
from mlx_fp import data
dataset = pipe(data.stream(count), data.prefetch(2))
cycle = {"reader": dataset.open()}
cycle["itself"] = cycle
next(cycle["reader"])
del cycle
print(gc.collect() > 0, next(dataset.open()))
"""
    assert ran(code) == ["True", "0"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the source is closed a little later
def test_a_reader_collected_in_its_own_thread_ends():
    left, collected = Event(), Event()

    def collect(n):
        if n == 2:
            left.wait(SOON)
            gc.collect()
            collected.set()
        return n

    cycle = {"reader": pipe(data.source(range(9)), data.map(collect), data.prefetch(2)).open()}
    cycle["itself"] = cycle
    next(cycle["reader"])
    gc.disable()
    try:
        del cycle
        left.set()
        assert collected.wait(SOON)
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_of_a_process_that_read_ahead_reads_ahead():
    code = """
import os
from toolz import pipe
from mlx_fp import data
dataset = pipe(data.source("ab"), data.prefetch(2))
list(dataset)
child = os.fork()
if child:
    os.waitpid(child, 0)
print(*dataset, flush=True)
if not child:
    os._exit(0)
"""
    quiet = "ignore:This process:DeprecationWarning"  # Python 3.12 warns of each fork beside a thread
    assert ran(code, PYTHONWARNINGS=quiet) == ["a", "b", "a", "b"]


# a source that gives nothing more

BLOCKED = """
import signal, sys, threading
import mlx.core as mx

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
from toolz import pipe
import mlx_fp as fp
from mlx_fp import data, nn

def rows():
    yield mx.ones((4, 2))
    print("blocked", flush=True)
    threading.Event().wait()
    yield mx.ones((4, 2))

train = pipe(data.stream(rows), data.prefetch(2))
"""
ENDS = {
    "a loop": "for batch in train: pass",
    "a loop that is busy": "for batch in train: threading.Event().wait()",
    "fit": """
trainer = fp.trainer(nn.linear(2, 1), lambda model, x: model(x).mean())
fp.fit(train, epochs=1, quiet=True)(fp.checkpoints(sys.argv[1] + "/ep-{epoch}")(trainer))
""",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.usual("a loop-2", "a loop-15", "a loop that is busy-2", "a loop that is busy-15")
def test_one_signal_ends_a_process_whose_source_is_blocked(tmp_path, end, number):
    command = [sys.executable, "-c", BLOCKED + ENDS[end], str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_env())
    try:
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(number)
        _, told = process.communicate(timeout=SOON)
    finally:
        process.kill()
    stopped = (0,) if end == "fit" else ()  # where the step was still at hand
    assert process.returncode in (-number, 128 + number, *stopped), told
    assert "already executing" not in told
    if end == "fit":
        assert fp.load(tmp_path / "ep-0").metadata["step"] == 1


def test_closing_a_reader_whose_source_is_blocked_waits_for_a_while_and_leaves_it(monkeypatch):
    monkeypatch.setattr(_prefetch, "_CLOSE_TIMEOUT", 0.05)
    go, closed = Event(), Event()

    def rows():
        try:
            yield 0
            go.wait(SOON)
            yield 1
        finally:
            closed.set()

    dataset = pipe(data.stream(rows), data.map(str), data.prefetch(2))
    reader = dataset.open()
    assert next(reader) == "0"
    reader.close()
    assert not closed.is_set()
    go.set()
    assert closed.wait(SOON)  # by its thread, when the item has come
    assert read(dataset) == ["0", "1"]


def test_an_item_that_takes_long_comes_and_so_does_its_own_timeout(monkeypatch):
    monkeypatch.setattr(_prefetch, "_POLL_INTERVAL", 0.01)

    def slow(n):
        Event().wait(0.1)
        if n == 2:
            raise TimeoutError("no answer")
        return n

    reader = pipe(data.source(range(4)), data.map(slow), data.prefetch(1)).open()
    assert [next(reader), next(reader)] == [0, 1]
    with pytest.raises(TimeoutError, match="no answer"):
        next(reader)


# several at once


def test_two_readers_at_once_do_not_disturb_each_other():
    one = pipe(data.stream(lambda: iter(range(50))), data.prefetch(3))
    other = pipe(data.stream(lambda: iter("abcde" * 10)), data.prefetch(1))
    assert list(data.zip(one, other)) == list(zip(range(50), "abcde" * 10, strict=True))
    assert list(zip(one, one, strict=True)) == [(i, i) for i in range(50)]


def test_prefetches_nest():
    threads = [set(), set()]

    def seen(i):
        return data.tap(lambda n: threads[i].add(threading.get_ident()))

    source = Watched(size=40)
    dataset = pipe(source.dataset(), seen(0), data.prefetch(2), seen(1), data.prefetch(3))
    assert read(dataset) == list(range(40))
    assert threads[0] != threads[1]
    reader = dataset.open()
    next(reader)
    reader.close()
    assert source.opened == 0


def test_an_error_comes_through_nested_prefetches():
    dataset = pipe(data.source(range(5)), data.prefetch(2), data.map(lambda n: 1 // (n - 3)), data.prefetch(2))
    reader = dataset.open()
    assert [next(reader) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError) as error:
        next(reader)
    assert error.value.__notes__ == ["at operation=map(<lambda>), split=train, epoch=0, index=3"]


# arrays


def test_arrays_come_evaluated_however_deep_they_are():
    def lazy(n):
        x = mx.full((3,), n)
        return {"x": x * 2, "nested": (mx.exp(x - x), [x + 1], "text", None)}

    batches = read(pipe(data.source(range(3)), data.map(lazy), data.prefetch(2)))
    assert [batch["x"].tolist() for batch in batches] == [[0, 0, 0], [2, 2, 2], [4, 4, 4]]
    assert batches[2]["nested"][0].tolist() == [1, 1, 1]
    assert batches[2]["nested"][1][0].tolist() == [3, 3, 3]
    assert (batches[0]["x"] + batches[1]["x"]).sum().item() == 6


def test_columns_that_were_put_off_may_be_read_in_the_thread():
    x = mx.arange(6) * 2
    batches = read(pipe(data.arrays(x=x), data.shuffle(seed=0), data.batch(4), data.prefetch(1)))
    assert sorted(mx.concatenate([batch["x"] for batch in batches]).tolist()) == [0, 2, 4, 6, 8, 10]


def doubled(row):
    return mx.concatenate([row, row])


def test_rows_that_were_put_off_may_be_read_in_the_thread():
    rows = [{"x": mx.arange(3) * n, "more": (mx.ones(2) * n, "text")} for n in range(3)]
    batches = read(
        pipe(data.source(rows), data.batch(2), data.map(lambda b: b["x"] + b["more"][0].sum()), data.prefetch())
    )
    assert [batch.tolist() for batch in batches] == [[[2, 2, 2], [2, 3, 4]], [[4, 6, 8]]]


@pytest.mark.parametrize(
    "take", [data.source, data.as_dataset, data.concat, lambda rows: data.splits(train=rows).train]
)
@pytest.mark.parametrize("make", [list, tuple, mx.stack], ids=["list", "tuple", "array"])
def test_whatever_takes_rows_in_takes_those_that_were_put_off(make, take):
    rows = make([mx.ones(2) * n for n in range(2)])
    assert [row.tolist() for row in pipe(take(rows), data.map(doubled), data.prefetch())] == [[0] * 4, [1] * 4]


def test_a_cache_filled_in_one_thread_is_read_in_another():
    kept = pipe(data.source(range(3)), data.map(lambda n: mx.ones(2) * n), data.cache(), data.map(doubled))
    ahead = data.prefetch(2)(kept)
    assert [row.tolist() for row in [*kept, *ahead, *kept]] == [[0] * 4, [1] * 4, [2] * 4] * 3


def test_a_cache_filled_in_the_thread_is_read_without_it():
    made = data.map(lambda n: {"used": mx.ones(2) * n, "unused": mx.ones(2) + n})
    kept = pipe(data.source(range(2)), made, data.cache())
    read(pipe(kept, data.map(lambda row: row["used"]), data.prefetch(2)))
    assert [row["unused"].tolist() for row in kept] == [[1, 1], [2, 2]]


def test_fit_reads_ahead_a_list_of_batches_that_were_put_off():
    x = mx.random.normal((64, 4), key=mx.random.key(2))
    y = (x[:, 0] > 0).astype(mx.int32)
    trainer = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), fp.with_optimizer(optim.adam(0.01)))
    runs = []
    for ahead in ([], [data.prefetch(2)]):
        train = pipe(data.source([(x[i : i + 16] * 2, y[i : i + 16]) for i in range(0, 64, 16)]), *ahead)
        runs.append(fp.fit(train, epochs=2, seed=4, quiet=True)(trainer))
    assert runs[0].losses == runs[1].losses
    assert len(runs[1].losses) == 8


def test_random_keys_are_the_same_in_the_thread():
    noise = pipe(data.source([0.0] * 4), data.map(lambda x, key: x + mx.random.normal(key=key), key=5))
    assert [x.item() for x in data.prefetch(2)(noise)] == [x.item() for x in noise]


def test_reading_ahead_leaves_the_random_stream_of_its_reader_alone():
    mx.random.seed(1)
    before = mx.random.state[0].tolist()
    read(pipe(data.source(range(4)), data.map(lambda n: mx.random.normal((2,))), data.prefetch(2)))
    assert mx.random.state[0].tolist() == before


@pytest.mark.parametrize("library", [mx.array, np.array], ids=["mlx", "numpy"])
@pytest.mark.usual("numpy")
def test_fit_gives_the_same_bits_with_and_without(library):
    x = mx.random.normal((64, 4), key=mx.random.key(2))
    train = pipe(
        data.arrays(x=library(x), y=library((x[:, 0] > 0).astype(mx.int32))),
        data.shuffle(seed=1),
        data.batch(16),
        data.map(lambda batch: {**batch, "x": batch["x"] * 2}),
    )
    model = nn.sequential(nn.linear(4, 8), nn.dropout(0.2), nn.linear(8, 2))
    trainer = pipe(fp.trainer(model, fp.classification()), fp.with_optimizer(optim.adam(0.01)))
    runs = [
        fp.fit(dataset, validation=dataset, epochs=3, seed=4, quiet=True)(trainer)
        for dataset in (train, data.prefetch(3)(train))
    ]
    assert runs[0].losses == runs[1].losses
    assert_same_bits(*(run.params for run in runs))


def test_rows_are_read_ahead_without_mlx():
    code = """
import sys
sys.modules["mlx"] = sys.modules["mlx.core"] = None
from toolz import pipe
from mlx_fp import data
print(*pipe(data.source("abc"), data.prefetch(2)))
"""
    assert ran(code) == ["a", "b", "c"]
