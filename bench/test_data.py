"""Compare data pipelines with loops written by hand, and with torch and grain if they are installed."""

import importlib.util
import json
import logging
import resource
import time
from itertools import count, islice
from statistics import median

import mlx.core as mx
import numpy as np
import pytest
from paired import note, paired
from toolz import pipe

from mlx_fp import data, lm
from mlx_fp.data import Cursor

N, WIDTH, BATCH = 20_000, 64, 64
X = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)


def drain(rows):
    for _ in rows:
        pass


def test_columns(benchmark):
    """Time an epoch of shuffled batches of a numpy column."""
    epochs, dataset = count(), pipe(data.arrays(X), data.shuffle(seed=7), data.batch(BATCH))

    def loop():
        order = np.random.default_rng(next(epochs)).permutation(N)
        for start in range(0, N, BATCH):
            X[order[start : start + BATCH]]

    def ours():
        drain(dataset.open(Cursor(next(epochs))))

    note(benchmark, paired({"loop": loop, "loop again": loop, "ours": ours}, turns=200, calls=1), "loop")
    benchmark.pedantic(ours, rounds=20)


def test_columns_as_mlx(benchmark):
    """Time an epoch of batches that are MLX arrays."""
    epochs, dataset = count(), pipe(data.arrays(mx.array(X)), data.shuffle(seed=7), data.batch(BATCH))

    def loop():
        order = np.random.default_rng(next(epochs)).permutation(N)
        for start in range(0, N, BATCH):
            mx.array(X[order[start : start + BATCH]])

    def ours():
        drain(dataset.open(Cursor(next(epochs))))

    note(benchmark, paired({"loop": loop, "loop again": loop, "ours": ours}, turns=200, calls=1), "loop")
    benchmark.pedantic(ours, rounds=20)


ROWS = [{"x": x, "y": i} for i, x in enumerate(X[:5_000])]


def more(row):
    return {"x": row["x"], "y": row["y"] + 1}


def some(row):
    return row["y"] % 5


def by_hand():
    rows = (row for row in (more(row) for row in ROWS) if some(row))
    while group := list(islice(rows, BATCH)):
        batch = {"x": np.stack([row["x"] for row in group]), "y": mx.array([row["y"] for row in group])}
        yield {"x": batch["x"], "t": batch["y"]}


def in_torch():
    from torch.utils.data import DataLoader, IterableDataset

    class Rows(IterableDataset):
        def __iter__(self):
            return (row for row in (more(row) for row in ROWS) if some(row))

    return DataLoader(Rows(), batch_size=BATCH)


def in_grain():
    import grain

    rows = grain.MapDataset.source(ROWS).map(more).filter(some).to_iter_dataset(grain.ReadOptions(num_threads=0))
    return rows.batch(BATCH)


def test_rows(benchmark):
    """Measure the microseconds per row of `source | map | filter | batch | collate`."""
    spec = {"x": "x", "t": "y"}
    dataset = pipe(data.source(ROWS), data.map(more), data.filter(some), data.batch(BATCH), data.collate(spec))
    ways = {"generators": lambda: drain(by_hand()), "gen. again": lambda: drain(by_hand())}
    ways["ours"] = lambda: drain(dataset)
    for name, peer in {"torch": in_torch, "grain": in_grain}.items():
        if importlib.util.find_spec(name):
            loader = peer()
            ways[name] = lambda loader=loader: drain(loader)
        else:
            print(f"\n  {name} is not installed: left out", end="")
    taken = paired(ways, turns=40, calls=1, warm_up=3)
    note(benchmark, taken, "generators")
    benchmark.extra_info |= {f"{name}_us_per_row": median(s) / len(ROWS) * 1e6 for name, s in taken.items()}
    benchmark.pedantic(ways["ours"], rounds=20)


SEQUENCES = [[1] * int(n) for n in np.random.default_rng(0).lognormal(5, 1, 20_000).clip(1, 512)]


