"""Which leaves a spec means, and that it reads like what it means."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp.tree._select import Select, by_part, everything, matching, ndim, nothing, select, under, under_prefix

PATHS = ("encoder.layers.0.weight", "encoder.layers.0.bias", "encoder.layers.01.weight", "encoders.w", "head.weight")
WEIGHT, BIAS = mx.zeros((2, 3)), mx.zeros((3,))


def chosen(spec, leaf=None):
    return tuple(p for p in PATHS if select(spec)(p, leaf))


def by_path(path):
    return path.endswith("bias")


def by_leaf(path, leaf):
    return leaf.ndim == 2 and "head" in path


SPECS = {
    "None": (None, PATHS, "everything"),
    "exact": ("head.weight", PATHS[4:], "under('head.weight')"),
    "subtree": ("encoder", PATHS[:3], "under('encoder')"),
    "a number ends": ("encoder.layers.0", PATHS[:2], "under('encoder.layers.0')"),
    "regex": (re.compile("^enc.*weight"), (PATHS[0], PATHS[2]), "matching('^enc.*weight')"),
    "list": (["head", re.compile("bias$")], (PATHS[1], PATHS[4]), "under('head') | matching('bias$')"),
    "tuple": (("head", "encoders"), PATHS[3:], "under('head') | under('encoders')"),
    "set": ({"head", "encoders"}, PATHS[3:], "under('encoders') | under('head')"),
    "one": (["head"], PATHS[4:], "under('head')"),
    "none of them": ([], (), "nothing"),
    "nested": ([["head"], [by_path]], (PATHS[1], PATHS[4]), "under('head') | by_path"),
    "function": (by_path, (PATHS[1],), "by_path"),
    "function of the leaf": (by_leaf, PATHS[4:], "by_leaf"),
    "nothing": (nothing, (), "nothing"),
    "not": (~under("encoder"), PATHS[3:], "~under('encoder')"),
    "and": (under("encoder") & ~matching("bias$"), (PATHS[0], PATHS[2]), "under('encoder') & ~matching('bias$')"),
    "or": (under("head") | under("encoders"), PATHS[3:], "under('head') | under('encoders')"),
    "not both": (~(under("encoder") | under("head")), (PATHS[3],), "~(under('encoder') | under('head'))"),
    "mixed": (
        (under("head") | under("encoder")) & matching("bias"),
        (PATHS[1],),
        "(under('head') | under('encoder')) & matching('bias')",
    ),
    "within": (under_prefix("encoder.layers", under("0")), PATHS[:2], "under_prefix('encoder.layers', under('0'))"),
}


@pytest.mark.parametrize("case", SPECS, ids=str)
def test_a_spec_chooses_and_reads(case):
    spec, paths, text = SPECS[case]
    assert chosen(spec, WEIGHT) == paths
    assert repr(select(spec)) == text


def test_ndim_reads_the_leaf():
    assert [ndim(2)("w", WEIGHT), ndim(2)("w", BIAS), repr(ndim(2))] == [True, False, "ndim(2)"]


@given(st.integers(0, 31), st.integers(0, 31))
def test_a_select_is_a_set_of_leaves(one, other):
    a, b = ({p for i, p in enumerate(PATHS) if bits >> i & 1} for bits in (one, other))
    sa, sb = select(lambda p: p in a), select(lambda p: p in b)
    assert set(chosen(sa & sb)) == a & b
    assert set(chosen(sa | sb)) == a | b
    assert set(chosen(~sa)) == set(PATHS) - a
    assert chosen(~(sa & sb)) == chosen(~sa | ~sb)
    assert chosen(sa & everything) == chosen(sa | nothing) == chosen(sa)


def test_a_default_of_the_function_is_no_leaf():
    """The idiom that binds a loop's variable, and methods with optional arguments, take the path only."""
    tests = [select(lambda path, i=i: path == f"layers.{i}") for i in range(2)]
    assert [t("layers.1", WEIGHT) for t in tests] == [False, True]
    assert select(re.compile("^head").search)("head.weight", WEIGHT)
    assert select(lambda path, leaf=None: leaf is not None)("w", WEIGHT)
    assert select("head.weight".startswith)("head", WEIGHT)


def test_the_paths_that_a_spec_spells_out():
    assert select(["a", "b.c"]).named == {"a", "b.c"}
    assert (under("a") | matching("x")).named == {"a"}
    assert under_prefix("m", under("a")).named == {"m.a"}
    assert (~under("a")).named == (under("a") & everything).named == frozenset()


def test_a_select_passes_through_and_is_frozen():
    rule = under("a")
    assert select(rule) is rule
    with pytest.raises(FrozenInstanceError):
        rule.text = "b"


@pytest.mark.parametrize("spec", [3, 1.5, b"a", {"a": 1}, WEIGHT])
def test_what_is_no_spec(spec):
    with pytest.raises(TypeError, match=f"a spec is None, a path, .*got {type(spec).__name__}"):
        select(spec)


def test_an_empty_path_and_half_an_operator():
    with pytest.raises(ValueError, match="use `everything`"):
        select("")
    with pytest.raises(TypeError, match="'Select' and 'str'"):
        under("a") & "b"
    with pytest.raises(TypeError, match="'Select' and 'str'"):
        under("a") | "b"


def test_a_predicate_gives_a_bool_whatever_its_function_returns():
    assert Select(lambda p, x: re.search("a", p), "has a")("bab") is True


def test_a_part_is_no_leaf_of_itself():
    rule = by_part({"layers.0": everything, "head": everything})
    assert not rule("head")
    assert not rule("layers.0")
    assert rule("layers.0.weight")


def test_parts_of_which_nothing_is_chosen_choose_nothing():
    assert by_part({}) is by_part({"a": nothing, "b": nothing}) is nothing
    assert repr(by_part({"a": nothing, "b": everything})) == "under_prefix('b', everything)"
