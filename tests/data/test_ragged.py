"""Rows of different lengths: every row comes once, and a compiled step sees few shapes."""

from __future__ import annotations

import warnings
from collections import namedtuple
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
from helpers import read
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data import Cursor

Pair = namedtuple("Pair", "tokens label")
LENGTHS = [3, 9, 1, 4, 12, 7, 2, 5, 11, 6, 8, 2]


def padded(rows, **options):
    """The one batch of some rows."""
    (batch,) = pipe(data.source(rows), data.batch(len(rows), stack=list), data.pad(**options))
    return batch


def sentences(lengths=LENGTHS):
    return data.source([{"tokens": [i + 1] * n, "label": i} for i, n in enumerate(lengths)])


def length(row):
    return len(row["tokens"])


# bucket


def test_a_bucket_holds_lengths_up_to_and_with_its_boundary():
    rows = data.source(["a", "bb", "ccc", "dddd", "eeeee", "ffffffff"])
    lists = read(pipe(rows, data.bucket(len, boundaries=(2, 4), batch_size=2)))
    assert lists == [["a", "bb"], ["ccc", "dddd"], ["eeeee", "ffffffff"]]


def test_a_list_is_handed_out_when_it_is_full_and_the_rest_joined_at_the_end():
    rows = data.source(["a", "long", "b", "longer", "c", "longest"])
    assert read(pipe(rows, data.bucket(len, boundaries=[1], batch_size=2))) == [
        ["a", "b"],
        ["long", "longer"],
        ["c", "longest"],
    ]
    whole = data.bucket(len, boundaries=[1], batch_size=2, drop_last=True)
    assert read(whole(rows)) == [["a", "b"], ["long", "longer"]]


@given(st.lists(st.text(max_size=9)), st.integers(1, 4))
def test_every_row_comes_once_in_full_lists_of_like_length_but_for_what_is_left_at_the_end(words, size):
    bucket = data.bucket(len, boundaries=(0, 3, 6), batch_size=size)
    lists = read(pipe(data.source(words), bucket))
    assert sorted(word for words in lists for word in words) == sorted(words)
    assert all(len(words) == size for words in lists[:-1])
    whole = read(pipe(data.source(words), data.bucket(len, boundaries=(0, 3, 6), batch_size=size, drop_last=True)))
    assert lists[: len(whole)] == whole
    for words in whole:
        assert len({(len(word) > 0) + (len(word) > 3) + (len(word) > 6) for word in words}) == 1
    left = [word for words in lists[len(whole) :] for word in words]
    assert len(left) <= 4 * (size - 1)


def test_no_row_is_read_after_the_one_that_fills_a_list():
    taps = []
    rows = pipe(data.stream(lambda: iter(["a", "bb", "c", "d"])), data.tap(taps.append))
    assert next(iter(pipe(rows, data.bucket(len, boundaries=[1], batch_size=2)))) == ["a", "c"]
    assert taps == ["a", "bb", "c"]