@pytest.mark.parametrize("how", ["best_fit", "first_fit", "concat"])
def test_packing(benchmark, how):
    """Measure the sequences per second of packed rows, of their bins alone, and the fill of the rows."""
    sizes = [len(tokens) for tokens in SEQUENCES]
    dataset = pipe(data.source(SEQUENCES), data.shuffle(seed=7), data.pack(512, how=how, lengths=sizes))
    epochs = count()
    ways = {
        "rows": lambda: drain(dataset.open(Cursor(next(epochs)))),
        "bins": lambda: next(dataset.open(Cursor(next(epochs)))),
    }
    taken = paired(ways, turns=10, calls=1, warm_up=1)
    rows = sum(1 for _ in dataset)
    rates = {f"{name} per second": round(len(SEQUENCES) / median(seconds)) for name, seconds in taken.items()}
    benchmark.extra_info |= {**rates, "fill": round(sum(sizes) / (512 * rows), 4)}
    print(f"\n  {benchmark.extra_info}", end="")
    benchmark.pedantic(ways["rows"], rounds=3)


def test_tokens_from_a_cache(benchmark, tmp_path):
    """Measure the microseconds per conversation of tokenising, and of reading its tokens from a cache on disk."""
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "w": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    words = pytest.importorskip("transformers").PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template
    )
    rows = [{"messages": [{"role": "user", "content": "w " * (i % 400)}] * 4} for i in range(1_000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = data.jsonl(tmp_path / "a.jsonl")
    tokens = lm.tokenize(words)(lines)
    cached = data.cache(tmp_path / "tokens")(tokens)
    drain(cached)
    shuffled = data.shuffle(seed=7)(cached)
    ways = {"tokenise": lambda: drain(tokens), "parse": lambda: drain(lines), "cache": lambda: drain(cached)}
    taken = paired(ways | {"shuffled": lambda: drain(shuffled)}, turns=10, calls=1, warm_up=1)
    note(benchmark, taken, "tokenise")
    benchmark.extra_info |= {f"{name}_us_per_row": median(s) / len(rows) * 1e6 for name, s in taken.items()}
    benchmark.pedantic(ways["cache"], rounds=10)


def test_opening_in_the_middle(benchmark):
    """Measure the milliseconds to the first of ten million shuffled items, from the start and from the middle."""
    n = 10_000_000
    dataset = pipe(data.source(range(n)), data.shuffle(seed=7), data.batch(BATCH))

    def first(index):
        reader = dataset.open(Cursor(1, index))
        next(reader)
        reader.close()

    ways = {"start": lambda: first(0), "middle": lambda: first(n // BATCH // 2)}
    taken = paired(ways, turns=10, calls=1, warm_up=1)
    note(benchmark, taken, "start")
    beyond = [b - a for a, b in zip(taken["start"], taken["middle"], strict=True)]
    benchmark.extra_info["ms beyond"] = [round(ms * 1e3, 2) for ms in (min(beyond), median(beyond), max(beyond))]
    print(f"\n  ms beyond opening at the start (least, median, most): {benchmark.extra_info['ms beyond']}", end="")
    benchmark.pedantic(ways["middle"], rounds=3)


@pytest.mark.parametrize("ahead", [0, 2])
def test_memory_of_a_stream(benchmark, ahead):
    """Measure how many kilobytes a million batches of a stream add to the process, with and without prefetch."""
    logging.getLogger("mlx_fp.data").setLevel(logging.WARNING)
    row = np.zeros(4, np.float32)
    operations = [data.map(lambda row: row + 1), data.batch(2), *([data.prefetch(ahead)] if ahead else [])]
    batches = 1_000_000 if not ahead else 100_000
    dataset = pipe(data.stream(lambda: (row for _ in range(2 * batches))), *operations)
    reader = iter(dataset)
    drain(islice(reader, 1_000))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    benchmark.pedantic(lambda: drain(reader), rounds=1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    benchmark.extra_info |= {"batches": batches, "grown_kb": grown}
    print(f"\n  {batches} batches in {time.perf_counter() - start:.0f} s: {grown} kB more", end="")
