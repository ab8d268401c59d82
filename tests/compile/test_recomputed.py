"""A function that is computed again for its gradient: trees, constants, integers, effects and the order."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import pytest
from helpers import assert_same_bits

from mlx_fp import rng
from mlx_fp.compile._recomputed import recomputed

X = mx.random.normal((4, 3), key=rng.key(0))


class Pair(NamedTuple):
    x: mx.array
    name: str


def test_trees_and_constants_arrive_as_they_are():
    seen = []

    def fn(params, pair, options):
        seen.append((type(pair), pair.name, options))
        return {"y": pair.x @ params["w"], "kind": options["kind"], "rows": (pair.x.shape[0], None)}

    options = {"kind": "sum", "cache": object(), "tokens": mx.array([1])}
    loss = lambda params: recomputed(fn, params, Pair(X, "x"), options)["y"].sum()
    gradient = mx.grad(loss)({"w": mx.ones((3, 2))})
    assert mx.allclose(gradient["w"], mx.broadcast_to(X.sum(axis=0)[:, None], (3, 2)))
    assert [each[:2] for each in seen] == [(Pair, "x")] * 2
    assert all(each[2]["cache"] is options["cache"] for each in seen)
    result = recomputed(fn, {"w": mx.ones((3, 2))}, Pair(X, "x"), options)
    assert (result["kind"], result["rows"]) == ("sum", (4, None))


def test_integers_and_outputs_without_a_gradient():
    def fn(table, tokens):
        rows = table[tokens]
        return rows, mx.argmax(rows, axis=-1), tokens + 1

    tokens = mx.array([0, 2, 2])
    loss = lambda fn: lambda table: (fn(table)[0] ** 2).sum()
    plain, again = (mx.grad(loss(f))(X) for f in (lambda t: fn(t, tokens), lambda t: recomputed(fn, t, tokens)))
    assert_same_bits(plain, again)
    assert recomputed(fn, X, tokens)[2].tolist() == [1, 3, 3]
    assert recomputed(lambda tokens: tokens * 2, tokens).tolist() == [0, 4, 4]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.usual("eager")
def test_the_stream_goes_on_after_the_numbers_of_the_first_computation(compiled):
    def draw(wrap):
        def run(w):
            first = wrap(lambda w: (w * mx.random.uniform(shape=(3,))).sum(), w)
            return first + mx.random.uniform()

        def of_key(w, key):
            return rng.run(key, lambda: mx.value_and_grad(run)(w))

        return (mx.compile(of_key) if compiled else of_key)(mx.ones((3,)), rng.key(4))

    plain, again = draw(lambda fn, w: fn(w)), draw(recomputed)
    assert_same_bits(plain, again)


def test_the_parameters_come_before_the_gradient_of_the_inputs():
    """Only then can the gradient of the inputs depend on those of the parameters that somebody asks for."""
    order = []

    def observed(name):
        identity = mx.custom_function(lambda x: x * 1)
        identity.vjp(lambda primals, cotangent, output: order.append(name) or cotangent)
        return identity

    before, weight = observed("inputs"), observed("weight")
    mx.grad(lambda w, x: recomputed(lambda w, x: x @ w, weight(w), before(x)).sum(), argnums=(0, 1))(mx.ones((3, 2)), X)
    assert order == ["weight", "inputs"]