def test_the_length_may_depend_on_the_place():
    by_place = data.bucket(lambda row, index, epoch: (index + epoch) // 2 % 2, boundaries=[0], batch_size=2)
    assert read(by_place(data.source("abcd"))) == [["a", "b"], ["c", "d"]]
    assert read(by_place(data.source("abcd")), 1) == [["b", "c"], ["a", "d"]]


@pytest.mark.parametrize("boundaries", [(), (2, 2), (3, 1), [1, 5, 4], (1, float("nan"))])
def test_boundaries_that_do_not_rise_are_refused_at_once(boundaries):
    with pytest.raises(ValueError, match="the boundaries of bucket must rise; got"):
        data.bucket(len, boundaries=boundaries, batch_size=2)


@pytest.mark.parametrize("boundaries", [8, None, ("a", "b"), "ab"])
def test_boundaries_that_are_no_numbers_are_refused_at_once(boundaries):
    with pytest.raises(TypeError, match=r"the boundaries of bucket are lengths in rising order, as in \(8, 16\); got"):
        data.bucket(len, boundaries=boundaries, batch_size=2)


def test_a_bad_batch_size_and_a_length_that_wants_more_are_refused_at_once():
    with pytest.raises(ValueError, match="the batch_size of bucket must be an integer of at least 1; got 0"):
        data.bucket(len, boundaries=[1], batch_size=0)
    with pytest.raises(TypeError, match="bucket function '<lambda>' requires 'vocabulary', which is not on offer"):
        data.bucket(lambda row, vocabulary: 1, boundaries=[1], batch_size=2)


def test_an_error_of_the_length_names_the_row():
    with pytest.raises(TypeError, match="has no len") as error:
        read(pipe(data.source(["a", "b", 3]), data.bucket(len, boundaries=[1], batch_size=9)), 4)
    assert error.value.__notes__ == [
        "at operation=bucket(len, boundaries=(1,), batch_size=9), split=train, epoch=4, index=2"
    ]


def test_buckets_go_on_from_every_cursor():
    dataset = pipe(
        sentences(), data.shuffle(seed=1), data.bucket(length, boundaries=(4, 8), batch_size=3), data.pad(to=(4, 8, 12))
    )
    whole = [batch["tokens"].tolist() for batch in read(dataset, 2)]
    for index in range(len(whole) + 1):
        assert [batch["tokens"].tolist() for batch in dataset.open(Cursor(2, index))] == whole[index:]


# pad


@pytest.mark.parametrize(
    "make", [list, mx.array, lambda row: np.array(row, np.int32)], ids=["list of numbers", "mlx", "numpy"]
)
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [[1, 2, 3], [4, 0, 0]]),
        ({"multiple_of": 2}, [[1, 2, 3, 0], [4, 0, 0, 0]]),
        ({"multiple_of": 3}, [[1, 2, 3], [4, 0, 0]]),
        ({"to": (5, 2)}, [[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]]),
        ({"to": [3, 9]}, [[1, 2, 3], [4, 0, 0]]),
        ({"value": -1}, [[1, 2, 3], [4, -1, -1]]),
    ],
    ids=repr,
)
def test_rows_are_filled_up_to_one_length(make, options, rows):
    batch = padded([make([1, 2, 3]), make([4])], **options)
    assert batch.tolist() == rows
    assert isinstance(batch, np.ndarray if make([1]).__class__ is np.ndarray else mx.array)


@pytest.mark.parametrize("dtype", [mx.bool_, mx.uint8, mx.int64, mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_a_padded_batch_keeps_the_dtype_of_its_rows(dtype):
    batch = padded([mx.ones((2, 3), dtype=dtype), mx.ones((1, 3), dtype=dtype)])
    assert (batch.shape, batch.dtype) == ((2, 2, 3), dtype)


@pytest.mark.parametrize("value", [0, 0.0, False, 1])
@pytest.mark.parametrize("rows", [[[True, False]] * 2, [[True], [False, True]], [[], [True]]], ids=repr)
def test_lists_of_bools_stay_bool(rows, value):
    batch = padded(rows, value=value)
    longest = max(map(len, rows))
    assert (batch.dtype, batch.tolist()) == (mx.bool_, [row + [bool(value)] * (longest - len(row)) for row in rows])


def test_lists_of_bools_and_numbers_are_numbers():
    assert (padded([[True], [2, 3]]).tolist(), padded([[True], [2, 3]]).dtype) == ([[1, 0], [2, 3]], mx.int32)
    assert padded([[], []], to=(2,)).dtype == mx.int32


MAKERS = {
    "list of numbers": list,
    "mlx": lambda row: mx.array(row, mx.int32),
    "numpy": lambda row: np.array(row, np.int32),
}


@pytest.mark.parametrize("rows", [[[1, 2], [3]], [[1], [2]]], ids=["filled", "full"])
@pytest.mark.parametrize("value", [0.5, -1.5, 1e20, float("nan"), float("inf")])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_integers_are_filled_with_integers_alone(make, value, rows):
    with pytest.raises(
        ValueError, match=r"pad cannot fill row\['x'\] up with .*, which int(32|64) does not hold"
    ) as error:
        padded([{"x": make(row)} for row in rows], value=value)
    assert error.value.__notes__ == [f"at operation=pad(value={value}), split=train, epoch=0, index=0"]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_whole_number_leaves_integers_integers(make):
    batch = padded([make([1, 2**24 + 1]), make([3])], value=2.0)
    assert (batch.tolist(), str(batch.dtype).removeprefix("mlx.core.")) == ([[1, 2**24 + 1], [3, 2]], "int32")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("bool_", 2), ("bool_", 0.5), ("uint8", -1), ("uint8", 256), ("int8", -129), ("int64", 2**63), ("float16", 1e10)],
)
@pytest.mark.parametrize("of", [mx, np], ids=["mlx", "numpy"])
def test_what_a_dtype_does_not_hold_is_refused(of, dtype, value):
    rows = [of.ones((2,), dtype=getattr(of, dtype)), of.ones((1,), dtype=getattr(of, dtype))]
    with pytest.raises(ValueError, match=f"up with {value}, which {dtype.strip('_')} does not hold"):
        padded(rows, value=value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("bool_", 1.0), ("uint8", 255), ("int8", -128.0), ("int64", 2**53 + 1), ("float16", -np.inf), ("float32", 0.1)],
)
@pytest.mark.parametrize("of", [mx, np], ids=["mlx", "numpy"])
def test_what_a_dtype_holds_is_filled_in(of, dtype, value):
    one = getattr(of, dtype)
    batch = padded([of.ones((2,), dtype=one), of.ones((1,), dtype=one)], value=value)
    assert (batch.dtype, batch[1, 1].item()) == (one, np.array(value).astype(dtype.strip("_")).item())


