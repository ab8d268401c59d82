"""Test checkpoints under kill -9 and damage. `python bench/crash.py --kills 200 --fuzz 2000`.

`--kills N` runs trainings that write a checkpoint after every step, kills them with SIGKILL at random instants, resumes
each in a new process until it ends, and begins new trainings until N processes are killed. `--fuzz N` loads N damaged
files. Each prints a line of figures. The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from itertools import cycle
from pathlib import Path

import mlx.core as mx
import numpy as np
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store._checkpoint import peek

EPOCHS, KEEP = 30, 2
WAYS = [
    {"name": "s-{step}-{next_epoch}", "suffix": ".safetensors", "background": False},
    {"name": "last", "suffix": ".safetensors", "background": False},
    {"name": "s-{step}-{next_epoch}", "suffix": ".npz", "background": True},
    {"name": "s-{step}-{next_epoch}", "suffix": ".safetensors", "background": True},
]
"""Ways to write: a file for each step, or one file for all steps; in both formats; in a thread or not."""


def run(folder, way, told=lambda event: None):
    """Train with hooks and data that have a memory, from the newest checkpoint in the folder if there is one."""
    x = mx.random.normal((40, 4), key=mx.random.key(3))
    rows = data.arrays(x=x, y=(x[:, 0] > 0).astype(mx.int32))
    held_out = data.batch(8)(data.arrays(x=x[:16], y=(x[:16, 0] > 0).astype(mx.int32)))
    constant = "{" not in way["name"]
    policy = fp.checkpoints(
        folder / (way["name"] + way["suffix"]),
        every_steps=1,
        keep_last=None if constant else KEEP,
        background=way["background"],
    )
    trainer = pipe(
        fp.trainer(nn.sequential(nn.linear(4, 8), nn.relu, nn.dropout(0.3), nn.linear(8, 2)), fp.classification()),
        fp.with_optimizer(pipe(optim.adamw(optim.cosine_decay(1e-2, 90)), optim.ema(0.9))),
        fp.monitor("val_loss", min_delta=1e-3),
        fp.with_hooks(fp.fold("after_step", mx.array(0.0), lambda memory, event: (memory + event.loss, None))),
        fp.on("after_checkpoint", told),
        policy,
    )
    train = pipe(rows, data.shuffle(seed=5), data.batch(16))
    return pipe(
        trainer, fp.fit(train, validation=held_out, epochs=EPOCHS, accumulate=2, seed=9, resume="latest", quiet=True)
    )


def digest(report):
    """Return a digest of the results of a run, except its times and files."""
    found = hashlib.sha256()
    for tree in (report.params, report.opt_state):
        for name, leaf in fp.flat(tree).items():
            found.update(name.encode() + np.array(leaf).tobytes())
    rows = [{**asdict(row), "seconds": 0, "timed": None, "checkpoint": None} for row in report.rows]
    found.update(json.dumps([rows, report.losses, report.best_value, report.best_epoch]).encode())
    return found.hexdigest()


def child(folder, way):
    """Run one process of a training: print its start, each checkpoint on disk, and the digest of its results."""
    _ = fp.fit, fp.checkpoints, fp.fold, data.arrays, optim.adamw
    print("ready", flush=True)
    report = run(Path(folder), WAYS[way], lambda event: print("acked", event.step, flush=True))
    print("end", digest(report), flush=True)


def killed(folder, way, delay):
    """Start a process of a training, and kill it after a delay; return its output, and if it was killed."""
    command = [sys.executable, __file__, "--child", str(folder), str(way)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = [process.stdout.readline().split()]
        with suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        process.kill()  # no effect on a process that has ended
        said += [line.split() for line in process.stdout if line.endswith("\n")]
        wrong = process.stderr.read()
        status = process.wait()
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run did not resume: {wrong}")
    return said, status != 0


def kills(count, seed=0):
    """Kill so many processes; return the figures and the failures."""
    draw, began, wrong = random.Random(seed), time.perf_counter(), []
    spent = runs = 0
    longest = 0.0
    with tempfile.TemporaryDirectory() as root:
        alone = [digest(run(Path(root) / f"alone-{i}", way)) for i, way in enumerate(WAYS)]
        if len(set(alone)) > 1:
            wrong.append("the way of saving changed the run")
        for way in cycle(range(len(WAYS))):
            folder, acked, end = Path(root) / f"run-{runs}", 0, None
            runs += 1
            while end is None:
                said, was_killed = killed(folder, way, draw.uniform(0, 0.5) if spent < count else 60)
                spent += was_killed
                acked = max([acked, *(int(word[1]) for word in said if word[0] == "acked")])
                files = [f for f in folder.glob("[!.]*") if f.suffix == WAYS[way]["suffix"]] if folder.is_dir() else []
                start = time.perf_counter()
                newest = max((fp.load(file).metadata["step"] for file in files), default=0)
                longest = max(longest, time.perf_counter() - start)
                if newest < acked:
                    wrong.append(f"run {runs}: step {acked} was acknowledged, and {newest} is the newest")
                if len(files) > KEEP + 3:  # the last, the best, the one resumed from, and one to be deleted next
                    wrong.append(f"run {runs}: {len(files)} files, {sorted(file.name for file in files)}")
                end = next((word[1] for word in said if word[0] == "end"), None)
            if end != alone[way]:
                wrong.append(f"run {runs}: another end than that of a run left alone")
            if litter := [f.name for f in folder.rglob(".*") if f.name != ".mlx_fp.lock"]:
                wrong.append(f"run {runs}: {litter} was left")
            if spent >= count:
                break
    seconds = time.perf_counter() - began
    return f"{spent} kills in {runs} runs of {EPOCHS * 2} steps, {seconds:.0f} s", wrong


# damage


def base(folder, suffix):
    """Make a checkpoint of about a megabyte, with parameters and the state of a run."""
    params = {f"layer{i}": {"weight": mx.random.normal((128, 128)), "bias": mx.zeros((128,))} for i in range(5)}
    state = {"m": params, "v": params, "step": mx.array(7, mx.uint64)}
    return fp.save(folder / f"a{suffix}", opt_state=state, metadata={"epoch": 3, "rows": [{"a": 0.5}] * 20})(params)


def header_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def sealed(entries, payload=b""):
    """Make a file with a wrong header and a correct digest."""
    told = entries["__metadata__"]
    told["sha256"] = "0" * 64 if told["schema"] == "1" else digest_of(entries, payload)
    text = json.dumps(entries, separators=(",", ":")).encode()
    content = len(text).to_bytes(8, "little") + text + payload
    if told["schema"] != "1":
        return content
    return content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1)


def digest_of(entries, payload):
    """Return the digest of schemas 2 and 3, over all entries that have one."""
    told = entries["__metadata__"]
    found = hashlib.sha256(f"mlx_fp {told['schema']}\n{told['manifest']}\n".encode())
    for name, entry in sorted(entries.items()):
        if name == "__metadata__":
            continue
        with suppress(TypeError, ValueError):
            part = hashlib.sha256(payload[slice(*entry["data_offsets"])]).hexdigest()
            found.update(json.dumps([name, entry["dtype"], entry["shape"], part]).encode())
    return found.hexdigest()


def rewritten(content, draw):
    """Make a safetensors file with one error in its header, and a correct digest."""
    entries, payload = header_of(content)
    name = draw.choice([name for name in entries if name != "__metadata__"])
    big = draw.choice([-1, 2**31, 2**32 + 4, 2**62, 2**64, 10**30, 1.5, None, "1", True])
    kind = draw.choice(["dtype", "shape", "offset", "name", "gone", "schema", "manifest"])
    if kind == "dtype":
        entries[name]["dtype"] = draw.choice(["F64", "I8", "BF16", "C64", "F8_E4M3", "", None, 3, ["F32"]])
    elif kind == "shape":
        entries[name]["shape"] = draw.choice([[big], [big, 0], [0, big], [1] * 1000, [[]], "x", None])
    elif kind == "offset":
        entries[name]["data_offsets"][draw.randrange(2)] = big
    elif kind == "name":
        entries[name + "\0"] = entries.pop(name)
    elif kind == "gone":
        del entries[name]
    elif kind == "schema":
        entries["__metadata__"]["schema"] = draw.choice(["1", "4", "", "x", "-1", "1e9", "9" * 5000])
    else:
        entries["__metadata__"]["manifest"] = draw.choice(
            [
                "",
                "[]",
                "{}",
                "null",
                "[" * 100_000,
                '{"list":[' * 2_000 + "]}" * 2_000,
                '{"params":{"array":"x"}}',
                "1e999",
            ]
        )
    return sealed(entries, payload)


def headless(content, draw):
    """Make a file of the same size that has only a header."""
    size = len(content) - 8
    unit = draw.choice([b"[", b'{"a":', b'"', b" ", b"\xff", b"\\", b"1"])
    return size.to_bytes(8, "little") + (unit * size)[:size]


def lengthened(content, draw):
    """Make a safetensors file with a wrong length of its header."""
    length = int.from_bytes(content[:8], "little")
    other = draw.choice([2**63 - 1, 2**64 - 1, 2**31, 100_000_001, len(content), len(content) - 8, length + 1, 0, 1])
    return other.to_bytes(8, "little") + content[8:]


def repacked(content, draw):
    """Make an archive in which one member has a rewritten header, is compressed, or occurs twice."""
    import io

    old, new = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    chosen = draw.choice(old.namelist())
    kind = draw.choice(["dtype", "shape", "deep", "packed", "twice", "gone", "no array"])
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED) as archive:
        for name in old.namelist():
            member = old.read(name)
            if name == chosen and kind == "gone":
                continue
            if name == chosen and kind == "no array":
                member = draw.randbytes(100)
            if name == chosen and kind in ("dtype", "shape", "deep"):
                length = struct.unpack("<H", member[8:10])[0]
                dtype, shape = "<f4", "(1,)"
                if kind == "dtype":
                    dtype = draw.choice(["|O", "<f8", "<M8[s]", "|V99"])
                elif kind == "shape":
                    shape = draw.choice(["(2**40,)", str((2**40,)), str((2**62, 4)), "(-1,)"])
                head = f"{{'descr': {dtype!r}, 'fortran_order': True, 'shape': {shape}}}"
                text = (head if kind != "deep" else "(" * 5_000).encode()
                member = member[:8] + struct.pack("<H", len(text)) + text + member[10 + length :]
            archive.writestr(name, b"\0" * 8_000_000 if name == chosen and kind == "packed" else member)
            if name == chosen and kind == "twice":
                import warnings

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    archive.writestr(name, member)
    return new.getvalue()


def scarred(content, draw):
    """Make a file with the damage of a faulty disk or network."""
    size = len(content)
    where = draw.choice(
        [draw.randrange(size), draw.randrange(min(size, 4096)), size - 1 - draw.randrange(min(size, 4096))]
    )
    kind = draw.choice(["flip", "flip", "cut", "zeros", "shift", "grow", "swap"])
    if kind == "flip":
        return content[:where] + bytes([content[where] ^ (1 << draw.randrange(8))]) + content[where + 1 :]
    if kind == "cut":
        return content[:where]
    if kind == "zeros":
        end = min(where + draw.choice([1, 512, 4096]), size)
        return content[:where] + bytes(end - where) + content[end:]
    if kind == "shift":
        return content[:where] + b"\1" + content[where:]
    if kind == "grow":
        return content + draw.randbytes(draw.randrange(1, 64))
    block = draw.choice([512, 4096])
    one, two = sorted(draw.sample(range(size // block), 2))
    blocks = [content[i : i + block] for i in range(0, size, block)]
    blocks[one], blocks[two] = blocks[two], blocks[one]
    return b"".join(blocks)


DAMAGE = {
    ".safetensors": [scarred, scarred, scarred, rewritten, lengthened, headless],
    ".npz": [scarred, scarred, scarred, repacked, headless],
}


def contents(path):
    """Return the content of a file as loaded, as bytes."""
    found = fp.load(path)
    leaves = fp.flat({"params": found.params, "state": found.opt_state})
    return [
        (name, str(leaf.dtype), leaf.shape, np.array(leaf).tobytes()) for name, leaf in leaves.items()
    ], found.metadata


def cost(load, path):
    """Load a file; return the exception, the peak of additional bytes, and the seconds."""
    mx.clear_cache()
    mx.reset_peak_memory()
    tracemalloc.reset_peak()
    before, start, raised = tracemalloc.get_traced_memory()[0] + mx.get_active_memory(), time.perf_counter(), None
    try:
        load(path)
    except Exception as error:
        raised = error
    seconds = time.perf_counter() - start
    return raised, tracemalloc.get_traced_memory()[1] + mx.get_peak_memory() - before, seconds


def fuzz(count, seed=0):
    """Load so many damaged files; return the figures and the failures."""
    draw, began, wrong, ends = random.Random(seed), time.perf_counter(), [], Counter()
    most, slowest = dict.fromkeys(DAMAGE, (0.0, "")), (0.0, "")
    with tempfile.TemporaryDirectory() as root:
        whole = {suffix: base(Path(root), suffix) for suffix in DAMAGE}
        truth = {suffix: (path.read_bytes(), contents(path)) for suffix, path in whole.items()}
        tracemalloc.start()
        for i in range(count):
            suffix = list(DAMAGE)[i % 2]
            how = draw.choice(DAMAGE[suffix])
            content, meant = truth[suffix]
            bad = how(content, draw)
            path = Path(root) / f"bad{suffix}"
            path.write_bytes(bad)
            raised, taken, seconds = cost(fp.load, path)
            slowest = max(slowest, (seconds, how.__name__))
            most[suffix] = max(most[suffix], (taken / max(len(bad), len(content)), how.__name__))
            if raised is None and contents(path) != meant:
                wrong.append(f"file {i}: {how.__name__} went unseen")
            elif raised is not None and (type(raised) is not CheckpointError or str(path) not in str(raised)):
                wrong.append(f"file {i}: {how.__name__} raised {raised!r}")
            ends["loaded right" if raised is None else "refused"] += 1
            raised, taken, _ = cost(peek, path)
            if raised is not None:
                wrong.append(f"file {i}: {how.__name__}: peek raised {raised!r}")
        tracemalloc.stop()
    seconds = time.perf_counter() - began
    memory = "; ".join(f"{suffix} {ratio:.2f} ({name})" for suffix, (ratio, name) in most.items())
    told = ", ".join(f"{number} {end}" for end, number in sorted(ends.items()))
    return (
        f"{count} damaged files of {len(truth['.npz'][0]) / 1e6:.2f} MB: {told}; most memory by the size of the file: "
        f"{memory}; slowest {slowest[0] * 1e3:.0f} ms ({slowest[1]}); {seconds:.0f} s"
    ), wrong


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--kills", type=int, default=0)
    options.add_argument("--fuzz", type=int, default=0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.child:
        child(asked.child[0], int(asked.child[1]))
        return 0
    faults = []
    for work, count in ((kills, asked.kills), (fuzz, asked.fuzz)):
        if count:
            told, wrong = work(count, asked.seed)
            print(f"{work.__name__}: {told}; {len(wrong)} promises broken", flush=True)
            for fault in wrong[:10]:
                print(f"  {fault}")
            faults += wrong
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
