"""Functions that several test files use: trees compared, small models and losses, and processes of their own.

They need nothing of `mlx_fp/cpu`, without which the library works, too.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor
from mlx_fp.loop._report import Report
from mlx_fp.loop._setup import Setup

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
"""The pages that list public names, without snippets."""
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent != REFERENCE),
    *(ROOT / "docs").glob("llms.txt"),
]
CPU_PAGES = [page for page in PAGES if "fp.cpu." in page.read_text(encoding="utf-8") and page.parent != ROOT]
"""The pages about Linux CPUs, whose snippets need `mlx_fp/cpu`."""


def run_snippets(page):
    """Run the Python snippets of a page in order, in one namespace; return how many there are.

    A fence of `py` is of another library, and does not run.
    """
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    scope = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, page.name, "exec"), scope)
    return len(blocks)


# trees ----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A tree type besides dict, list and tuple."""

    left: object
    right: object


def trees(keys, leaves, most):
    """Return a strategy of trees: every kind of container, at most so many leaves."""

    def containers(inner):
        return st.one_of(
            st.dictionaries(keys, inner, max_size=3),
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.builds(Pair, inner, inner),
        )

    return st.recursive(leaves, containers, max_leaves=most)


def bits(tree):
    """Return path -> (dtype, shape, bytes) of every leaf of a tree."""
    return {path: _bits(leaf) for path, leaf in fp.flat(tree).items()}


def numbers(*trees):
    """List the numbers of every leaf of some trees, in order, in a form that goes through JSON."""
    return [leaf.tolist() for tree in trees for leaf in fp.flat(tree).values()]


def assert_same_bits(one, other, *, nan=False):
    """Assert that two trees have the same leaves, path by path in one order, bit for bit.

    A NaN is refused, unless `nan`: two runs that lost all their numbers have the same bits, and show nothing.
    """
    for path, (mine, theirs) in _side_by_side(one, other).items():
        if _bits(mine) != _bits(theirs):
            raise AssertionError(f"{path}: the bits differ: {mine} is not {theirs}")
        if not nan and np.isnan(_numpy(mine)).any():
            raise AssertionError(f"{path}: it has a NaN: {mine}")


def assert_close(one, other, *, rtol=1e-5, atol=1e-6):
    """Assert that two trees have the same leaves, path by path in one order: floats to rounding, the rest exactly."""
    for path, (mine, theirs) in _side_by_side(one, other).items():
        mine, theirs = _numpy(mine), _numpy(theirs)
        near = {"rtol": rtol, "atol": atol} if np.issubdtype(mine.dtype, np.inexact) else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(mine, theirs, **near, equal_nan=False, err_msg=path)


def changed(before, after):
    """Return the paths of the leaves whose bits are others after than before."""
    return {path for path, (one, other) in _side_by_side(before, after).items() if _bits(one) != _bits(other)}


def _side_by_side(one, other):
    """Return path -> both leaves; their paths, the order of these, dtypes and shapes are the same."""
    one, other = fp.flat(one), fp.flat(other)
    if list(one) != list(other):
        raise AssertionError(f"other leaves, or in another order: {list(one)} is not {list(other)}")
    for path, leaf in one.items():
        mine, theirs = _kind(leaf), _kind(other[path])
        if mine != theirs:
            raise AssertionError(f"{path}: {mine} is not {theirs}")
    return {path: (leaf, other[path]) for path, leaf in one.items()}


def _kind(leaf):
    leaf = leaf if isinstance(leaf, mx.array) else np.asarray(leaf)
    return str(leaf.dtype), leaf.shape


def _bits(leaf):
    if not isinstance(leaf, mx.array):
        return *_kind(leaf), np.asarray(leaf).tobytes()
    return *_kind(leaf), np.array(leaf.reshape(-1).view(mx.uint8)).tobytes() if leaf.size else b""


def _numpy(leaf):
    wide = isinstance(leaf, mx.array) and leaf.dtype == mx.bfloat16  # NumPy has no such dtype
    return np.array(leaf.astype(mx.float32) if wide else leaf)


# runs -----------------------------------------------------------------------------------------------------------


def untimed(rows):
    """List the rows of a report without their times and files, which differ between equal runs."""
    return [replace(row, seconds=0.0, timed=None, checkpoint=None) for row in rows]


