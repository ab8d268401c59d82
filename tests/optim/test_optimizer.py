"""mlx optimisers lifted: pure, readable by path, settable without a retrace, refused with a remedy."""

from __future__ import annotations

import inspect

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from drawn import examples
from helpers import bits, mean_square
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import flat, paths


def test_a_class_and_an_instance_lift_alike():
    params, grads = {"w": mx.array([1.0, 2.0])}, {"w": mx.array([0.5, -0.5])}
    instance = mlx_optimizers.Adam(0.1)
    results = []
    for opt in (optim.lift(mlx_optimizers.Adam, 0.1), optim.lift(instance), optim.adam(0.1)):
        results.append(bits(opt.update(grads, opt.init(params), params)))
    assert results[0] == results[1] == results[2]
    assert set(instance.state) == {"step", "learning_rate"}, "lifting gave the caller's optimiser a memory"


def test_an_optimiser_that_has_trained_lifts_with_its_rates_and_a_fresh_memory():
    instance = mlx_optimizers.Adam(0.1)
    instance.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([1.0])})
    opt = optim.lift(instance)
    instance.learning_rate = 9.0
    state = opt.init({"v": mx.array([1.0])})
    assert paths()(state) == ("step", "learning_rate", "memory.v.m", "memory.v.v")
    assert round(state["learning_rate"].item(), 6) == 0.1
    assert state["memory"]["v"]["m"].tolist() == [0.0]


def test_init_and_update_leave_their_arguments_alone():
    opt = optim.adamw(0.1)
    params = {"layers": [{"weight": mx.array([[1.0, 2.0]])}, {}]}
    grads = {"layers": [{"weight": mx.array([[0.5, 0.5]])}, {}]}
    state = opt.init(params)
    before = bits([params, grads, state])
    first = opt.update(grads, state, params)
    second = opt.update(grads, state, params)
    assert bits(first) == bits(second)
    assert bits([params, grads, state]) == before
    assert bits(first[0]) != bits(params)


def test_two_states_of_one_optimiser_know_nothing_of_each_other():
    opt = optim.adam(0.1)
    first, second = opt.init({"a": mx.array([1.0])}), opt.init({"b": mx.array([1.0])})
    assert paths()(first["memory"]) == ("a.m", "a.v")
    assert paths()(second["memory"]) == ("b.m", "b.v")


def test_wider_gradients_and_odd_schedules_do_not_widen_the_state():
    def odd(step):
        return mx.where(step < 2, mx.array(1, mx.int32), mx.array(2, mx.int32))

    for schedule in (odd, lambda step: 1, lambda step: 0.5, 1):
        opt = optim.sgd(schedule, momentum=0.9)
        params = {"w": mx.ones((2,), mx.bfloat16)}
        state = opt.init(params)
        new, after = opt.update({"w": mx.ones((2,), mx.float32)}, state, params)
        kinds = [{path: leaf.dtype for path, leaf in flat(tree).items()} for tree in ([params, state], [new, after])]
        assert kinds[0] == kinds[1]
        assert kinds[0]["1.learning_rate"] == mx.float32


def test_a_rate_given_as_an_int_takes_a_fraction():
    opt = optim.sgd(1)
    state = fp.swap("learning_rate", 0.25)(opt.init({"w": mx.zeros((1,))}))
    assert opt.update({"w": mx.ones((1,))}, state, {"w": mx.zeros((1,))})[0]["w"].tolist() == [-0.25]


def test_a_schedule_that_starts_with_an_int_goes_on_with_fractions():
    opt = optim.sgd(lambda step: mx.where(step == 0, 1, 0.25))
    params, state = {"w": mx.zeros((1,))}, opt.init({"w": mx.zeros((1,))})
    for _ in range(2):
        params, state = opt.update({"w": mx.ones((1,))}, state, params)
    assert params["w"].tolist() == [-1.25]


