"""The share of one process in a dataset: together the shares are the whole batches, and no row is read in vain."""

from __future__ import annotations

from contextlib import closing

import mlx.core as mx
import pytest
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import Cursor
from mlx_fp.data._share import open_share
from mlx_fp.step._rows import cut_out

ROWS = [{"x": [float(n), -float(n)], "n": n} for n in range(23)]
X = mx.arange(23).reshape(23, 1)


def noisy(row, key, index, epoch):
    noise = mx.random.uniform(key=key).item()
    return {**row, "noise": noise, "place": 100 * epoch + index}


def centered(batch):
    return {**batch, "x": batch["x"] - batch["x"].mean(axis=0)}


PIPELINES = {
    "order": (data.arrays(x=X, n=mx.arange(23)), data.shuffle(seed=3), data.batch(5)),
    "order, renamed": (data.arrays(x=X, n=mx.arange(23)), data.batch(6), data.collate({"n": "n", "z": "x"})),
    "order, last dropped": (data.arrays(x=X, n=mx.arange(23)), data.batch(7, drop_last=True), data.prefetch(2)),
    "a function of batches": (data.arrays(x=X * 1.0, n=mx.arange(23)), data.batch(6), data.map(centered)),
    "rows": (data.source(ROWS), data.shuffle(seed=1), data.map(noisy, key=7), data.batch(4), data.prefetch(2)),
    "rows, last dropped": (data.source(ROWS), data.map(noisy, key=7), data.batch(4, drop_last=True)),
    "filtered": (data.source(ROWS), data.filter(lambda row: row["n"] % 3), data.batch(4)),
    "padded": (
        data.source([{"n": [1] * (1 + n % 4)} for n in range(9)]),
        data.batch(4, stack=list),
        data.pad(),
    ),
    "stream": (data.stream(lambda: iter(ROWS)), data.batch(4)),
    "windows": (data.arrays(n=mx.arange(40)), data.window(5, step=4), data.batch(3)),
}


def shares(pipeline, rank, size, cursor=Cursor()):  # noqa: B008  # a frozen record
    with closing(open_share(pipe(*pipeline), cursor, "train", rank, size, cut_out)) as opened:
        return list(opened)


def values(batch):
    return {name: column.tolist() for name, column in batch.items()}


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_the_shares_of_all_processes_are_the_whole_batches(pipeline, size):
    for cursor in (Cursor(), Cursor(1, 2)):
        whole = list(pipe(*pipeline).open(cursor))
        by_rank = [shares(pipeline, rank, size, cursor) for rank in range(size)]
        for number, batch in enumerate(map(values, whole)):
            each = [by_rank[rank][number] for rank in range(size)]
            assert {share.total for share in each} == {len(batch["n"])}
            assert [share.counts for share in each] == [rank < len(batch["n"]) for rank in range(size)]
            for rank, share in enumerate(each):
                expected = {name: column[rank::size] or column[:1] for name, column in batch.items()}
                assert values(share.batch) == expected
        assert {len(each) for each in by_rank} == {len(whole)}


@pytest.mark.parametrize("operations", [(data.batch(4),), (data.map(dict), data.batch(4), data.prefetch(2))])
def test_no_row_of_another_process_is_read(operations):
    read = []

    class Rows:
        def __len__(self):
            return 23

        def __getitem__(self, index):
            read.append(index)
            return ROWS[index]

    shares((data.source(Rows()), *operations), 1, 3)
    assert read == [index for index in range(23) if index % 4 % 3 == 1]


def test_an_error_names_the_operation_and_the_row_in_the_whole_epoch():
    def fails(row):
        if row["n"] == 6:
            raise KeyError("label")
        return row

    pipeline = (data.source(ROWS), data.map(fails), data.batch(4))
    shares(pipeline, 1, 2)
    with pytest.raises(KeyError) as caught:
        shares(pipeline, 0, 2)
    assert caught.value.__notes__ == ["at operation=map(fails), split=train, epoch=0, index=6"]