@pytest.mark.parametrize("rows", [[[True, False], [True]], [[True], [False]]], ids=["filled", "full"])
@pytest.mark.parametrize("value", [0.5, 2, -1])
def test_lists_of_bools_are_filled_with_bools_alone(rows, value):
    with pytest.raises(ValueError, match=f"pad cannot fill row up with {value}, which bool does not hold"):
        padded(rows, value=value)


def test_lists_with_a_float_in_them_are_floats_together():
    batch = padded([[1, 2], [1.5], []], value=0.25)
    assert (batch.tolist(), batch.dtype) == ([[1.0, 2.0], [1.5, 0.25], [0.25, 0.25]], mx.float32)
    assert padded([[], []], to=(1,), value=0.5).tolist() == [[0.5], [0.5]]
    with pytest.raises(ValueError, match="up with 1e\\+300, which float32 does not hold"):
        padded([[1.5, 2.5], [1.5]], value=1e300)


def test_numpy_fills_what_mlx_has_no_dtype_for():
    rows = [np.array([1, 2], "m8[s]"), np.array([3], "m8[s]")]
    assert padded(rows).tolist() == np.array([[1, 2], [3, 0]], "m8[s]").tolist()


def test_a_padded_numpy_batch_keeps_the_dtype_and_the_other_axes():
    batch = padded([np.ones((2, 3), np.float16), np.ones((4, 3), np.float16)], value=7, multiple_of=8)
    assert (batch.shape, batch.dtype) == ((2, 8, 3), np.float16)
    assert batch[0, 2:].tolist() == [[7.0] * 3] * 6


def test_each_array_of_a_row_is_padded_to_its_own_longest():
    rows = [{"a": [1], "b": (mx.zeros(3), {"c": np.zeros(1)})}, {"a": [1, 2], "b": (mx.zeros(1), {"c": np.zeros(5)})}]
    batch = padded(rows)
    assert (batch["a"].shape, batch["b"][0].shape, batch["b"][1]["c"].shape) == ((2, 2), (2, 3), (2, 5))


def test_what_has_no_length_is_stacked():
    batch = padded([{"x": [1, 2], "y": 3, "name": "a"}, {"x": [1], "y": 4, "name": "b"}])
    assert (batch["y"].tolist(), batch["name"]) == ([3, 4], ["a", "b"])


def test_named_tuples_stay_named():
    batch = padded([Pair([1, 2], 0), Pair([3], 1)])
    assert isinstance(batch, Pair)
    assert (batch.tokens.tolist(), batch.label.tolist()) == ([[1, 2], [3, 0]], [0, 1])