def test_a_schedule_may_give_plain_numbers_through_the_compiled_step():
    step = fp.train_step(nn.linear(2, 2), mean_square, optim.sgd(lambda step: 0.5))
    fixed = fp.train_step(nn.linear(2, 2), mean_square, optim.sgd(0.5))
    ends = []
    for each in (step, fixed):
        params, opt_state = each.init(0)
        for _ in range(2):
            params, opt_state, _ = each(params, opt_state, mx.ones((4, 2)))
        ends.append(params)
        assert each.traces == 1
    np.testing.assert_allclose(ends[0]["weight"], ends[1]["weight"], rtol=1e-5)


NAMES = st.sampled_from(["step", "learning_rate", "memory", "inner", "optimizer", "weight", "layers", "0"])
LEAF = st.builds(lambda n: mx.full((n,), 2.0), st.integers(1, 3))
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        LEAF, lambda t: st.dictionaries(NAMES, t, max_size=3) | st.lists(t, max_size=3) | st.tuples(t, t), max_leaves=5
    ),
    max_size=4,
)


@examples(40)
@given(TREES)
def test_any_names_and_any_nesting_take_the_update_they_should(params):
    opt = optim.sgd(0.5, momentum=0.9)
    state = opt.init(params)
    grads = tree_map(mx.ones_like, params)
    new, after = opt.update(grads, state, params)
    assert paths()(new) == paths()(params)
    assert all(leaf.tolist() == [1.5] * leaf.size for leaf in flat(new).values())
    assert paths()(after["memory"]) == paths()(state["memory"]) == tuple(f"{p}.v" for p in paths()(params))
    assert type(new) is type(params)
    assert list(new) == list(params)


def test_parameters_called_step_and_learning_rate_train_through_the_compiled_step():
    model = nn.define(
        lambda m, x: m.step * x + m.learning_rate, step=nn.param(2, init=1.0), learning_rate=nn.param(2, init=1.0)
    )
    step = fp.train_step(model, mean_square, optim.adam(0.1))
    params, opt_state = step.init(0)
    for _ in range(3):
        params, opt_state, _ = step(params, opt_state, mx.ones((4, 2)))
    assert params["step"].tolist() == params["learning_rate"].tolist()
    assert params["step"][0].item() < 0.95
    assert opt_state["optimizer"]["step"].item() == 3
    assert opt_state["optimizer"]["memory"]["step"]["m"].shape == (2,)


def test_a_rate_swapped_by_path_takes_effect_without_a_retrace():
    step = fp.train_step(nn.linear(2, 2), mean_square, optim.sgd(0.5))
    params, opt_state = step.init(0)
    batch = mx.ones((4, 2))
    moved, opt_state, _ = step(params, opt_state, batch)
    half = step(moved, fp.swap("optimizer.learning_rate", 0.25)(opt_state), batch)[0]
    whole = step(moved, opt_state, batch)[0]
    still = step(moved, fp.swap("optimizer.learning_rate", 0)(opt_state), batch)[0]
    assert step.traces == 1
    assert bits(still) == bits(moved)
    np.testing.assert_allclose(2 * (half["weight"] - moved["weight"]), whole["weight"] - moved["weight"], rtol=1e-4)
    assert mx.abs(whole["weight"] - moved["weight"]).max().item() > 1e-3


def test_a_swap_of_an_unknown_path_names_the_nearest():
    _, opt_state = fp.train_step(nn.linear(2, 2), mean_square, optim.sgd(0.5)).init(0)
    with pytest.raises(KeyError, match=r"optimizer\.learning_rat.*nearest.*optimizer\.learning_rate"):
        fp.swap("optimizer.learning_rat", 1.0)(opt_state)


def test_an_unknown_option_is_a_type_error_with_candidates():
    with pytest.raises(
        TypeError, match=r"AdamW.*unknown option 'weight_deca'.*did you mean 'weight_decay'.*bias_correction"
    ):
        optim.adamw(1e-3, weight_deca=0.1)


def test_a_missing_rate_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match=r"SGD.*learning_rate"):
        optim.sgd()


