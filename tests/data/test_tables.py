"""Tables and labelled columns: refused with the way to their rows, and no label is taken for a position."""

from __future__ import annotations

import re

import numpy as np
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data


class PolarsFrame:
    """What tells a frame of polars, which need not be installed; indexed by a number it gives a column."""

    columns = ("x",)

    def __len__(self):
        return 3

    def __getitem__(self, at):
        return [1, 2, 3]

    def to_dicts(self):
        return [{"x": 1}, {"x": 2}, {"x": 3}]


class PolarsLazyFrame:
    """What tells a lazy frame of polars."""

    columns = ("x",)

    def collect_schema(self): ...

    def collect(self):
        return PolarsFrame()


def tables():
    """Every kind of table that is installed, the fakes too, with what its message says to write."""
    yield PolarsFrame(), "table.to_dicts()"
    yield PolarsLazyFrame(), "table.collect().to_dicts()"
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        frame = pd.DataFrame({"x": [1, 2, 3]}).sample(frac=1, random_state=0)
        yield frame, 'table.to_dict("records"), or data.arrays(x=table["x"].to_numpy(), …)'
    try:
        import pyarrow as pa
    except ImportError:
        pass
    else:
        yield pa.table({"x": [1, 2, 3]}), "table.to_pylist()"
        yield pa.record_batch({"x": [1, 2, 3]}), "table.to_pylist()"
    try:
        import polars as pl
    except ImportError:
        return
    yield pl.DataFrame({"x": [1, 2, 3]}), "table.to_dicts()"
    yield pl.DataFrame({"x": [1, 2, 3]}).lazy(), "table.collect().to_dicts()"


TABLES = list(tables())
ids = [f"{type(table).__module__}.{type(table).__name__}" for table, _ in TABLES]


@pytest.mark.parametrize(("table", "remedy"), TABLES, ids=ids)
@pytest.mark.parametrize(
    "take",
    [
        data.source,
        data.concat,
        lambda table: data.zip(x=[1, 2, 3], y=table),
        lambda table: data.splits(train=table),
        lambda table: pipe(fp.trainer(fp.nn.linear(1, 1), fp.regression()), fp.fit(table, epochs=1)),
    ],
    ids=["source", "concat", "zip", "splits", "fit"],
)
def test_a_table_is_refused_when_the_dataset_is_made(take, table, remedy):
    with pytest.raises(TypeError, match=f"^source takes rows by position, and a .* write {re.escape(remedy)}$"):
        take(table)


@pytest.mark.parametrize(("table", "remedy"), TABLES, ids=ids)
@pytest.mark.parametrize(
    "dataset",
    [lambda table: data.stream(lambda: table), lambda table: pipe(data.source([0]), data.flat_map(lambda row: table))],
    ids=["stream", "flat_map"],
)
def test_a_table_that_would_be_iterated_gives_columns_and_is_refused(dataset, table, remedy):
    with pytest.raises(TypeError, match="takes rows by position|returns an iterable|is not iterable"):
        list(dataset(table))


def test_a_stream_of_a_mapping_gives_its_keys_and_is_refused():
    with pytest.raises(TypeError, match="the factory of stream\\(<lambda>\\) returns rows, not a dict"):
        list(data.stream(lambda: {"x": [1, 2]}))


def test_a_shuffled_series_is_refused_and_its_values_come_by_position():
    pd = pytest.importorskip("pandas")
    series = pd.Series([0, 1, 2], index=[2, 0, 1])
    with pytest.raises(TypeError, match=r"a Series is no such sequence: write column.to_list\(\), or data.arrays"):
        data.zip(x=data.source([0, 1, 2]), y=data.source(series))
    with pytest.raises(TypeError, match=r"column 'y' of arrays must be .*; got Series: give its \.to_numpy\(\)"):
        data.arrays(y=series)
    pairs = data.zip(x=data.source([0, 1, 2]), y=data.source(series.to_list()))
    assert [(row["x"], row["y"]) for row in pairs] == [(0, 0), (1, 1), (2, 2)]
    assert [row["y"] for row in data.arrays(y=series.to_numpy())] == [0, 1, 2]
    assert list(data.stream(lambda: series)) == [0, 1, 2]


def test_the_remedies_give_the_rows_of_a_shuffled_frame_by_position():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [4, 5, 6], "y": [0, 1, 0]}).iloc[[2, 0, 1]]
    expected = [{"x": 6, "y": 0}, {"x": 4, "y": 0}, {"x": 5, "y": 1}]
    assert list(data.source(frame.to_dict("records"))) == expected
    columns = data.arrays(**{name: frame[name].to_numpy() for name in frame})
    assert [{name: int(value) for name, value in row.items()} for row in columns] == expected


def test_the_scalars_of_an_arrow_array_are_no_numbers_and_are_refused():
    pa = pytest.importorskip("pyarrow")
    for column in (pa.array([1, 2]), pa.chunked_array([[1], [2]])):
        with pytest.raises(TypeError, match=r"write table.to_pylist\(\)"):
            data.source(column)
        assert list(data.source(column.to_pylist())) == [1, 2]
        assert [row[0] for row in data.arrays(np.asarray(column))] == [1, 2]


@pytest.mark.parametrize("name", ["arrow", "pandas"])
def test_a_dataset_whose_rows_are_tables_is_refused_and_its_plain_rows_are_taken(name):
    pytest.importorskip(name.replace("arrow", "pyarrow"))
    datasets = pytest.importorskip("datasets")
    given = datasets.Dataset.from_list([{"ids": [1, 2], "y": 0}, {"ids": [3, 4], "y": 1}]).with_format(name)
    with pytest.raises(
        TypeError, match=f"source: rows in the format '{name}' are tables: write .with_format\\(None\\)"
    ):
        data.source(given)
    (batch,) = pipe(data.source(given.with_format(None)), data.shuffle(seed=0), data.batch(2))
    assert sorted(batch["ids"].tolist()) == [[1, 2], [3, 4]]
    assert batch["y"].shape == (2,)


def test_sequences_that_are_indexed_by_position_pass():
    pd = pytest.importorskip("pandas")
    assert list(data.source(pd.Index([3, 4]))) == [3, 4]
    assert list(data.source(np.array([3, 4]))) == [3, 4]
