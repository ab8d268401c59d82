"""Trees taken apart and put together: every law for every tree that a step may hold."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import Pair, assert_same_bits, trees
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import copy_arrays, flat, leaves, merge, norm, partition, paths, restore_like, size, swap

KEYS = st.sampled_from(["weight", "bias", "0", "10", "a.b", "layers"])
LEAVES = st.integers(0, 9).map(float)
TREES = trees(KEYS, LEAVES, 12)


def drawn_like(tree):
    """The tree with types, keys and key order spelled out."""
    if isinstance(tree, dict):
        return ("dict", [(key, drawn_like(child)) for key, child in tree.items()])
    if isinstance(tree, (list, tuple)):
        return (type(tree).__name__, [drawn_like(child) for child in tree])
    return tree


@examples(200)
@given(TREES, st.integers(0, 2**12))
def test_merge_undoes_partition(tree, bits):
    order = {path: i for i, path in enumerate(paths()(tree))}
    kept, rest = partition(lambda path: bits >> order[path] & 1)(tree)
    assert drawn_like(merge(kept, rest)) == drawn_like(merge(rest, kept)) == drawn_like(tree)
    assert sorted(paths()(kept) + paths()(rest)) == sorted(order)
    assert paths()(kept) == tuple(p for p in order if bits >> order[p] & 1)


@given(TREES)
def test_restore_like_undoes_flat(tree):
    named = flat(tree)
    if len(named) == len(leaves(tree)):
        shuffled = dict(reversed(named.items()))
        assert drawn_like(restore_like(tree, shuffled)) == drawn_like(tree)


@given(TREES)
def test_three_parts_merge_as_two_do(tree):
    low, others = partition(lambda path, leaf: leaf < 3)(tree)
    middle, high = partition(lambda path, leaf: leaf < 6)(others)
    assert drawn_like(merge(high, low, middle)) == drawn_like(tree)


@given(TREES)
def test_everything_and_nothing(tree):
    kept, rest = partition(None)(tree)
    assert drawn_like(kept) == drawn_like(tree)
    assert leaves(rest) == []
    kept, rest = partition([])(tree)
    assert drawn_like(rest) == drawn_like(tree)
    assert leaves(kept) == []


@given(TREES)
def test_paths_leaves_and_flat_agree(tree):
    assert list(flat(tree)) == list(dict.fromkeys(paths()(tree)))
    assert len(paths()(tree)) == len(leaves(tree))
    assert drawn_like(copy_arrays(tree)) == drawn_like(tree)


def test_fresh_shares_no_container_and_no_array_object():
    inner = {"b": mx.array(1)}
    tree = {"a": [inner]}
    new = copy_arrays(tree)
    new["a"][0]["b"] += 1
    assert (inner["b"].item(), new["a"][0]["b"].item()) == (1, 2)
    new["a"][0]["b"] = None
    assert inner["b"].item() == 1


def test_merge_gives_leaves_of_the_parts_as_they_are():
    leaf = mx.ones((3,))
    assert merge({"a": leaf, "b": {}}, {"a": {}, "b": mx.zeros(1)})["a"] is leaf
    assert merge() == {}
    assert merge({}, {}) == {}


@pytest.mark.parametrize(
    ("trees", "words"),
    [
        (({"a": 1}, {"a": 2}), "'a'"),
        ((1, 2), "'the root'"),
        (({"x": [{"a": 1}]}, {"x": [{"a": 2}]}), "'x.0.a'"),
        (({"x": [1, {}]}, {"x": [{}]}), "'x'"),
        (({"x": [1, {}]}, {"x": ({}, 2)}), "'x'"),
        (({"x": {"a": 1}}, {"x": {"b": 1}}), r"different keys at 'x': \['a', 'b'\]"),
        (({"x": {"a": 1}}, {"x": 3}), "'x'"),
        ((Pair(1, {}), ({}, 2)), "'the root'"),
    ],
)
def test_merge_names_the_place_of_a_conflict(trees, words):
    with pytest.raises(ValueError, match=words):
        merge(*trees)


def test_paths_choose_and_keep_tree_order():
    tree = {"head": {"weight": 1, "bias": 2}, "body": [{"weight": 3}, {}, Pair(4, 5)]}
    assert paths()(tree) == ("head.weight", "head.bias", "body.0.weight", "body.2.0", "body.2.1")
    assert paths("body")(tree) == ("body.0.weight", "body.2.0", "body.2.1")
    assert paths(lambda path, leaf: leaf > 3)(tree) == ("body.2.0", "body.2.1")


def test_restore_like_wants_arrays_of_the_template_s_shapes():
    template = {"a": mx.zeros((2, 3)), "b": [mx.zeros(())]}
    with pytest.raises(ValueError, match=r"the leaf at 'a' has shape \(2, 3\); got \(3, 3\)"):
        restore_like(template, {"a": mx.zeros((3, 3)), "b.0": mx.zeros(())})


def test_a_bare_leaf_is_a_tree():
    assert restore_like(0, {"": 5}) == 5
    assert swap("", 7)(mx.array(0)).item() == 7
    assert partition(None)(3) == (3, {})


@pytest.mark.parametrize(
    ("named", "words"),
    [({"a": 1}, "no leaf at 'b.0'; nearest: none"), ({"a": 1, "b.0": 2, "b.1": 3}, "'b.1'; nearest: b.0")],
)
def test_restore_like_wants_every_leaf_and_no_other(named, words):
    with pytest.raises(KeyError, match=words):
        restore_like({"a": 0, "b": [0]}, named)


def test_a_saved_file_comes_back_in_the_template_s_order(tmp_path):
    model = nn.sequential(nn.linear(3, 4), nn.relu, out=nn.linear(4, 2))
    params = nn.init(0)(model)
    mx.save_safetensors(str(tmp_path / "w.safetensors"), flat(params))
    back = restore_like(params, mx.load(str(tmp_path / "w.safetensors")))
    assert_same_bits(back, params)


def test_swap_changes_one_leaf_and_leaves_the_tree_alone():
    tree = {"a": [mx.array([1.0, 2.0], mx.bfloat16)], "b": mx.array(3)}
    new = pipe(tree, swap("a.0", [4.0, 5.0]), swap("b", mx.array(6.9)))
    assert [new["a"][0].tolist(), new["a"][0].dtype, new["b"].item(), new["b"].dtype] == [
        [4.0, 5.0],
        mx.bfloat16,
        6,
        mx.int32,
    ]
    assert [tree["a"][0].tolist(), tree["b"].item()] == [[1.0, 2.0], 3]


def test_swap_names_the_nearest_path_and_the_shapes():
    tree = {"optimizer": {"learning_rate": mx.array(0.1)}}
    with pytest.raises(KeyError, match=r"no leaf at 'optimizer.learning_rat'; nearest: optimizer.learning_rate"):
        swap("optimizer.learning_rat", 1)(tree)
    with pytest.raises(ValueError, match=r"'optimizer.learning_rate' has shape \(\); got \(2,\)"):
        swap("optimizer.learning_rate", [1.0, 2.0])(tree)


def test_swapping_a_rate_acts_at_once_and_does_not_retrace():
    step = fp.train_step(nn.linear(2, 1), lambda m, x: m(x).sum(), optim.sgd(0.5))
    params, state = step.init(0)
    x = mx.ones((1, 2))
    moved, _, _ = step(params, state, x)
    still, _, _ = step(params, pipe(state, swap("optimizer.learning_rate", 0.0)), x)
    assert not mx.array_equal(moved["weight"], params["weight"])
    assert mx.array_equal(still["weight"], params["weight"])
    assert step.traces <= 1  # none where nothing compiles


@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=4), max_size=4))
def test_norm_is_numpy_s_over_all_elements(rows):
    tree = {"layers": [{"w": mx.array(row)} for row in rows]}
    expected = np.linalg.norm(np.array([x for row in rows for x in row], np.float64))
    assert norm(tree).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_norm_of_narrow_floats_is_computed_wide():
    big = norm({"w": mx.full((4,), 300.0, mx.float16)})
    assert big.dtype == mx.float32
    assert big.item() == 600.0


def test_size_counts_elements():
    assert size({"a": mx.zeros((3, 2)), "b": [mx.array(1.0), {}]}) == 7
