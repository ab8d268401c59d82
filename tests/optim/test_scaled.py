"""Factors of an update by path, and projections after it."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest
from helpers import assert_close, assert_same_bits, bits
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

PARAMS = {"body": {"weight": mx.array([[1.0, 2.0]]), "bias": mx.array([0.5])}, "head": {"weight": mx.array([[4.0]])}}
RULES = (("head", 3.0), (re.compile("bias$"), 0.0), (None, 0.5))


def run(opt, count=1, params=PARAMS):
    state, update = opt.init(params), mx.compile(opt.update)
    for _ in range(count):
        params, state = update(tree_map(lambda p: p * 0.5 + 1, params), state, params)
    return params, state


def test_one_update_is_the_inner_one_times_the_factor():
    plain, memory = run(optim.adamw(0.1))
    moved, state = run(optim.scaled(*RULES)(optim.adamw(0.1)))
    factors = {"body.weight": 0.5, "body.bias": 0.0, "head.weight": 3.0}
    before, after = fp.flat(PARAMS), fp.flat(plain)
    by_hand = {path: before[path] + factor * (after[path] - before[path]) for path, factor in factors.items()}
    assert_close({path: fp.flat(moved)[path] for path in factors}, by_hand)
    assert_same_bits(state["inner"], memory)


def test_with_sgd_a_factor_is_a_rate_of_its_own():
    scaled, _ = run(optim.scaled(("head", 2.0), (None, 0.5))(optim.sgd(0.1)), 5)
    grouped, _ = run(optim.groups(("head", optim.sgd(0.2)), (None, optim.sgd(0.05))), 5)
    assert_close(scaled, grouped)


def test_a_factor_of_1_changes_no_bit_and_of_0_none_of_the_parameter():
    plain, _ = run(optim.adamw(0.1), 3)
    moved, _ = run(optim.scaled(("body", 1.0), (None, 0.0))(optim.adamw(0.1)), 3)
    assert bits(moved["body"]) == bits(plain["body"])
    assert bits(moved["head"]) == bits(PARAMS["head"])


def test_the_dtypes_of_parameters_stay():
    narrow = tree_map(lambda p: p.astype(mx.bfloat16), PARAMS)
    moved, _ = run(pipe(optim.sgd(0.1), optim.scaled(*RULES), optim.projected(lambda p: p)), params=narrow)
    assert {leaf.dtype for leaf in fp.flat(moved).values()} == {mx.bfloat16}


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ((), ValueError, r"at least one \(spec, factor\)"),
        (("head", 1.0), TypeError, r"rule 0 of scaled must be \(spec, factor\); got 'head'"),
        ((("head", -1.0),), ValueError, "the factor of rule 0 of scaled is a finite number of at least 0"),
        ((("head", "x"),), TypeError, "the factor of rule 0 of scaled"),
    ],
)
def test_wrong_rules_are_refused_at_once(rules, error, message):
    with pytest.raises(error, match=message):
        optim.scaled(*rules)


def test_rules_are_total_and_match_something():
    with pytest.raises(
        ValueError, match=r"no rule of scaled\(under\('head'\)\) matches body.weight, body.bias; end with"
    ):
        optim.scaled(("head", 1.0))(optim.sgd(0.1)).init(PARAMS)
    with pytest.raises(KeyError, match="'haed' matches no parameter that trains.*nearest: head"):
        optim.scaled(("haed", 1.0), (None, 1.0))(optim.sgd(0.1)).init(PARAMS)
    with pytest.warns(RuntimeWarning, match=r"under\('head'\) of scaled gets no parameter"):
        optim.scaled((None, 1.0), ("head", 2.0))(optim.sgd(0.1)).init(PARAMS)


def unit_rows(params):
    rows = params["head"]["weight"]
    return {**params, "head": {**params["head"], "weight": rows / mx.linalg.norm(rows, axis=-1, keepdims=True)}}


def test_parameters_are_projected_after_each_update():
    moved, _ = run(optim.projected(unit_rows)(optim.adamw(0.1)))
    plain, _ = run(optim.adamw(0.1))
    assert bits(moved) == bits(unit_rows(plain))
    model = nn.sequential(body=nn.linear(3, 4), head=nn.linear(4, 2))
    step = fp.train_step(model, lambda m, x: m(x).square().mean(), optim.projected(unit_rows)(optim.adamw(0.1)))
    state = step.init(0)
    for _ in range(3):
        *state, _ = step(*state, mx.ones((4, 3)))
        assert_close(mx.linalg.norm(state[0]["head"]["weight"], axis=-1), mx.ones((2,)))
    assert step.traces == 1


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (lambda p: {"body": p["body"]}, "head.weight is .*, and got nothing"),
        (lambda p: {**p, "more": mx.array(1.0)}, "more is nothing, and got"),
        (lambda p: tree_map(lambda leaf: leaf[:0], p), "body.weight is .*, and got"),
    ],
)
def test_a_projection_of_another_form_is_refused(project, message):
    with pytest.raises(ValueError, match=message):
        run(optim.projected(project)(optim.sgd(0.1)))


def test_a_projection_is_a_function():
    with pytest.raises(TypeError, match="project of projected is a function; got 3"):
        optim.projected(3)
    assert repr(optim.projected(unit_rows)(optim.sgd(0.1))) == "projected(unit_rows)(sgd(learning_rate=0.1))"
