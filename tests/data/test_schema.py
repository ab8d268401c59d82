"""Batches are what they should be, or an error says which one is not, where, and what it is."""

from __future__ import annotations

from collections import namedtuple

import mlx.core as mx
import numpy as np
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn
from mlx_fp.data import Cursor

Pair = namedtuple("Pair", "x y")


def checked(batch, *columns, **by_name):
    return next(iter(data.schema(*columns, **by_name)(data.source([batch]))))


@pytest.mark.parametrize(
    "spec",
    [
        mx.float32,
        np.float32,
        np.dtype("float32"),
        "float32",
        2,
        (4, 3),
        (None, 3),
        (None, None),
        (mx.float32, 2),
        ("float32", (4, None)),
        (np.float32, (4, 3)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("library", [mx, np], ids=["mlx", "numpy"])
def test_what_fits_passes_as_it_is(library, spec):
    batch = {"x": library.zeros((4, 3), dtype=library.float32)}
    assert checked(batch, x=spec) is batch


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (mx.int32, "int32"),
        (np.float64, "float64"),
        ("float16", "float16"),
        (1, "an array of rank 1"),
        (3, "an array of rank 3"),
        ((4,), "an array (4,)"),
        ((4, 2), "an array (4, 2)"),
        ((None, None, None), "an array (None, None, None)"),
        ((), "an array ()"),
        ((mx.int32, 2), "int32 of rank 2"),
        ((mx.float32, (None, 4)), "float32 (None, 4)"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("library", [mx, np], ids=["mlx", "numpy"])
def test_what_does_not_fit_is_told_by_column_with_what_was_expected_and_what_came(library, spec, expected):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        checked({"x": library.zeros((4, 3), dtype=library.float32)}, x=spec)
    assert str(error.value) == f"schema: x must be {expected}; got float32 (4, 3)"


@pytest.mark.parametrize("dtype", [mx.bool_, mx.bfloat16, mx.uint32, mx.int64], ids=str)
def test_every_dtype_of_mlx_is_itself_and_no_other(dtype):
    batch = {"x": mx.zeros(2, dtype=dtype)}
    assert checked(batch, x=dtype) is batch
    with pytest.raises(ValueError, match="schema: x must be float32; got"):
        checked(batch, x=mx.float32)


def test_a_shape_of_nothing_is_a_scalar():
    assert checked({"x": mx.array(1.0)}, x=())["x"].item() == 1.0


@pytest.mark.parametrize("batch", [(mx.zeros((2, 3)), mx.zeros(2)), Pair(mx.zeros((2, 3)), mx.zeros(2))])
def test_columns_of_tuples_are_checked_by_position(batch):
    assert checked(batch, (None, 3), 1) is batch
    with pytest.raises(ValueError, match=r"schema: 1 must be int32; got float32 \(2,\)"):
        checked(batch, (None, 3), "int32")


def test_an_array_alone_is_one_column():
    x = mx.zeros((2, 3))
    assert checked(x, (None, 3)) is x


@pytest.mark.parametrize(
    ("batch", "columns", "by_name", "message"),
    [
        ({"x": mx.zeros(2)}, (), {"x": 1, "y": 1}, r"the batch must have x, y; got \{x: float32 \(2,\)\}"),
        (
            {"x": mx.zeros(2), "z": mx.zeros(1)},
            (),
            {"x": 1},
            r"must have x; got \{x: float32 \(2,\), z: float32 \(1,\)\}",
        ),
        ((mx.zeros(2),), (), {"x": 1}, r"the batch must have x; got \(float32 \(2,\)\)"),
        ((mx.zeros(2),), (1, 1), {}, r"the batch must have 2 columns; got \(float32 \(2,\)\)"),
        ({"x": ["a", "b"]}, (), {"x": "float32"}, r"schema: x must be float32; got list of 2"),
        ({"x": 3}, (), {"x": 0}, r"schema: x must be an array of rank 0; got int"),
    ],
)
def test_columns_that_lack_or_are_too_many_or_no_arrays_are_told(batch, columns, by_name, message):
    with pytest.raises(ValueError, match=message):
        checked(batch, *columns, **by_name)


def test_the_note_says_which_batch():
    x = np.zeros((6, 3), np.float32)
    rows = pipe(data.arrays(x=x), data.batch(2), data.map(lambda batch, index: {"x": batch["x"][: 2 - index // 2]}))
    reader = data.schema(x=("float32", (2, 3)))(rows).open(Cursor(5, 1), kind="validation")
    assert next(reader)["x"].shape == (2, 3)
    with pytest.raises(ValueError, match=r"schema: x must be float32 \(2, 3\); got float32 \(1, 3\)") as error:
        next(reader)
    assert error.value.__notes__ == ["at operation=schema(x=('float32', (2, 3))), split=validation, epoch=5, index=2"]


@pytest.mark.parametrize(
    "spec", [1.5, [2, 3], (mx.float32, mx.float32), (2, mx.float32), (mx.float32, 2, 3), "not a dtype"]
)
def test_what_is_no_column_is_refused_when_built(spec):
    with pytest.raises(TypeError, match="schema: column 'x' is a dtype, a rank, a shape, or a dtype with one of them"):
        data.schema(x=spec)
    with pytest.raises(TypeError, match="schema: column 1 is a dtype"):
        data.schema(1, spec)


def test_columns_are_given_all_by_position_or_all_by_name():
    for columns, by_name in (((), {}), ((1,), {"x": 1})):
        with pytest.raises(TypeError, match="schema takes columns, all by position or all by name"):
            data.schema(*columns, **by_name)


def test_a_schema_reads_like_its_call_and_keeps_len():
    dataset = pipe(data.arrays(mx.zeros(4), mx.zeros(4)), data.batch(2), data.schema(1, 1))
    assert repr(dataset).endswith("schema(1, 1))")
    assert len(dataset) == 2


def test_the_run_of_a_compiled_step_stops_at_the_batch_that_breaks_its_schema():
    y = np.zeros(12, np.float32)
    train = pipe(
        data.arrays(x=np.ones((12, 3), np.float32), y=y),
        data.batch(4),
        data.map(lambda batch, index, epoch: batch if (epoch, index) != (1, 2) else {**batch, "y": batch["y"][:1]}),
        data.schema(x=("float32", (4, 3)), y=("float32", (4,))),
    )
    losses = []
    target = pipe(
        fp.trainer(nn.linear(3, 1), lambda model, x, y: ((model(x)[:, 0] - y) ** 2).mean()),
        fp.on("after_step", lambda e: losses.append(e.loss_value)),
    )
    with pytest.raises(ValueError, match=r"schema: y must be float32 \(4,\); got float32 \(1,\)") as error:
        pipe(target, fp.fit(train, epochs=3, quiet=True))
    assert len(losses) == 5
    assert (
        error.value.__notes__[0]
        == "at operation=schema(x=('float32', (4, 3)), y=('float32', (4,))), split=train, epoch=1, index=2"
    )
