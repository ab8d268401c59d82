"""A cache on disk: computed once, read by index in every later run, and never taken for that of another pipeline."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_same_bits, child_env, plain, read, spawned, visible
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import _cache_file
from mlx_fp.data._fingerprint import fingerprint


def squares(n):
    return {"n": n, "row": np.full(n % 5, n, np.int32), "x": mx.array([n, n * n], mx.float32)}


def cached(path, size=20, calls=None, **options):
    """A dataset of rows of different lengths behind a cache; `calls` lists the rows that were computed."""
    return pipe(
        data.source(range(size)),
        data.map(lambda n: ([] if calls is None else calls).append(n) or squares(n)),
        data.cache(path, **options),
    )


def test_items_are_computed_once_and_come_back_exactly(tmp_path):
    path, calls = tmp_path / "deep" / "rows", []
    first = cached(path, calls=calls)
    assert not path.exists()
    assert_same_bits(list(first), [squares(n) for n in range(20)])
    assert_same_bits(list(first), [squares(n) for n in range(20)])
    again = cached(path, calls=calls)
    assert_same_bits(read(again, epoch=3, index=7), [squares(n) for n in range(7, 20)])
    assert calls == list(range(20))
    assert sorted(os.listdir(path.parent)) == ["rows"]
    assert repr(again) == f"pipe(source(range of 20), map(<lambda>), cache({os.fspath(path)!r}))"


def test_after_a_cache_the_pipe_has_indices_again_and_seeks(tmp_path):
    calls = []
    flow = pipe(
        cached(tmp_path / "rows", calls=calls), data.shuffle(seed=5), data.map(lambda row: row["n"]), data.batch(4)
    )
    list(flow)
    whole = read(flow, epoch=2)
    rest = read(flow, epoch=2, index=3)
    assert_same_bits(rest, whole[3:])
    assert sorted(np.concatenate(whole).tolist()) == list(range(20))
    assert len(calls) == 20
    assert [len(part) for part in pipe(cached(tmp_path / "rows", calls=calls), data.split((0.5, 0.5), seed=1))] == [
        10,
        10,
    ]


def test_a_row_is_read_alone(tmp_path, monkeypatch):
    list(cached(tmp_path / "rows"))
    dataset, reads = cached(tmp_path / "rows"), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args[1]) or pread(*args))
    rows = list(pipe(dataset, data.shuffle(seed=1), data.take(2)))
    assert len(rows) == len(reads) == 2
    assert max(reads) < 100 < (tmp_path / "rows").stat().st_size


def test_an_item_may_be_changed_in_place(tmp_path):
    def change(row):
        row["row"] += 1
        row["n"] = 0
        return row

    changed = pipe(cached(tmp_path / "rows"), data.map(change))
    assert plain(list(changed)) == plain(list(changed))
    assert_same_bits(list(cached(tmp_path / "rows")), [squares(n) for n in range(20)])


def test_the_size_is_known_where_the_file_is(tmp_path):
    odd = pipe(data.source(range(9)), data.filter(lambda n: n % 2), data.cache(tmp_path / "odd"))
    with pytest.raises(TypeError, match="has no len"):
        len(odd)
    assert list(odd) == [1, 3, 5, 7]
    again = pipe(data.source(range(9)), data.filter(lambda n: n % 2), data.cache(tmp_path / "odd"), data.batch(2))
    assert len(again) == 2


def test_a_cache_of_no_items_has_none(tmp_path):
    empty = pipe(data.source([]), data.cache(tmp_path / "rows"), data.shuffle(seed=1))
    assert list(empty) == list(empty) == []


# other pipelines and other values


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda path: cached(path, size=21), "'source(range of 20)' there, 'source(range of 21)' here"),
        (lambda path: cached(path, key="v2"), "\"key ''\" there, \"key 'v2'\" here"),
        (lambda path: pipe(data.source(range(20)), data.cache(path)), "'map(<lambda>)' there, '20 items' here"),
    ],
    ids=["size", "key", "operations"],
)
def test_the_file_of_another_pipeline_is_an_error_and_stays(tmp_path, other, difference):
    path = tmp_path / "rows"
    list(cached(path))
    content = path.read_bytes()
    with pytest.raises(ValueError, match="rows holds the items of another pipeline") as caught:
        other(path)
    assert difference in str(caught.value)
    assert "delete the file to build it again, or give this pipeline a path of its own" in str(caught.value)
    assert path.read_bytes() == content


def test_two_pipelines_with_one_path_do_not_read_each_other(tmp_path):
    one, other = cached(tmp_path / "rows"), cached(tmp_path / "rows", size=3)
    list(one)
    with pytest.raises(ValueError, match="another pipeline"):
        list(other)


def test_a_changed_file_of_json_lines_is_another_pipeline(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n")
    list(pipe(data.jsonl(path), data.cache(tmp_path / "rows")))
    assert list(pipe(data.jsonl(path), data.cache(tmp_path / "rows"))) == [1, 2]
    os.utime(path, ns=(0, 0))
    assert list(pipe(data.jsonl(path), data.cache(tmp_path / "rows"))) == [1, 2]
    path.write_text("1\n3\n")
    for dataset in (data.jsonl(path), data.concat(data.jsonl(path)), data.take(2)(data.jsonl(path))):
        with pytest.raises(ValueError, match="another pipeline"):
            data.cache(tmp_path / "rows")(dataset)


def test_the_fingerprint_has_every_stage_of_every_input(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\n")
    lines = data.map(abs)(data.jsonl(tmp_path / "a.jsonl"))
    digest = hashlib.sha256(b"1\n2\n").hexdigest()
    for joined in (
        data.concat(lines, [1]), data.zip(lines, [1, 2]), data.interleave(lines, "a"), data.repeat(2)(lines),
        data.mix(lines, "a", weights=(1, 1), seed=1), data.split((0.5, 0.5), seed=1)(lines)[0], data.cache()(lines),
    ):  # fmt: skip
        text = fingerprint(joined)
        assert digest in text
        assert "\nmap(abs)\n" in text


VARYING = {
    "shuffle": data.shuffle(seed=1),
    "shuffle(window)": data.shuffle(seed=1, window=3),
    "sample": data.sample([1] * 20, seed=1),
    "map(epoch)": data.map(lambda row, epoch: row),
    "map(kind)": data.map(lambda row, kind: row),
    "map(key)": data.map(lambda row, key: row, key=1),
    "filter": data.filter(lambda row, epoch: True),
    "flat_map": data.flat_map(lambda row, epoch: [row]),
    "bucket": data.bucket(lambda row, epoch: 1, boundaries=(2,), batch_size=2),
    "collate": data.collate(lambda batch, epoch: batch),
    "collate(selector)": data.collate({"x": lambda batch, epoch: batch}),
    "take": data.take(lambda epoch: 2),
    "skip": data.skip(lambda epoch: 2),
    "mix": lambda dataset: data.mix(dataset, [1], weights=(1, 1), seed=1),
    "stream": lambda dataset: data.stream(lambda epoch: iter([1])),
    "repeat": lambda dataset: data.repeat(2)(data.shuffle(seed=1)(dataset)),
    "zip": lambda dataset: data.zip(dataset, data.shuffle(seed=1)(dataset)),
}


@pytest.mark.parametrize("operation", VARYING.values(), ids=VARYING)
def test_what_depends_on_the_epoch_cannot_come_before_a_cache(tmp_path, operation):
    with pytest.raises(
        ValueError, match=r"cache\(.*\) keeps the items of one epoch for all, and .* put it after the cache"
    ):
        data.cache(tmp_path / "rows")(operation(data.source(range(20))))


FIXED = {
    "map(index)": data.map(lambda row, index: row + index),
    "take": data.take(lambda: 9),
    "tap": data.tap(lambda row, epoch: None),
    "repeat": data.repeat(2),
    "stream": lambda dataset: data.stream(lambda: iter([1, 2])),
    "concat": lambda dataset: data.concat(dataset, [1]),
    "collate": data.collate({"x": lambda batch: batch}),
    "split": lambda dataset: data.split((0.5, 0.5), seed=1)(dataset)[0],
    "batch": data.batch(3),
    "shard": data.shard(0, 3),
    "unbatched": lambda dataset: data.unbatch()(data.batch(3)(dataset)),
}


@pytest.mark.parametrize("operation", FIXED.values(), ids=FIXED)
def test_all_else_may_come_before_a_cache(tmp_path, operation):
    dataset = operation(data.source(range(20)))
    assert plain(list(data.cache(tmp_path / "rows")(dataset))) == plain(list(dataset))


def test_values_that_a_file_cannot_hold_are_errors_and_leave_nothing(tmp_path):
    texts = pipe(data.source([{"n": 1}, {"n": 2, "text": "two"}]), data.cache(tmp_path / "rows"))
    with pytest.raises(TypeError, match=r"row\['text'\] is a str"):
        list(texts)
    others = pipe(data.source([{"n": 1}, {"n": [2]}]), data.cache(tmp_path / "rows"))
    with pytest.raises(ValueError, match="row 1 is {n: list of numbers with 1 axes}, row 0 is {n: number}"):
        list(others)
    assert os.listdir(tmp_path) == []


def test_wrong_options_are_errors():
    with pytest.raises(TypeError, match="cache takes the path of a file, or none; got 3"):
        data.cache(3)
    with pytest.raises(TypeError, match="the key of cache is a text; got 3"):
        data.cache("rows", key=3)
    with pytest.raises(ValueError, match="is for a cache on disk: give it a path"):
        data.cache(key="a")


# damage, kills, and others that build at the same time


def test_damage_anywhere_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "rows"
    items = list(cached(path))
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = json.loads(content[8:header])
    rows = header + places["rows"]["data_offsets"][0]
    for position in [*range(0, header, 11), *range(header, len(content), 7)]:
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(ValueError, match=r"rows (is no cache that can be read|is damaged at row \d+)"):
            list(cached(path))
        if position >= rows:
            assert len(cached(path)) == len(items)  # opening reads no rows
    for size in (0, 5, header, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="rows is no cache that can be read"):
            cached(path)
    path.write_bytes(content)
    assert_same_bits(list(cached(path)), items)


def test_another_file_is_no_cache(tmp_path):
    path = tmp_path / "a.safetensors"
    fp.save(path)({"w": mx.zeros(3)})
    with pytest.raises(ValueError, match="is no cache that can be read: its format is not"):
        cached(path)


def test_an_error_in_a_row_leaves_no_file(tmp_path):
    def fail(n):
        if n == 7:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError) as caught:
        list(pipe(data.source(range(20)), data.map(fail), data.cache(tmp_path / "rows")))
    assert any("operation=map(fail)" in note and "index=7" in note for note in caught.value.__notes__)
    assert os.listdir(tmp_path) == []


SLOW = """
import sys, time
from toolz import pipe
from mlx_fp import data
def slow(n):
    print(n, flush=True)
    time.sleep(60 if n == 5 else 0)
    return n