def report_of(rows, **fields):
    """Return a report of rows as a finished run has it, with other fields where they are given."""
    usual = {
        "evaluations": (),
        "steps": (),
        "losses": (),
        "losses_kept": False,
        "monitor_name": "loss",
        "monitor_mode": "min",
        "best_value": None,
        "best_epoch": None,
        "best_step": None,
        "epochs_target": 3,
        "steps_target": None,
        "epochs_completed": len(rows),
        "epochs_ran": len(rows),
        "start_epoch": 0,
        "stopped_early": False,
        "stop_reason": None,
        "resume_from": None,
        "resumed_from_epoch": None,
        "checkpoints": (),
        "policy": {},
        "setup": Setup("data", {}, "sgd", None, 0.0, None),
        "params": {},
        "opt_state": {},
    }
    return Report(rows=tuple(rows), **{**usual, **fields})


PLAIN = not (Path(fp.__file__).parent / "cpu").exists()
"""Whether MLX's own BLAS computes: it sums as its arrays lie in memory, so equal runs are equal to rounding only."""


def outcome(report):
    """Return all that a run ends with, but for its times and files, in a form that can be compared."""
    trees = {"params": report.params, "state": report.opt_state}
    if not PLAIN:
        return bits(trees), untimed(report.rows), report.losses
    leaves = {path: (str(leaf.dtype), leaf.tolist()) for path, leaf in fp.flat(trees).items()}
    return _Near([leaves, [row.to_dict() for row in untimed(report.rows)], list(report.losses)])


class _Near:
    """Plain values that equal others to rounding."""

    def __init__(self, values):
        self.values = values

    def __eq__(self, other):
        return _near(self.values, other.values)

    __hash__ = None


def _near(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return np.isclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_near, one, other))
    return one == other


def assert_same_run(one, other):
    """Assert that two runs ended with the same bits, rows, losses, best and reason to stop."""
    assert_same_bits({"params": one.params, "state": one.opt_state}, {"params": other.params, "state": other.opt_state})
    if untimed(one.rows) != untimed(other.rows):
        raise AssertionError(f"rows: {one.rows} is not {other.rows}")
    for name in ("losses", "best_value", "best_epoch", "epochs_completed", "stopped_early", "stop_reason"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            raise AssertionError(f"{name}: {mine} is not {theirs}")


def visible(folder):
    """List the names of the files in a folder that are not hidden."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# files ----------------------------------------------------------------------------------------------------------


def fail_read(patch, point):
    """Let a reading of files from disk fail once: the opening of one is number 0, and each read is one more."""
    calls, fdopen, opened = iter(range(1_000)), os.fdopen, os.open

    def fails():
        if next(calls) == point:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    class Failing(io.FileIO):
        def readinto(self, buffer):
            fails()
            return super().readinto(buffer)

        def readall(self):
            fails()
            return super().readall()

    def opening(path, flags, *more, **options):
        if str(path).endswith((".safetensors", ".npz")) and not flags & os.O_WRONLY:
            fails()
        return opened(path, flags, *more, **options)

    patch.setattr(os, "open", opening)
    patch.setattr(os, "fdopen", lambda *a: io.BufferedReader(Failing(*a)) if a[1] == "rb" else fdopen(*a))


# models, losses, data -------------------------------------------------------------------------------------------


def small_net(**parts):
    """Return a model from 3 numbers to 2 with a buffer and with draws; `parts` come after."""
    return nn.sequential(
        enc=nn.linear(3, 4), norm=nn.batch_norm(4), drop=nn.dropout(0.5), head=nn.linear(4, 2), **parts
    )


def cross_entropy(model, x, y):
    """Return the mean cross entropy of a model's logits."""
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


def mse(model, x, y):
    """Return the mean squared error of a model."""
    return nn.losses.mse_loss(model(x), y)


def mean_square(model, x):
    """Return the mean square of what a model gives."""
    return (model(x) ** 2).mean()


def batch_mean(model, x):
    """Return the mean of a batch as its loss, whatever the model."""
    return x.mean()


SEQUENCES = [[(7 * i + 3 * j) % 59 + 1 for j in range(n)] for i, n in enumerate((9, 3, 5, 12, 7, 2, 4))]
"""Sequences of tokens below 60, of different lengths."""


def packed_batches(how="best_fit", rows=2):
    """Return `SEQUENCES` as batches of packed rows of 16 tokens."""
    return list(pipe(data.source(SEQUENCES), data.pack(16, how=how), data.batch(rows)))


def single_batches():
    """Return `SEQUENCES` as batches of one sequence, padded to 16 tokens."""
    rows = [{"tokens": tokens, "mask": [1] * len(tokens)} for tokens in SEQUENCES]
    return list(pipe(data.source(rows), data.batch(1, stack=list), data.pad(to=[16])))


def assert_packed_as_single(packed, single, *, compile=True):
    """Assert that packed sequences give the loss, gradients and metrics of the sequences one by one, to rounding."""
    task, results = fp.language_modeling(), []
    ways = ((packed, packed_batches(), compile), (single, single_batches(), False))
    for model, batches, compiles in ways:
        step = fp.train_step(model, task.loss, optim.sgd(1.0), metrics=task.metrics, compile=compiles)
        before, opt_state = step.init(0)
        after, opt_state, logs = step.accumulate(before, opt_state, [task.collate(batch) for batch in batches])
        gradients = {
            path: leaf - after
            for (path, leaf), after in zip(fp.flat(before).items(), fp.flat(after).values(), strict=True)
        }
        results.append((gradients, {"loss": logs["loss"], "metrics": opt_state["metrics"]}))
    for one, other in zip(*results, strict=True):
        assert_close(one, other, rtol=1e-4, atol=2e-6)


def trained(trainer, train):
    """Train for three epochs; other processes find this function by its name."""
    return fp.fit(train, epochs=3, quiet=True)(trainer)


def numpy_batch(rows=6, seed=0):
    """Draw 3 inputs and 2 targets a row, as NumPy arrays."""
    draw = np.random.default_rng(seed)
    return tuple(draw.normal(size=(rows, n)).astype(np.float32) for n in (3, 2))


def random_batch(rows=6, seed=0):
    """Draw 3 inputs and 2 targets a row."""
    return tuple(map(mx.array, numpy_batch(rows, seed)))


def read(dataset, epoch=0, index=0):
    """List the items of an epoch of a dataset, from an index on."""
    return list(dataset.open(Cursor(epoch, index)))


class Counted:
    """A sequence of numbers that lists in `read` the indices that were read."""

    def __init__(self, size):
        self.size, self.read = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int, type(index)
        self.read.append(index)
        return index


class File:
    """An iterator that is no generator, and counts in `closed` how often it was closed."""

    def __init__(self, rows):
        self.rows, self.closed = iter(rows), 0

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.rows)

    def close(self):
        self.closed += 1


