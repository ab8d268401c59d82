"""Rows as bytes: what is written comes back exactly, and other values are refused by name."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import bits
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp.data._row_bytes import decode_row, describe_layout, encode_row

NUMBERS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats()
LISTS = st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.booleans()) | st.lists(st.floats())
DTYPES = [np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_, np.complex64, ">i4"]
ARRAYS = st.builds(
    lambda shape, dtype: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from(DTYPES),
)
ROWS = st.recursive(
    NUMBERS | LISTS | ARRAYS,
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array(one).tobytes() == np.array(other).tobytes()


@given(row=ROWS)
def test_a_row_comes_back_exactly(row):
    layout, content = encode_row(row)
    assert same(decode_row(layout, content), row)


@pytest.mark.parametrize(
    "row",
    [
        [[], []],
        [[[1, 2]], [[3, 4]]],
        [[1.5], [2.5]],
        [{"a": 1}, (2,)],
        {},
        (),
        np.float32(1.5),
        [np.arange(3), 1],
        True,
    ],
    ids=repr,
)
def test_lists_of_lists_and_empty_containers_come_back(row):
    assert same(decode_row(*encode_row(row)), row)


def test_a_list_of_integers_and_floats_comes_back_as_floats():
    assert same(decode_row(*encode_row([1, 2.5])), [1.0, 2.5])


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float32, mx.int8, mx.bool_, mx.complex64, mx.uint32], ids=str)
def test_arrays_of_mlx_come_back_bit_for_bit(dtype):
    row = {"x": mx.random.normal((2, 3)).astype(dtype).T, "n": mx.array(3), "empty": mx.zeros((0, 2), dtype)}
    assert bits(decode_row(*encode_row(row))) == bits(row)


def test_rows_of_other_lengths_have_one_layout():
    rows = [{"a": np.arange(n), "b": [1] * n, "c": 1 if n else 1.5} for n in (0, 1, 5)]
    layouts = [encode_row(row)[0] for row in rows]
    assert layouts[0] == layouts[1] == layouts[2]
    assert describe_layout(layouts[0]) == "{a: numpy <i8 with 1 axes, b: list of numbers with 1 axes, c: number}"


def test_an_array_that_comes_back_may_be_changed_in_place():
    row = decode_row(*encode_row({"x": np.arange(3)}))
    row["x"] += 1
    assert row["x"].tolist() == [1, 2, 3]


Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": {"b": "text"}}, r"row\['a'\]\['b'\] is a str: a cache on disk holds numbers"),
        ([1, None], r"row is a list with a NoneType"),
        ((np.arange(2), None), r"row\[1\] is a NoneType"),
        (["a"], r"row\[0\] is a str"),
        (np.array(["a"]), r"row is an array of dtype <U1"),
        (np.array([None]), r"row is an array of dtype object"),
        (np.ma.masked_array([1, 2], [True, False]), "row is a masked array"),
        (Pair(1, 2), "row is a Pair"),
        (OrderedDict(a=1), "row is a OrderedDict"),
        ({1: 2}, "row has the key 1: a cache on disk holds dicts whose keys are texts"),
        ([[1], [2, 3]], "row is a list of lists of different lengths"),
        ([True, 2], "row is a list of bools and other numbers"),
        (b"bytes", "row is a bytes"),
    ],
    ids=repr,
)
def test_other_values_are_refused_with_their_place(row, message):
    with pytest.raises(TypeError, match=message):
        encode_row(row)


def test_an_integer_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match=r"row\['a'\] has an integer that does not fit into int64"):
        encode_row({"a": 2**63})


def test_every_changed_bit_is_noticed():
    layout, content = encode_row({"x": np.arange(4, dtype=np.int16), "n": 3})
    for position in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError, match="its checksum differs"):
                decode_row(layout, bytes(damaged))
    with pytest.raises(ValueError, match="its checksum differs"):
        decode_row(layout, content[:-1])