list(pipe(data.source(range(20)), data.map(slow), data.cache(sys.argv[1])))
"""


def test_a_kill_in_between_leaves_no_cache_and_the_next_run_builds_it(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "rows")], env=child_env(), stdout=subprocess.PIPE, text=True
    )
    while child.stdout.readline().strip() != "5":
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert visible(tmp_path) == []
    assert os.listdir(tmp_path) != []
    assert_same_bits(list(cached(tmp_path / "rows")), [squares(n) for n in range(20)])
    assert os.listdir(tmp_path) == ["rows"]


def count_builds(path, log):
    """Read a cached pipeline, and note each computed row in a file."""

    def noted(n):
        time.sleep(0.005)
        with open(log, "a") as file:
            file.write(f"{n}\n")
        return n

    return list(pipe(data.source(range(20)), data.map(noted), data.cache(path)))


@pytest.mark.slow
def test_processes_that_build_at_once_compute_each_row_once(tmp_path):
    calls = [(tmp_path / "rows", tmp_path / "log")] * 3
    assert spawned(count_builds, *calls) == [list(range(20))] * 3
    assert len((tmp_path / "log").read_text().split()) == 20
    assert visible(tmp_path) == ["log", "rows"]


def test_threads_that_build_at_once_compute_each_row_once(tmp_path):
    calls = []
    dataset = cached(tmp_path / "rows", calls=calls)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [row["n"] for row in dataset], range(4)))
    assert results == [list(range(20))] * 4
    assert sorted(calls) == list(range(20))


def test_processes_share_an_open_file(tmp_path):
    dataset = data.batch(3)(pipe(data.source(range(20)), data.map(float), data.cache(tmp_path / "rows")))
    expected = plain(list(dataset))
    assert plain(list(pickle.loads(pickle.dumps(dataset)))) == expected


def test_a_prefetched_pipeline_builds_in_its_thread(tmp_path):
    ahead = data.prefetch(2)(cached(tmp_path / "rows"))
    assert_same_bits(list(ahead), [squares(n) for n in range(20)])
    assert_same_bits(list(data.prefetch(2)(cached(tmp_path / "rows"))), list(ahead))


def test_the_log_says_how_far_a_build_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_cache_file, "_EVERY", 0.0)
    with caplog.at_level(logging.INFO, "mlx_fp.data"):
        list(cached(tmp_path / "rows", size=3))
    assert any("rows: 2 of 3 items" in message for message in caplog.messages)
    assert "rows: 3 items, " in caplog.messages[-1]


def test_a_cache_before_a_run_changes_no_bit_of_it(tmp_path):
    rows = [{"x": [float(i), 1.0, -float(i)], "y": [float(i % 3), 1.0]} for i in range(12)]
    flow = [data.shuffle(seed=2), data.batch(4), data.map(lambda batch: {name: batch[name] / 10 for name in batch})]
    trainer = pipe(fp.trainer(nn.linear(3, 2), fp.regression()), fp.with_optimizer(optim.adam(1e-2)))
    runs = [
        fp.fit(pipe(data.source(rows), *before, *flow), epochs=2, quiet=True)(trainer)
        for before in ([], [data.cache(tmp_path / "rows")], [data.cache(tmp_path / "rows")])
    ]
    for run in runs[1:]:
        assert_same_bits(run.params, runs[0].params)
