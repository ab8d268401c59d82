"""A structure takes its own kind of tree apart and puts it together, and no other kind."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import Pair, trees
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._conversion import as_arrays
from mlx_fp.tree._flattening import builder, describe_nodes, flattening, list_arrays


class Other(NamedTuple):
    left: object
    right: object


ARRAY = mx.array(0.0)
KEYS = st.one_of(st.text(max_size=3), st.integers(0, 3), st.sampled_from(["it's", 'a"b', "a.b", "{x}", "\\", "\n"]))
LEAVES = st.one_of(st.just(ARRAY), st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.text(max_size=2))
TREES = trees(KEYS, LEAVES, 10)


def spelled(tree):
    if isinstance(tree, dict):
        return ("dict", [(key, spelled(child)) for key, child in tree.items()])
    if isinstance(tree, (list, tuple)):
        return (type(tree), [spelled(child) for child in tree])
    return (type(tree), repr(tree))


def backwards(tree):
    """The same tree, every dict in another key order."""
    if isinstance(tree, dict):
        return {key: backwards(child) for key, child in reversed(tree.items())}
    if isinstance(tree, (list, tuple)):
        items = [backwards(child) for child in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


@given(TREES, TREES)
def test_build_undoes_flatten(one, other):
    known = flattening(one, other)
    assert spelled(known.build(known.flatten(one, other))) == spelled((one, other))


@given(TREES)
def test_key_order_is_no_part_of_a_structure(tree):
    known = flattening(tree)
    assert spelled(known.build(known.flatten(backwards(tree)))[0]) == spelled(tree)


@given(TREES, TREES)
def test_a_tree_of_another_structure_is_told(one, other):
    """0.0 and -0.0 are one constant."""
    if spelled(backwards(one)) not in (spelled(other), spelled(backwards(other))) and "-0.0" not in f"{one}{other}":
        assert flattening(one).flatten(other) is None or sorted_keys(one) == sorted_keys(other)


def sorted_keys(tree):
    """The spelling of a tree without its key order."""
    if isinstance(tree, dict):
        return ("dict", sorted(((repr(key), sorted_keys(child)) for key, child in tree.items()), key=str))
    if isinstance(tree, (list, tuple)):
        return (type(tree), [sorted_keys(child) for child in tree])
    return (type(tree), repr(tree))


ODD = [
    ARRAY,
    [ARRAY],
    (ARRAY,),
    Pair(ARRAY, ARRAY),
    Other(ARRAY, ARRAY),
    (ARRAY, ARRAY),
    [ARRAY, ARRAY],
    [[ARRAY], ARRAY],
    [[ARRAY, ARRAY]],
    [ARRAY, [ARRAY]],
    [ARRAY, []],
    [ARRAY, {}],
    [ARRAY, ()],
    {"a": ARRAY},
    {"b": ARRAY},
    {"a": {"a": ARRAY}},
    {0: ARRAY},
    {"0": ARRAY},
    {"a": ARRAY, "b": ARRAY},
    OrderedDict(a=ARRAY),
    {"a": 1},
    {"a": True},
    {"a": 1.0},
    {"a": 0},
    {"a": False},
    {"a": None},
    {"a": "1"},
    {},
    [],
    (),
    None,
    "",
    0,
]


@pytest.mark.parametrize("i", range(len(ODD)))
def test_each_of_these_is_a_structure_of_its_own(i):
    known = flattening(ODD[i])
    assert [known.flatten(other) is not None for other in ODD] == [i == j for j in range(len(ODD))]


def test_two_trees_are_told_apart_by_where_a_container_ends():
    known = flattening([ARRAY], [ARRAY])
    assert known.flatten([ARRAY], [ARRAY, [ARRAY]]) is None
    assert known.flatten([ARRAY, ARRAY], []) is None


def test_a_nan_is_the_same_constant_again():
    assert flattening({"a": math.nan, "x": ARRAY}).flatten({"a": math.nan, "x": ARRAY}) is not None


def test_build_makes_fresh_containers():
    tree = {"a": [ARRAY]}
    known = flattening(tree)
    built = known.build(known.flatten(tree))[0]
    assert built["a"] is not tree["a"]
    assert built["a"][0] is ARRAY
    assert known.build([1])[0]["a"] is not known.build([1])[0]["a"]


@pytest.mark.parametrize("leaf", [np.zeros(2), np.float32(1), b"a", {1}, object(), 1j, len])
def test_a_bad_leaf_is_named_by_its_path(leaf):
    words = rf"arrays and constants \(None, bool, int, float, str\); got {type(leaf).__name__} at 'batch.x.1'"
    with pytest.raises(TypeError, match=words):
        flattening(ARRAY, {"x": [1, leaf]}, names=("params", "batch"))
    with pytest.raises(TypeError, match=f"got {type(leaf).__name__} at 'result.x'"):
        builder({"x": leaf})


def test_a_numpy_array_in_the_place_of_an_array_is_another_structure():
    assert flattening({"x": ARRAY}).flatten({"x": np.zeros(2)}) is None


def test_a_builder_starts_at_a_place_and_puts_constants_back():
    build = builder((ARRAY, {"n": 3, "x": ARRAY}), first=1)
    assert build(["index", "a", "b"]) == ("a", {"n": 3, "x": "b"})


@given(TREES)
def test_arrays_are_the_array_leaves_in_tree_order(tree):
    assert list(map(id, list_arrays(tree))) == list(map(id, flattening(tree).flatten(tree)))


def test_describe_says_container_shape_dtype_and_constant():
    assert describe_nodes({"p": Pair(mx.zeros((2, 1), mx.bfloat16), [None]), "lr": 0.5}) == {
        "p": "Pair of 2",
        "p.0": "bfloat16(2, 1)",
        "p.1": "list of 1",
        "p.1.0": "None",
        "lr": "0.5",
    }


X = np.arange(24, dtype=np.float32).reshape(4, 6)
LAYOUTS = {
    "flipped": X[:, ::-1],
    "upside down": X[::-1],
    "every other, backwards": X[::-1, ::-2],
    "big-endian": X.astype(">f4"),
    "big-endian, flipped": X.astype(">i8")[:, ::-1],
    "big-endian number": np.array(7, ">u2"),
    "little-endian": X.astype("<f2"),
    "turned": X.T,
    "spread": np.broadcast_to(X[0], (3, 6)),
    "a field": np.array([(1, 2.5), (3, 4.5)], [("n", "u1"), ("x", "f4")])["x"],
    "flipped bools": (X > 3)[:, ::-1],
    "empty": X[:0, ::-1],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_numpy_arrays_of_any_layout_are_taken_as_they_are(name):
    given = LAYOUTS[name]
    before = given.copy()
    made = as_arrays({"x": (given, "text")})["x"][0]
    assert isinstance(made, mx.array)
    assert (made.shape, made.tolist()) == (given.shape, given.tolist())
    assert made.dtype == mx.array(np.zeros(1, given.dtype.newbyteorder("="))).dtype
    assert np.array_equal(given, before)


@pytest.mark.parametrize("kind", ["<U1", "O", "M8[D]", "f4,i4"])
@pytest.mark.parametrize("step", [1, -1])
def test_what_mlx_has_no_arrays_of_is_named_however_it_lies(kind, step):
    with pytest.raises(TypeError) as error:
        as_arrays([np.zeros(2, kind)[::step]])
    assert str(error.value) == f"MLX has no arrays of {np.dtype(kind)}, and a batch or input contains one"


def test_masked_arrays_are_refused():
    masked = np.ma.masked_equal(X, 3)
    with pytest.raises(TypeError) as error:
        as_arrays({"x": masked})
    assert str(error.value) == (
        "a batch or input holds a masked array of numpy, whose mask would be lost: "
        "fill it, as in x.filled(0), and give the mask as an array of its own where the loss needs it"
    )
    assert as_arrays({"x": masked.filled(9)})["x"].tolist()[0] == [0, 1, 2, 9, 4, 5]


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("name", ["flipped", "big-endian", "big-endian, flipped"])
def test_steps_and_predictors_take_numpy_arrays_of_any_layout(name, compile):
    given = {"x": LAYOUTS[name], "y": np.arange(4, dtype=np.float32)[::-1]}
    plain = {key: mx.array(value.tolist()) for key, value in given.items()}
    model = nn.linear(6, 1)

    def loss(forward, x, y):
        return (forward(x)[:, 0] - y).square().mean()

    step = fp.train_step(model, loss, optim.sgd(0.1), compile=compile)
    params, opt_state = step.init(0)
    losses = [step(params, opt_state, batch)[2]["loss"].item() for batch in (plain, given)]
    assert losses[0] == losses[1]
    predict = nn.predictor(params)(model)
    assert mx.array_equal(predict(given["x"]), predict(plain["x"])).item()