@pytest.mark.parametrize("as_class", [True, False])
def test_a_multi_optimiser_is_refused_with_the_remedy(as_class):
    parts = [mlx_optimizers.SGD(0.1), mlx_optimizers.Adam(0.1)], [lambda path, leaf: True]
    with pytest.raises(TypeError, match=r"single mlx optimiser.*MultiOptimizer.*optim\.groups"):
        optim.lift(mlx_optimizers.MultiOptimizer, *parts) if as_class else optim.lift(
            mlx_optimizers.MultiOptimizer(*parts)
        )


def test_arguments_for_an_optimiser_that_is_made_are_refused():
    with pytest.raises(TypeError, match=r"SGD is made already.*lift its class"):
        optim.lift(mlx_optimizers.SGD(0.1), 0.2)


def test_what_is_no_optimiser_is_refused():
    with pytest.raises(TypeError, match=r"single mlx optimiser; got dict"):
        optim.lift(dict)


def test_an_optimiser_of_ones_own_lifts():
    class Sign(mlx_optimizers.Optimizer):
        def __init__(self, learning_rate):
            super().__init__()
            self._maybe_schedule("learning_rate", learning_rate)

        def init_single(self, parameter, state):
            state["seen"] = mx.array(0)

        def apply_single(self, gradient, parameter, state):
            state["seen"] = state["seen"] + 1
            return parameter - self.learning_rate * mx.sign(gradient)

    step = fp.train_step(nn.linear(2, 1), mean_square, optim.lift(Sign, 0.5))
    params, opt_state = step.init(0)
    new, opt_state, _ = step(params, opt_state, mx.ones((3, 2)))
    np.testing.assert_allclose(mx.abs(new["weight"] - params["weight"]), np.full((1, 2), 0.5), rtol=1e-5)
    assert opt_state["optimizer"]["memory"]["bias"]["seen"].item() == 1


def test_the_repr_names_the_wrappers_and_the_optimiser():
    wrapped = optim.clip_norm(1.0)(optim.ema(0.5)(optim.adamw(1e-3)))
    assert repr(wrapped) == "clip_norm(1)(ema(0.5)(adamw(learning_rate=0.001)))"
    assert wrapped.name == "clip_norm(1)(ema(0.5)(adamw))"  # checkpoints hold the name


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: optim.adamw(1e-3), "adamw(learning_rate=0.001)"),
        (lambda: optim.adam(0.1, betas=[0.5, 0.6]), "adam(learning_rate=0.1, betas=[0.5, 0.6])"),
        (lambda: optim.sgd(optim.cosine_decay(0.1, 10)), "sgd(learning_rate=cosine_decay)"),
        (lambda: optim.sgd(optim.warmup_cosine(0.1, 10)), "sgd(learning_rate=warmup_cosine)"),
        (lambda: optim.sgd(mx.array(0.1)), "sgd(learning_rate=array())"),
        (lambda: optim.adafactor(), "adafactor"),
        (lambda: optim.lift(mlx_optimizers.Adam(0.1)), "adam"),
        (lambda: optim.skip_nonfinite()(optim.sgd(0.5)), "skip_nonfinite()(sgd(learning_rate=0.5))"),
    ],
)
def test_the_repr_has_the_options_that_were_given(make, text):
    assert repr(make()) == text


# names


def test_the_name_says_which_options_differ_from_their_defaults():
    assert optim.sgd(0.5).name == "sgd"
    assert optim.sgd(0.5, momentum=0.9, nesterov=True).name == "sgd(momentum=0.9, nesterov=True)"
    assert optim.adam(0.1, betas=[0.5, 0.6]).name == "adam(betas=[0.5, 0.6])"
    assert optim.adamw(optim.cosine_decay(0.1, 10)).name == "adamw"
    assert optim.lift(mlx_optimizers.Adam(0.1)).name == "adam"


def test_an_optimiser_has_the_signature_of_its_class():
    assert list(inspect.signature(optim.adamw).parameters) == list(inspect.signature(mlx_optimizers.AdamW).parameters)
