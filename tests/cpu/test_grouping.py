"""Leaves of like shape share kernels: the same numbers as each by itself, and fewer operations."""

from __future__ import annotations

import io
import re

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import pytest
from helpers import assert_close, mse
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core.backend import using
from mlx_fp.cpu import _grouping as module
from mlx_fp.cpu._backend import STOCK
from mlx_fp.cpu._grouping import Wholes, grouped, writes_in_place
from mlx_fp.cpu._thresholds import GROUPED_ELEMENTS, GROUPED_LEAVES
from mlx_fp.tree._paths import flat

MODEL = nn.sequential(*[nn.linear(4, 4) for _ in range(5)], nn.layer_norm(4), nn.linear(4, 3, bias=False))
X = mx.random.normal((6, 4), key=mx.random.key(1))
Y = mx.random.normal((6, 3), key=mx.random.key(2))

CHAINS = {
    "sgd": optim.sgd(0.1),
    "momentum": optim.sgd(0.1, momentum=0.9),
    "adam": optim.adam(optim.cosine_decay(1e-2, 50)),
    "adamw": optim.adamw(1e-2, bias_correction=True),
    "adamax": optim.adamax(1e-2),
    "adadelta": optim.adadelta(1.0),
    "adagrad": optim.adagrad(1e-2),
    "rmsprop": optim.rmsprop(1e-2),
    "lion": optim.lion(1e-3),
    "adafactor": optim.adafactor(1e-2),
    "muon": optim.muon(1e-2),
    "clip": optim.clip_norm(0.1)(optim.adam(1e-2)),
    "value": optim.clip_value(0.01)(optim.sgd(0.1)),
    "ema": optim.ema(0.9)(optim.adamw(1e-2)),
    "skip": optim.skip_nonfinite()(optim.adam(1e-2)),
    "groups": optim.groups(("layers.0", optim.sgd(0.1)), (None, optim.adam(1e-2))),
    "all": pipe(
        optim.groups((fp.ndim(1), optim.sgd(0.1, momentum=0.9)), (None, optim.adam(1e-2))),
        optim.clip_norm(1.0),
        optim.ema(0.5),
        optim.skip_nonfinite(),
    ),
}


def operations(fn, *trees):
    """Count the operations of a function's graph by name."""
    out = io.StringIO()
    mx.export_to_dot(out, [leaf for leaf in flat(fn(*trees)).values() if isinstance(leaf, mx.array)])
    return re.findall(r'label ="(\w+)"', out.getvalue())


@pytest.mark.parametrize("name", CHAINS)
def test_unrolled_steps_give_what_single_steps_give(name):
    step = fp.train_step(MODEL, mse, CHAINS[name])
    one = other = step.init(0)
    batches = [(X + i, Y - i) for i in range(4)]
    logged = []
    for batch in batches * 2:
        *one, logs = step(*one, batch)
        logged.append(logs["loss"].item())
    other = step.carry(*other)
    for _ in range(2):
        other, each = step.advance(other, batches)
        assert_close([logs["loss"] for logs, *_ in each], list(map(mx.array, logged[:4])), rtol=2e-4)
        logged = logged[4:]
    assert_close(one[0], other.params, rtol=2e-4)
    ends = [{k: v for k, v in state.items() if k != "key"} for state in (one[1], other.opt_state)]
    assert_close(*ends, rtol=2e-4)
    assert step.traces == 2


@pytest.mark.parametrize("name", ["clip", "value", "ema", "skip", "all"])
def test_a_single_step_groups_too_where_an_update_has_several_stages(name, monkeypatch):
    after = []
    for small in (GROUPED_ELEMENTS, -1):
        monkeypatch.setattr(module, "GROUPED_ELEMENTS", small)
        step = fp.train_step(MODEL, mse, CHAINS[name])
        state = step.init(0)
        for _ in range(5):
            *state, _ = step(*state, (X, Y))
        after.append(state)
    assert_close(after[0][0], after[1][0], rtol=2e-4)
    assert_close(after[0][1]["optimizer"], after[1][1]["optimizer"], rtol=2e-4)


def within(fn, *args):
    """Call a function as within a step, leaves being grouped."""
    return using(STOCK)(lambda: module._with_wholes(Wholes(), fn, *args))()


def elementwise(fn, *trees):
    return STOCK.elementwise(fn, *trees)


def test_an_update_of_like_leaves_is_one_kernel_for_all():
    optimizer, params = optim.adamw(1e-2), {str(i): mx.ones((3, 4)) for i in range(20)}
    grads, state = params, optimizer.init(params)
    alone = operations(lambda *trees: optimizer.update(*trees)[0], grads, state, params)
    shared = operations(lambda *trees: within(optimizer.update, *trees)[0], grads, state, params)
    assert alone.count("Sqrt") == 20
    assert shared.count("Sqrt") == 1


def test_the_update_of_a_chain_concatenates_each_group_once():
    optimizer = pipe(optim.adamw(1e-2), optim.clip_norm(1.0), optim.ema(0.9), optim.skip_nonfinite())
    params = {str(i): mx.ones((3, 4)) for i in range(20)}
    state = optimizer.init(params)
    update = using(STOCK)(lambda *trees: STOCK.update(optimizer.update, *trees))
    found = operations(lambda *trees: list(update(*trees)), params, state, params)
    assert found.count("Sqrt") == 2  # that of the norm, and that of the update
    assert found.count("Concatenate") == 7  # gradients, parameters, two moments, averages; checks of the update