def plain(item):
    """Return an item of a dataset with lists in place of arrays and tuples."""
    if isinstance(item, dict):
        return {key: plain(value) for key, value in item.items()}
    if isinstance(item, (tuple, list)):
        return [plain(value) for value in item]
    return item.tolist() if hasattr(item, "tolist") else item


# processes ------------------------------------------------------------------------------------------------------


def child_env(**env):
    """Return the environment of a child that can import the package and these helpers; None takes a name out."""
    here = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return {name: value for name, value in {**os.environ, "PYTHONPATH": here, **env}.items() if value is not None}


def python_process(code, *args, within=(), timeout=120, **env):
    """Run code in a Python of its own, perhaps within another command; AssertionError with its output if it fails."""
    command = [*within, sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=child_env(**env), capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise AssertionError(f"the process ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def run_python(code, *args, **options):
    """Return what code prints in a Python of its own, as `python_process` runs it."""
    return python_process(code, *args, **options).stdout


def spawned(call, *each, timeout=120):
    """Return what a call gives for each tuple of arguments, at once, in processes of their own that were spawned.

    A pool would need semaphores, and those need /dev/shm.
    """
    context, started = get_context("spawn"), []
    for arguments in each:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_sent, args=(sender, call, arguments))
        process.start()
        sender.close()
        started.append((process, receiver))
    try:
        return [receiver.recv() if receiver.poll(timeout) else None for _, receiver in started]
    finally:
        for process, _ in started:
            process.join(timeout)


def _sent(sender, call, arguments):
    sender.send(call(*arguments))


def run_call(file, call, **options):
    """Return what a call like `"taken(3)"` of a function of a test file prints, in a Python of its own."""
    file = Path(file)
    code = f"import sys; sys.path.insert(0, {str(file.parent)!r})\nimport {file.stem}\n{file.stem}.{call}"
    return run_python(code, **options)


def forged(path, entries, payload=b"", manifest='{"params": {"dict": []}}', schema=3, text=None):
    """Write a safetensors file of tensors by name as they are given, with a digest that is right for them.

    `text` is a function that makes the header of the entries, for one that JSON would not make.
    """
    found = hashlib.sha256(f"mlx_fp {schema}\n{manifest}\n".encode())
    for name in sorted(entries):
        start, end = entries[name]["data_offsets"]
        part = hashlib.sha256(payload[start:end]).hexdigest()
        found.update(json.dumps([name, entries[name]["dtype"], entries[name]["shape"], part]).encode())
    metadata = {"format": "mlx_fp", "schema": str(schema), "sha256": found.hexdigest(), "manifest": manifest}
    made = {"__metadata__": metadata, **entries}
    head = (json.dumps(made, separators=(",", ":")) if text is None else text(made)).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + payload)
    return path


def header_of(path):
    """The entries of a safetensors file, its metadata, and its bytes."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:end])
    return entries, entries.pop("__metadata__"), content[end:]
