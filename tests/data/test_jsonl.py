"""Rows of JSON-lines files: lines are found once, and a line is read and parsed only when its row is needed."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import read
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import _jsonl

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def written(path, rows, ascii_only=True):
    path.write_text("".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows), encoding="utf-8")
    return path


@given(
    rows=st.lists(JSON, max_size=6),
    blanks=st.lists(st.sampled_from(["", " ", "\t\r", "\f"]), max_size=4),
    end=st.booleans(),
)
@pytest.mark.slow
def test_the_rows_are_those_that_json_reads_of_each_line(tmp_path_factory, rows, blanks, end):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    for i, blank in enumerate(blanks):
        lines.insert(3 * i % (len(lines) + 1), blank)
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_bytes(("\n".join(lines) + "\n" * end).encode())
    dataset = data.jsonl(path)
    assert len(dataset) == len(rows)
    assert list(dataset) == rows
    assert [dataset.view(None)[i] for i in reversed(range(len(rows)))] == rows[::-1]


def test_several_files_follow_one_another_and_stay_indices(tmp_path):
    paths = [
        written(tmp_path / f"{i}.jsonl", [{"n": 10 * i + j} for j in range(size)]) for i, size in enumerate((3, 0, 4))
    ]
    dataset = data.jsonl(paths)
    assert [row["n"] for row in dataset] == [0, 1, 2, 20, 21, 22, 23]
    assert dataset.indexed
    assert repr(data.jsonl(str(paths[0]))) == f"jsonl({str(paths[0])!r})"
    batches = read(pipe(dataset, data.shuffle(seed=3), data.batch(3)), epoch=2, index=1)
    assert [batch["n"].size for batch in batches] == [3, 1]


def test_only_the_lines_of_requested_rows_are_parsed(tmp_path, monkeypatch):
    parsed = []
    dataset = pipe(data.jsonl(written(tmp_path / "a.jsonl", range(100))), data.shuffle(seed=1), data.take(4))
    monkeypatch.setattr(_jsonl.json, "loads", lambda text: parsed.append(text) or int(text))
    rows = list(dataset)
    assert [str(row) for row in rows] == parsed
    assert len(rows) == 4


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_other_ends_of_lines_are_no_part_of_the_rows(tmp_path, newline):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + newline.join(['{"a": "ü"}', "", '{"a": 2}']).encode())
    assert list(data.jsonl(path)) == [{"a": "ü"}, {"a": 2}]
    path.write_bytes(b"\xef\xbb\xbf" + newline.encode())
    assert len(data.jsonl(path)) == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": 1', "is no JSON: Expecting"),
        (b'{"a": "\xff"}', "is no UTF-8: 'utf-8' codec"),
        (b'{"a": 1} {}', "is no JSON: Extra"),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n\n  \n' + line + b"\n{}\n")
    dataset = data.jsonl([written(tmp_path / "b.jsonl", [1]), path])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 4, " + problem) as caught:
        list(dataset)
    assert any("index=2" in note for note in caught.value.__notes__)


def test_a_file_that_changed_since_is_an_error_and_not_other_rows(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2}])
    dataset = data.jsonl(path)
    written(path, [{"a": 100}, {"a": 2}])
    with pytest.raises(ValueError, match=r"a\.jsonl has changed since jsonl found its lines: make the dataset again"):
        list(dataset)


def test_wrong_paths_are_errors_when_the_pipe_is_built(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        data.jsonl(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="at least one file; got an empty list"):
        data.jsonl([])
    with pytest.raises(TypeError, match="a path or a list of paths; got 7"):
        data.jsonl(7)
    with pytest.raises(TypeError, match=r"a path or a list of paths; got \[b'a'\]"):
        data.jsonl([b"a"])


def test_a_home_folder_and_a_path_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "a.jsonl", [1, 2])
    assert list(data.jsonl("~/a.jsonl")) == [1, 2]


def total(dataset):
    return sum(row["n"] for row in dataset)


def test_threads_and_processes_read_one_dataset(tmp_path):
    dataset = data.jsonl(written(tmp_path / "a.jsonl", [{"n": n, "text": "x" * (n % 50)} for n in range(300)]))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(total, [dataset] * 8)) == [44850] * 8
    assert total(pickle.loads(pickle.dumps(pipe(dataset, data.take(10))))) == 45
    if hasattr(os, "fork"):
        reader = iter(dataset)
        next(reader)
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sender.send(sum(row["n"] for row in reader)))
        child.start()
        assert sum(row["n"] for row in reader) == receiver.recv() == 44850
        child.join()


def test_the_search_for_lines_keeps_offsets_alone(tmp_path):
    import tracemalloc

    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "x" * 2000}) + "\n"
    path.write_text(line * 4000)
    tracemalloc.start()
    dataset = data.jsonl(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 4000
    assert peak < 2_500_000 < path.stat().st_size