def test_an_array_that_was_split_is_known_whole():
    trees = [mx.array([[1.0]]), mx.array([[2.0], [3.0]])]

    def twice():
        once = elementwise(lambda leaf: leaf + 1, trees)
        return elementwise(lambda leaf: leaf * 2, once)

    assert [leaf.tolist() for leaf in within(twice)] == [[[4.0]], [[6.0], [8.0]]]
    assert operations(lambda: within(twice)).count("Concatenate") == 1


def test_parts_in_another_order_are_concatenated_anew():
    def turned():
        a, b = elementwise(lambda leaf: leaf, [mx.array([1.0]), mx.array([2.0])])
        return elementwise(lambda leaf: leaf + 0, [b, a])

    assert [leaf.item() for leaf in within(turned)] == [2.0, 1.0]


def test_only_small_leaves_of_one_dtype_and_row_are_concatenated():
    tree = {
        "a": {"weight": mx.ones((2, 3)), "bias": mx.ones((2,))},
        "b": {"weight": mx.ones((4, 3)), "bias": mx.array(1.0)},
        "c": {"weight": mx.ones((2, 3), mx.float16), "bias": mx.ones((5,))},
        "d": {"weight": mx.ones((GROUPED_ELEMENTS, 3))},
    }
    (leaves,), ungroup = within(grouped, tree)
    assert sorted(leaf.shape for leaf in leaves) == sorted([(6, 3), (7,), (), (2, 3), (GROUPED_ELEMENTS, 3)])
    assert {path: leaf.shape for path, leaf in flat(ungroup(leaves)).items()} == {
        path: leaf.shape for path, leaf in flat(tree).items()
    }


def test_parts_of_one_whole_stay_together_in_other_trees():
    params = {"a": mx.ones((2,)), "b": mx.ones((3,))}
    moments = {name: {"m": leaf, "v": leaf + 1} for name, leaf in params.items()}

    def moved():
        after = elementwise(lambda p, m: dict(m), params, moments)
        (leaves,), _ = grouped(after)
        return leaves

    assert [leaf.tolist() for leaf in within(moved)] == [[1.0] * 5, [2.0] * 5]


def test_leaves_that_broadcast_stay_by_themselves():
    sums = within(elementwise, mx.add, [mx.array([1]), mx.array([2, 3])], [mx.array([4]), mx.array([5])])
    assert [leaf.tolist() for leaf in sums] == [[5], [7, 8]]


def test_no_more_leaves_are_concatenated_than_are_split_fast():
    (leaves,), _ = within(grouped, [mx.ones((1,))] * (GROUPED_LEAVES + 3))
    assert [leaf.size for leaf in leaves] == [GROUPED_LEAVES, 3]


def test_outside_and_after_an_error_nothing_is_concatenated():
    tree = [mx.ones((1,))] * 3

    def lose():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        within(lose)
    (same,), ungroup = grouped(tree)
    assert same is tree
    assert ungroup(tree) is tree


def test_an_optimiser_class_of_ones_own_is_computed_leaf_by_leaf():
    class Halved(mlx_optimizers.SGD):
        def apply_single(self, gradient, parameter, state):
            return parameter - gradient / mx.abs(gradient).max()

    opt, params = optim.lift(Halved, 0.1), [mx.array([1.0]), mx.array([2.0])]
    after, _ = within(opt.update, params, opt.init(params), params)
    assert [leaf.item() for leaf in after] == [0.0, 1.0]


def in_place(inner):
    """A wrapper by a user that writes over its gradients."""

    def update(grads, state, params):
        for leaf in flat(grads).values():
            leaf *= 0.5
        params, memory = inner.update(grads, state["inner"], params)
        return params, {"inner": memory}

    return optim.Optimizer(lambda params: {"inner": inner.init(params)}, update, f"in_place({inner.name})")


def test_an_update_that_writes_in_place_is_found_by_its_trace():
    params = {"layers": [{"a": mx.ones((2,))}], "b": mx.ones((3,))}
    for optimizer in CHAINS.values():
        assert not writes_in_place(optimizer.update, params, optimizer.init(params), params)
        wrapped = in_place(optimizer)
        assert writes_in_place(wrapped.update, params, wrapped.init(params), params)
    assert params["layers"][0]["a"].tolist() == [1.0, 1.0]


def test_an_update_that_writes_in_place_computes_what_it_says():
    """Between stages that group, a part that is written over must not be taken for what the whole says."""
    ends = []
    for compile in (True, False):
        step = fp.train_step(MODEL, mse, optim.clip_norm(0.1)(in_place(optim.sgd(0.1, momentum=0.9))), compile=compile)
        state = step.carry(*step.init(0))
        for _ in range(4):
            state, _ = step.advance(state, [(X, Y)])
        ends.append(state.params)
    assert_close(*ends, rtol=2e-4)


def test_the_probe_leaves_the_random_stream():
    def noisy(grads, state, params):
        return {name: leaf + mx.random.normal(leaf.shape) for name, leaf in params.items()}, state

    before = mx.random.state[0].tolist()
    assert not writes_in_place(noisy, {"a": mx.ones((2,))}, {}, {"a": mx.ones((2,))})
    assert mx.random.state[0].tolist() == before
