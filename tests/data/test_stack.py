"""Collation: rows into a batch, and what is wrong with rows that do not stack."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import plain
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

from mlx_fp import data
from mlx_fp.data import stack

Pair = namedtuple("Pair", "x y")


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.booleans(), st.text()), min_size=1))
def test_collating_is_transposing(rows):
    numbers, flags, words = stack(rows)
    assert list(zip(numbers.tolist(), flags.tolist(), words, strict=True)) == rows
    assert (numbers.dtype, flags.dtype) == (mx.int32, mx.bool_)


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([1, 2], mx.int32),
        ([2**31, 1], mx.int64),
        ([1.5, 2.5], mx.float32),
        ([1, 2.5], mx.float32),
        ([True, False], mx.bool_),
    ],
)
def test_numbers(rows, dtype):
    batch = stack(rows)
    assert (batch.tolist(), batch.dtype) == (rows, dtype)


@pytest.mark.parametrize("library", [mx, np], ids=["mlx", "numpy"])
def test_arrays_stay_what_they_are(library):
    rows = [library.ones((2, 3), dtype=library.float16)] * 4
    batch = stack(rows)
    assert type(batch) is type(rows[0])
    assert (batch.shape, batch.dtype) == ((4, 2, 3), library.float16)
    assert stack(list(library.arange(3))).tolist() == [0, 1, 2]


def test_structure_and_the_order_of_keys_are_the_first_row_s():
    rows = [OrderedDict(b=1, a={"c": (1.0, "s")}), OrderedDict(a={"c": (2.0, "t")}, b=2)]
    batch = stack(rows)
    assert list(batch) == ["b", "a"]
    number, words = batch["a"]["c"]
    assert (batch["b"].tolist(), number.tolist(), words) == ([1, 2], [1.0, 2.0], ["s", "t"])
    pair = stack([Pair(1, 2), Pair(3, 4)])
    assert isinstance(pair, Pair)
    assert (pair.x.tolist(), pair.y.tolist()) == ([1, 3], [2, 4])
    assert isinstance(stack([["a", 2]]), list)


NUMBERS = [
    ([([1.0, 2.0], 0), ([3.0, 4.0], 1)], 0, [[1.0, 2.0], [3.0, 4.0]], mx.float32),
    ([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}], "input_ids", [[1, 2, 3], [4, 5, 6]], mx.int32),
    ([{"x": [[1, 2], [3, 4]]}, {"x": [[5, 6], [7, 8]]}], "x", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], mx.int32),
    ([{"x": [True, False]}, {"x": [True, True]}], "x", [[True, False], [True, True]], mx.bool_),
    ([{"x": [1, 2]}, {"x": [3, 4.5]}], "x", [[1.0, 2.0], [3.0, 4.5]], mx.float32),
    ([{"x": [2**31]}, {"x": [1]}], "x", [[2**31], [1]], mx.int64),
    ([{"x": []}, {"x": []}], "x", [[], []], mx.float32),
    ([{"a": {"x": [1, 2]}}], "a", {"x": [[1, 2]]}, None),
]


@pytest.mark.parametrize(("rows", "column", "values", "dtype"), NUMBERS)
def test_a_list_of_numbers_in_a_row_is_an_array(rows, column, values, dtype):
    found = stack(rows)[column]
    if dtype is None:
        assert plain(found) == values
    else:
        assert (found.tolist(), found.dtype) == (values, dtype)
        assert isinstance(found, mx.array)


def test_rows_that_are_lists_of_numbers_are_one_array():
    assert stack([[1.0, 2.0], [3.0, 4.0]]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert data.unstack(stack([[1.0, 2.0], [3.0, 4.0]]))[1].tolist() == [3.0, 4.0]


def test_numbers_of_numpys_in_lists_are_an_array_of_numpys():
    found = stack([{"x": [np.float32(1), np.float32(2)]}, {"x": [np.float32(3), np.float32(4)]}])["x"]
    assert isinstance(found, np.ndarray)
    assert (found.tolist(), found.dtype) == ([[1, 2], [3, 4]], np.float32)


def test_lists_of_other_things_are_containers():
    words, arrays, pair = stack([(["a", "b"], [np.zeros(2), 1], (1, [2]))] * 2)
    assert words == [["a", "a"], ["b", "b"]]
    assert [place.shape for place in arrays] == [(2, 2), (2,)]
    assert [place.tolist() for place in pair] == [[1, 1], [[2], [2]]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"input_ids": [1, 2]}, {"input_ids": [3, 4]}, {"input_ids": [5]}],
            "row['input_ids']: row 0 has length 2, row 2 has length 1; pad them, see data.pad",
        ),
        (
            [([1.0, 2.0], 0), ([3.0], 1)],
            "row[0]: row 0 has length 2, row 1 has length 1; pad them, see data.pad",
        ),
        (
            [{"x": [[1, 2], [3, 4]]}, {"x": [[1, 2], [3]]}],
            "row['x'][1]: row 0 has length 2, row 1 has length 1; pad them, see data.pad",
        ),
        (
            [{"x": [[1, 2], [3]]}, {"x": [[1, 2], [3]]}],
            "row['x']: it is a list of lists of lengths [2, 1]; make it a tuple, or pad them",
        ),
        ([{"x": [1, 2]}, {"x": [1, None]}], "row['x'][1]: row 0 has type int, row 1 has type NoneType"),
        ([{"x": [1, 2]}, {"x": [1, [2]]}], "row['x'][1]: row 0 has type int, row 1 has type list"),
        ([{"x": [1, 2]}, {"x": (1, 2)}], "row['x']: row 0 has type list, row 1 has type tuple"),
        ([{"x": [1, 2**63]}], "row['x']: a number in it does not fit into int64"),
    ],
)
def test_lists_of_numbers_that_make_no_array_are_named(rows, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        stack(rows)
    assert str(error.value) == f"cannot stack {message}"


@pytest.mark.parametrize("batch", [data.batch(2), data.batch(2, stack=data.stack), data.window(2)], ids=repr)
def test_every_verb_that_joins_rows_makes_arrays_of_lists(batch):
    rows = [{"input_ids": [1, 2, 3], "label": 0}, {"input_ids": [4, 5, 6], "label": 1}]
    for source in (data.source(rows), data.stream(lambda: iter(rows))):
        (found,) = pipe(source, batch)
        assert plain(found) == {"input_ids": [[1, 2, 3], [4, 5, 6]], "label": [0, 1]}


def test_anything_else_stays_a_list():
    thing = object()
    for rows in (["a", "b"], [b"a"], [None, None], [thing, 3]):
        assert stack(rows) == rows


def test_the_rows_are_left_alone():
    rows = ["a", "b"]
    assert stack(rows) is not rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [mx.zeros(2), mx.zeros(3)],
            "cannot stack row: row 0 has shape (2,), row 1 has shape (3,); pad them, see data.pad",
        ),
        (
            [{"x": np.zeros((2, 2))}, {"x": np.zeros((2, 2))}, {"x": np.zeros((2, 3))}],
            "cannot stack row['x']: row 0 has shape (2, 2), row 2 has shape (2, 3); pad them, see data.pad",
        ),
        (
            [{"x": (1, mx.zeros(2))}, {"x": (1, mx.zeros(4))}],
            "cannot stack row['x'][1]: row 0 has shape (2,), row 1 has shape (4,); pad them, see data.pad",
        ),
        ([{"x": 1, "y": 2}, {"x": 1}], "cannot stack row: row 0 has keys x, y, row 1 has keys x"),
        ([(1, 2), (1, 2, 3)], "cannot stack row: row 0 has length 2, row 1 has length 3; pad them, see data.pad"),
        ([[1, 2], [1]], "cannot stack row: row 0 has length 2, row 1 has length 1; pad them, see data.pad"),
        ([{"x": 1}, (1,)], "cannot stack row: row 0 has type dict, row 1 has type tuple"),
        ([(1, 2), "ab"], "cannot stack row: row 0 has type tuple, row 1 has type str"),
        ([1, 2.5, None], "cannot stack row: row 0 has type int, row 2 has type NoneType"),
        ([mx.zeros(2), np.zeros(2)], "cannot stack row: row 0 has type array, row 1 has type ndarray"),
    ],
)
def test_rows_that_differ_are_named(rows, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        stack(rows)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "column",
    [
        [np.ma.masked_equal([0, 1], 0)] * 2,
        [np.zeros(2), np.ma.masked_equal([0, 1], 0)],
        list(np.ma.masked_equal([1.0, 0.0], 0)),
    ],
    ids=["masked", "masked later", "masked number"],
)
def test_masked_arrays_are_refused(column):
    with pytest.raises(TypeError) as error:
        stack([{"x": (value, 1)} for value in column])
    assert str(error.value) == (
        "row['x'][0] is a masked array of numpy, whose mask would be lost: "
        "fill it, as in x.filled(0), and give the mask as an array of its own where the loss needs it"
    )


def test_no_rows():
    with pytest.raises(ValueError, match="cannot stack no rows"):
        stack([])