def test_rows_without_anything_in_them():
    assert padded([[], [1.5]]).tolist() == [[0], [1.5]]
    assert padded([[], []], to=(2,)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("make", [list, mx.array, np.array], ids=["list of numbers", "mlx", "numpy"])
def test_lengths_are_those_before_padding(make):
    batch = padded([{"y": 0, "x": make([1, 2, 3])}, {"y": 1, "x": make([4])}], multiple_of=8, lengths="n")
    assert (batch["n"].tolist(), batch["n"].dtype, batch["x"].shape) == ([3, 1], mx.int32, (2, 8))


def test_lengths_are_found_inside_nested_rows():
    batch = padded([{"input": {"id": 7, "x": [1, 2]}}, {"input": {"id": 8, "x": []}}], lengths="n")
    assert batch["n"].tolist() == [2, 0]
    assert padded([{"pair": ("a", [1, 2, 3])}], lengths="n")["n"].tolist() == [3]


def test_lengths_need_rows_that_are_dicts():
    with pytest.raises(TypeError, match=r"pad\(lengths=…\) adds a key to rows that are dicts; got list of 2"):
        padded([[1, 2]], lengths="n")


def test_a_row_longer_than_the_last_length_is_refused_with_its_place():
    dataset = pipe(sentences([1, 2, 3, 9]), data.batch(2, stack=list), data.pad(to=(4, 8)))
    with pytest.raises(
        ValueError, match=r"a row has length 9, longer than the last of pad\(to=\(4, 8\)\): cut or filter it"
    ) as error:
        read(dataset, 5)
    assert error.value.__notes__ == ["at operation=pad(to=(4, 8)), split=train, epoch=5, index=1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"x": [1]}, {"x": [2], "y": [3]}], "row: row 0 has keys x, row 1 has keys x, y"),
        ([{"x": [1], "y": [3]}, {"x": [2], "y": [1]}, {"x": [2]}], "row: row 0 has keys x, y, row 2 has keys x"),
        ([{"x": [1]}, {"y": [2]}], "row: row 0 has keys x, row 1 has keys y"),
        ([({"x": [1]},), ({"x": [2], "y": 3},)], "row[0]: row 0 has keys x, row 1 has keys x, y"),
        ([{"in": {"x": [1]}}, {"in": {"x": [2], "y": 3}}], "row['in']: row 0 has keys x, row 1 has keys x, y"),
        ([{"x": [1]}, [2]], "row: row 0 has type dict, row 1 has type list"),
    ],
)
def test_rows_with_other_keys_than_the_first_are_named(rows, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        padded(rows)
    assert str(error.value) == f"cannot stack {message}"
    assert error.value.__notes__ == ["at operation=pad(), split=train, epoch=0, index=0"]


@pytest.mark.parametrize("lengths", [(2, 2), (2, 1)])
def test_masked_arrays_are_refused(lengths):
    rows = [{"x": np.ma.masked_equal(np.arange(n), 0)} for n in lengths]
    with pytest.raises(TypeError, match=r"^row\['x'\] is a masked array of numpy, whose mask would be lost: fill it"):
        padded(rows)


def test_pad_wants_lists_of_rows():
    with pytest.raises(TypeError, match=r"as batch\(n, stack=list\) gives; got \{x: int64 \(2,\)\}") as error:
        read(pipe(data.arrays(x=np.zeros(4, np.int64)), data.batch(2), data.pad()))
    assert error.value.__notes__ == ["at operation=pad(), split=train, epoch=0, index=0"]


@pytest.mark.parametrize(
    "options", [{"multiple_of": 0}, {"multiple_of": 1.5}, {"to": (0, 4)}, {"to": (2.5,)}], ids=repr
)
def test_bad_lengths_are_refused_at_once(options):
    with pytest.raises(ValueError, match="of pad.* must be an integer of at least 1; got"):
        data.pad(**options)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_left_side_is_filled(make):
    batch = padded([{"x": make([1, 2, 3])}, {"x": make([4])}], side="left", multiple_of=4, value=9, lengths="n")
    assert batch["x"].tolist() == [[9, 1, 2, 3], [9, 9, 9, 4]]
    assert batch["n"].tolist() == [3, 1]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_column_has_a_value_of_its_own(make, side):
    rows = [
        {"input_ids": make([1, 2]), "labels": make([3, 4]), "mask": [True, True], "id": 0},
        {"input_ids": make([5]), "labels": make([6]), "mask": [True], "id": 1},
    ]
    batch = padded(rows, value={"labels": -100, "input_ids": 7}, side=side)
    turn = (lambda row: row[::-1]) if side == "left" else list
    assert batch["input_ids"].tolist() == [[1, 2], turn([5, 7])]
    assert batch["labels"].tolist() == [[3, 4], turn([6, -100])]
    assert batch["mask"].tolist() == [[True, True], turn([True, False])]
    assert batch["id"].tolist() == [0, 1]


def test_values_by_column_reach_nested_columns_and_those_of_tuples():
    nested = padded([{"a": {"x": [1, 2], "y": [1]}}, {"a": {"x": [3], "y": []}}], value={"x": 9})
    assert (nested["a"]["x"].tolist(), nested["a"]["y"].tolist()) == ([[1, 2], [3, 9]], [[1], [0]])
    below = padded([{"a": {"x": [1, 2]}}, {"a": {"x": [3]}}], value={"a": 9})
    assert below["a"]["x"].tolist() == [[1, 2], [3, 9]]
    pair = padded([([1, 2], [1]), ([3], [1, 2])], value={1: -1})
    assert [part.tolist() for part in pair] == [[[1, 2], [3, 0]], [[1, -1], [1, 2]]]


def test_a_value_for_a_column_that_the_rows_lack_is_named():
    with pytest.raises(ValueError, match=r"unknown column of pad\(value=…\) 'label': did you mean 'labels'\?") as error:
        padded([{"x": [1, 2], "labels": [1]}], value={"label": -100})
    assert error.value.__notes__ == ["at operation=pad(value={'label': -100}), split=train, epoch=0, index=0"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_lists_of_lists_of_numbers_are_padded_along_their_first_axis(side):
    batch = padded([[[1, 2], [3, 4]], [[5, 6]], []], value=-1, side=side)
    rest = [[-1, -1], [5, 6]]
    assert batch.tolist() == [[[1, 2], [3, 4]], rest if side == "left" else rest[::-1], [[-1, -1], [-1, -1]]]
    with pytest.raises(ValueError, match="cannot stack row"):
        padded([[[1, 2]], [1, 2]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value": "x"}, TypeError, "the value of pad is a number, or a dict of one for each column; got 'x'"),
        ({"value": None}, TypeError, "the value of pad is a number"),
        ({"value": [0]}, TypeError, "the value of pad is a number"),
        (
            {"value": {"labels": "x"}},
            TypeError,
            "a number for each column, as in {'labels': -100}; got 'x' for 'labels'",
        ),
        ({"value": {("a", "b"): 0}}, TypeError, "a number for each column"),
        ({"to": 8}, TypeError, r"to of pad holds the possible lengths, as in to=\(8, 16\); got 8: write to=\(8,\)"),
        ({"to": "8"}, ValueError, "a length of pad.* must be an integer of at least 1; got '8'"),
        ({"multiple_of": "8"}, ValueError, "the multiple_of of pad must be an integer of at least 1; got '8'"),
        ({"side": "lefft"}, ValueError, "unknown side of pad 'lefft': did you mean 'left'"),
        ({"side": 1}, ValueError, "unknown side of pad '1'"),
        ({"lengths": True}, TypeError, "lengths of pad is the key of a column, as in lengths='n'; got True"),
    ],
)
def test_bad_options_of_pad_are_refused_when_it_is_built(options, error, message):
    with pytest.raises(error, match=message):
        data.pad(**options)


def test_pad_says_its_side():
    assert repr(data.pad(to=(4,), side="left")) == "pad(to=(4,), side='left')"


# few shapes, few traces


def loss(model, tokens, label, n):
    """The mean over what is no padding."""
    logits = model(tokens)
    inside = mx.arange(tokens.shape[1])[None] < n[:, None]
    pooled = (logits * inside[..., None]).sum(axis=1) / n[:, None]
    return nn.losses.cross_entropy(pooled, label, reduction="mean")


MODEL = nn.sequential(nn.embedding(16, 4), nn.linear(4, 12))


@pytest.mark.parametrize(
    ("group", "options", "many"),
    [
        (data.bucket(length, boundaries=(4, 8), batch_size=2, drop_last=True), {"to": (4, 8, 12)}, 3),
        (data.batch(2, stack=list), {"multiple_of": 6}, 2),
        (data.batch(4, stack=list), {"to": (12,)}, 1),
    ],
    ids=repr,
)
@pytest.mark.usual("batch(2, stack=list)-{'multiple_of': 6}-2", "batch(4, stack=list)-{'to': (12,)}-1")
def test_a_step_is_traced_once_a_shape_and_shapes_are_few(group, options, many):
    dataset = pipe(sentences(), data.shuffle(seed=3), group, data.pad(**options, lengths="n"))
    step = fp.train_step(MODEL, loss, optim.sgd(0.5))
    params, opt_state = step.init(0)
    shapes = set()
    for epoch in range(4):
        for batch in dataset.open(Cursor(epoch)):
            shapes.add(batch["tokens"].shape)
            params, opt_state, logs = step(params, opt_state, batch)
    assert step.traces == len(shapes) == many
    assert mx.isfinite(logs["loss"]).item()


def test_padding_that_is_masked_changes_no_loss():
    step = fp.eval_step(MODEL, loss)
    params = nn.init(0)(MODEL)
    found = []
    for options in ({}, {"multiple_of": 8}, {"to": (32,), "value": 9}):
        dataset = pipe(sentences(), data.batch(6, stack=list), data.pad(lengths="n", **options))
        found.append([step(params, step.init(), batch)[1]["loss"].item() for batch in dataset])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-5)


def test_fit_trains_on_buckets():
    train = pipe(
        sentences(),
        data.shuffle(seed=0),
        data.bucket(length, boundaries=(6,), batch_size=3, drop_last=True),
        data.pad(to=(6, 12), lengths="n"),
    )
    report = pipe(
        fp.trainer(MODEL, loss), fp.with_optimizer(optim.adam(0.1)), fp.fit(train, epochs=20, seed=1, quiet=True)
    )
    assert report.rows[-1].epoch_loss < report.rows[0].epoch_loss / 4


def test_validation_on_buckets_keeps_its_leftovers_without_a_warning():
    """Three lengths and leftovers of each: one shape more than lengths, and every row counts once."""
    lengths = [n for n, many in ((3, 5), (7, 6), (11, 7)) for _ in range(many)]
    valid = pipe(
        sentences(lengths),
        data.bucket(length, boundaries=(4, 8), batch_size=4),
        data.pad(to=(4, 8, 12), lengths="n"),
    )
    model = nn.sequential(nn.embedding(32, 4), nn.linear(4, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = pipe(
            fp.trainer(model, loss),
            fp.with_optimizer(optim.sgd(0.1)),
            fp.fit(valid, validation=valid, epochs=2, quiet=True),
        )
    shapes = [batch["tokens"].shape for batch in valid]
    assert shapes == [(4, 4), (4, 8), (4, 12), (4, 12), (2, 12)]
    assert sorted(i for batch in valid for i in batch["label"].tolist()) == list(range(18))
    assert len(report.rows) == 2


def test_a_stream_is_padded_as_it_comes():
    endless = data.stream(lambda: ([i] * (1 + i % 5) for i in iter(int, 1)))
    batches = pipe(endless, data.batch(4, stack=list), data.pad(to=(8,)))
    assert [batch.shape for batch in islice(batches, 3)] == [(4, 8)] * 3


@pytest.mark.parametrize("options", [{"to": ()}, {"to": (4, 8), "multiple_of": 2}])
def test_lengths_and_multiples_exclude_each_other(options):
    with pytest.raises(ValueError, match="one of the two"):
        data.pad(**options)


# pad after bucket

ENDS = (2, 5, 9)


@given(st.lists(st.integers(1, ENDS[-1]), min_size=1, max_size=60), st.integers(1, 4), st.sampled_from([1, 4]))
def test_lists_of_a_bucket_have_few_shapes_in_all_epochs(lengths, size, multiple):
    dataset = pipe(
        sentences(lengths),
        data.shuffle(seed=3),
        data.bucket(length, boundaries=ENDS, batch_size=size),
        data.pad(multiple_of=multiple),
    )
    batches = [batch for epoch in range(3) for batch in read(dataset, epoch)]
    shapes = {batch["tokens"].shape for batch in batches}
    assert len(shapes) <= len(ENDS) + 1
    assert {width for _, width in shapes} <= {-(-end // multiple) * multiple for end in ENDS}
    assert sum(len(batch["label"]) for batch in batches) == 3 * len(lengths)


def test_rows_behind_the_last_boundary_and_columns_of_another_length_are_padded_to_their_longest():
    rows = [{"tokens": [1] * n, "other": [1] * 3} for n in (3, 12, 4, 13)]
    bucket = data.bucket(length, boundaries=(8,), batch_size=2)
    shapes = [(b["tokens"].shape, b["other"].shape) for b in read(pipe(data.source(rows), bucket, data.pad()))]
    assert shapes == [((2, 8), (2, 3)), ((2, 13), (2, 3))]


def test_lengths_of_pad_go_before_boundaries():
    bucket = data.bucket(length, boundaries=(8,), batch_size=2)
    (batch,) = read(pipe(sentences([3, 4]), bucket, data.pad(to=(4, 16), lengths="n")))
    assert batch["tokens"].shape == (2, 4)
    assert batch["n"].tolist() == [3, 4]


def test_a_boundary_that_is_no_integer_is_rounded_down():
    (batch,) = read(pipe(sentences([3, 4]), data.bucket(length, boundaries=(6.5,), batch_size=2), data.pad()))
    assert batch["tokens"].shape == (2, 6)


def test_a_function_between_them_may_change_the_lists():
    cut = data.map(lambda rows: [{**row, "tokens": row["tokens"][:2]} for row in rows])
    (batch,) = read(pipe(sentences([3, 4]), data.bucket(length, boundaries=(8,), batch_size=2), cut, data.pad()))
    assert batch["tokens"].shape == (2, 2)
