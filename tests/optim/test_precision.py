"""Parameters and memory in 16 bits: small updates count, the mean of rounding is exact, and every nesting resumes."""

from __future__ import annotations

import math
from itertools import permutations

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from helpers import bits, mse, random_batch
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.optim._precision import _round_at_random
from mlx_fp.tree._paths import flat

NARROW = {"a": mx.ones((64,), mx.bfloat16), "b": [{"v": mx.ones((3, 2), mx.bfloat16)}, {}]}
MIXED = {"w": mx.ones((4,), mx.bfloat16), "h": mx.ones((2,), mx.float16), "f": mx.ones((3,))}


def ones(params):
    return tree_map(mx.ones_like, params)


def run(opt, params, count, grads=None):
    state, update = opt.init(params), mx.compile(opt.update)
    for _ in range(count):
        params, state = update(ones(params) if grads is None else grads, state, params)
    return params, state


def dtypes(tree):
    return {path: leaf.dtype for path, leaf in flat(tree).items()}


def narrow(layer):
    """The layer with parameters in bfloat16."""
    params = nn.init(0)(layer)
    return nn.layer(
        lambda: tree_map(lambda p: p.astype(mx.bfloat16), params),
        lambda p, xs, kw, train: layer.apply.run(p, xs, kw, train),
    )


# the fault that the wrappers are for -----------------------------------------------------------------------------


def test_a_thousand_small_updates_of_a_bfloat16_parameter_change_nothing_without_a_wrapper():
    params, _ = run(optim.sgd(1e-3), NARROW, 1000)
    assert bits(params) == bits(NARROW)


def test_they_count_with_copies():
    params, state = run(optim.master()(optim.sgd(1e-3)), NARROW, 1000)
    assert dtypes(params) == dtypes(NARROW)
    assert dtypes(state["master"]) == dict.fromkeys(flat(NARROW), mx.float32)
    for leaf in flat(state["master"]).values():
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)


def test_they_count_with_rounding_at_random_on_average():
    params = {"w": mx.ones((4096,), mx.bfloat16)}
    moved, state = run(optim.stochastic_rounding()(optim.sgd(1e-3)), params, 500)
    assert moved["w"].dtype == mx.bfloat16
    assert moved["w"].astype(mx.float32).mean().item() == pytest.approx(0.5, abs=2e-3)
    assert set(state) == {"key", "inner"}


# rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1 + 2**-9, -3.1415926, 1e-30, 12345.678, 0.1])
def test_the_mean_of_rounding_at_random_is_the_number(value):
    x = mx.full((1 << 16,), value)
    rounded = _round_at_random(x, mx.random.key(1)).astype(mx.float32)
    neighbours = np.unique(np.array(rounded))
    assert len(neighbours) == 2
    step = neighbours[1] - neighbours[0]
    assert neighbours[0] < x[0].item() < neighbours[1]
    assert abs(np.array(rounded, np.float64).mean() - x[0].item()) < 4 * step / 2 / 2**8


@pytest.mark.parametrize("value", [1.0, -0.5, 0.0, math.inf, -math.inf, math.nan])
def test_a_number_that_bfloat16_has_and_what_is_not_finite_stay(value):
    rounded = _round_at_random(mx.full((1000,), value), mx.random.key(0))
    assert mx.array_equal(rounded, mx.full((1000,), value, mx.bfloat16), equal_nan=True)


def test_a_nan_of_any_bits_stays_nan():
    bits_of_nan = mx.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], mx.uint32).view(mx.float32)
    assert mx.isnan(_round_at_random(bits_of_nan, mx.random.key(0))).all().item()


def test_leaves_are_rounded_with_different_numbers_and_other_seeds_give_others():
    params = {"a": mx.ones((512,), mx.bfloat16), "b": mx.ones((512,), mx.bfloat16)}
    first, state = run(optim.stochastic_rounding(seed=1)(optim.sgd(1e-3)), params, 1)
    assert bits(first["a"]) != bits(first["b"])
    assert bits(run(optim.stochastic_rounding(seed=1)(optim.sgd(1e-3)), params, 1)) == bits((first, state))
    assert bits(run(optim.stochastic_rounding(seed=2)(optim.sgd(1e-3)), params, 1)[0]) != bits(first)
    second, later = optim.stochastic_rounding(seed=1)(optim.sgd(1e-3)).update(ones(params), state, params)
    assert bits(second) != bits(first)
    assert bits(later["key"]) != bits(state["key"])


# which leaves ----------------------------------------------------------------------------------------------------


def test_only_narrow_leaves_have_copies():
    params, state = run(optim.master()(optim.adam(1e-2)), MIXED, 3)
    assert dtypes(state["master"]) == {"w": mx.float32, "h": mx.float32}
    assert dtypes(params) == dtypes(MIXED)
    assert set(dtypes(state["inner"]["memory"]).values()) == {mx.float32}
    assert bits(params["f"]) == bits(run(optim.adam(1e-2), {"f": MIXED["f"]}, 3)[0]["f"])


def test_only_bfloat16_leaves_are_rounded_at_random():
    params, state = run(optim.stochastic_rounding()(optim.adam(1e-2)), MIXED, 3)
    plain, _ = run(optim.adam(1e-2), {"h": MIXED["h"], "f": MIXED["f"]}, 3)
    assert bits([params["h"], params["f"]]) == bits([plain["h"], plain["f"]])
    assert dtypes(params) == dtypes(MIXED)
    memory = dtypes(state["inner"]["memory"])
    assert (memory["w.m"], memory["h.m"]) == (mx.float32, mx.float16)


@pytest.mark.parametrize("verb", [optim.master(), optim.stochastic_rounding()], ids=["master", "stochastic"])
def test_parameters_of_float32_are_updated_as_without(verb):
    params = {"w": mx.array([1.0, 2.0])}
    wrapped, _ = run(verb(optim.adamw(1e-2)), params, 4)
    assert bits(wrapped) == bits(run(optim.adamw(1e-2), params, 4)[0])


def test_a_parameter_that_a_hook_replaces_wins_over_its_copy():
    opt = optim.master()(optim.sgd(0.25))
    params, state = run(opt, NARROW, 1)
    params = {**params, "a": mx.full((64,), 5.0, mx.bfloat16)}
    params, state = opt.update(ones(params), state, params)
    assert state["master"]["a"].tolist() == [4.75] * 64
    assert state["master"]["b"][0]["v"].tolist() == [[0.5, 0.5]] * 3


def test_copies_are_the_float32_run_of_the_same_gradients():
    params, wide = {"w": mx.ones((8,), mx.bfloat16)}, {"w": mx.ones((8,))}
    grads = {"w": mx.arange(8).astype(mx.bfloat16) * 0.125}
    _, state = run(optim.master()(optim.adamw(1e-3)), params, 5, grads)
    exact, exact_state = run(optim.adamw(1e-3), wide, 5, {"w": grads["w"].astype(mx.float32)})
    assert bits(state["master"]) == bits(exact)
    assert bits(state["inner"]) == bits(exact_state)


# memory ----------------------------------------------------------------------------------------------------------


def test_memory_in_bfloat16_follows_that_of_float32():
    params = {"w": mx.ones((2048,))}
    wide, exact = run(optim.adam(1e-3), params, 200, {"w": mx.full((2048,), 0.1)})
    moved, state = run(optim.state_dtype(mx.bfloat16)(optim.adam(1e-3)), params, 200, {"w": mx.full((2048,), 0.1)})
    memory = state["inner"]["memory"]["w"]
    assert set(dtypes(memory).values()) == {mx.bfloat16}
    for name in ("m", "v"):
        mean = memory[name].astype(mx.float32).mean().item()
        assert mean == pytest.approx(exact["memory"]["w"][name][0].item(), rel=2e-2)
    assert moved["w"].dtype == mx.float32
    assert moved["w"].mean().item() == pytest.approx(wide["w"].mean().item(), abs=3e-3)
    assert state["inner"]["learning_rate"].dtype == mx.float32


def test_memory_of_bfloat16_parameters_may_be_float32():
    _, plain = run(optim.adam(1e-3), NARROW, 2)
    params, state = run(optim.state_dtype(mx.float32)(optim.adam(1e-3)), NARROW, 2)
    assert set(dtypes(plain["memory"]).values()) == {mx.bfloat16}
    assert set(dtypes(state["inner"]["memory"]).values()) == {mx.float32}
    assert set(state) == {"inner"}
    assert dtypes(params) == dtypes(NARROW)


def test_averages_and_copies_keep_their_dtype_within():
    opt = pipe(optim.adam(1e-2), optim.ema(0.9), optim.master(), optim.state_dtype(mx.bfloat16))
    _, state = run(opt, NARROW, 2)
    kinds = {path.rpartition("inner.")[2].split(".")[0]: kind for path, kind in dtypes(state).items()}
    assert kinds["master"] == kinds["average"] == kinds["learning_rate"] == mx.float32
    assert kinds["memory"] == mx.bfloat16


def test_the_memory_of_every_group_is_cast():
    opt = optim.state_dtype(mx.bfloat16)(
        optim.groups(("a", optim.adam(1e-2)), (None, optim.clip_norm(1.0)(optim.lion(1e-3))))
    )
    _, state = run(opt, {"a": mx.ones((2,)), "b": mx.ones((2,))}, 2)
    kinds = [kind for path, kind in dtypes(state).items() if ".memory." in path]
    assert kinds == [mx.bfloat16] * 3


def test_wrong_options_are_refused_at_once():
    with pytest.raises(ValueError, match=r"mx.bfloat16 or mx.float32; got .*float16"):
        optim.state_dtype(mx.float16)
    with pytest.raises(TypeError, match="a seed is an int"):
        optim.stochastic_rounding(seed="x")
    with pytest.raises(TypeError, match="master takes an Optimizer"):
        optim.master()(optim.sgd)
    blind = optim.Optimizer(lambda params: {}, lambda grads, state, params: (params, state), "blind")
    with pytest.raises(ValueError, match="state_dtype: blind keeps no memory"):
        optim.state_dtype(mx.bfloat16)(blind).init(NARROW)


# among the others ------------------------------------------------------------------------------------------------

VERBS = {
    "master": optim.master(),
    "stochastic_rounding": optim.stochastic_rounding(),
    "state_dtype": optim.state_dtype(mx.bfloat16),
    "clip_norm": optim.clip_norm(1.0),
    "skip_nonfinite": optim.skip_nonfinite(),
    "ema": optim.ema(0.5),
}


@pytest.mark.parametrize("names", list(permutations(VERBS, 2)), ids="-".join)
def test_any_two_nest_purely_and_keep_structure_and_dtypes(names):
    opt = pipe(optim.adam(optim.linear_schedule(0.1, 0.0, 100)), *(VERBS[name] for name in names))
    state, gradients = opt.init(MIXED), ones(MIXED)
    before = bits([MIXED, state, gradients])
    new, after = opt.update(gradients, state, MIXED)
    assert bits(opt.update(gradients, state, MIXED)) == bits((new, after))
    assert bits([MIXED, state, gradients]) == before
    assert dtypes([MIXED, state]) == dtypes([new, after])
    assert bits(new) != bits(MIXED)
    assert optim.reading("learning_rate")(optim.scale_rates(0.5)(after)).item() == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["master", "stochastic_rounding", "state_dtype"])
@pytest.mark.usual("stochastic_rounding")
def test_a_gradient_that_is_not_finite_changes_no_copy_and_no_key(name):
    opt = pipe(optim.adam(0.1), VERBS[name], optim.skip_nonfinite())
    params, state = run(opt, MIXED, 1)
    bad = {**ones(MIXED), "f": mx.full((3,), math.nan)}
    after, later = opt.update(bad, state, params)
    assert bits([after, later["inner"]]) == bits([params, state["inner"]])


OPTIMIZERS = {
    "master": lambda: pipe(optim.adamw(optim.cosine_decay(1e-2, 50)), optim.master(), optim.clip_norm(1.0)),
    "stochastic": lambda: pipe(
        optim.adamw(1e-2), optim.ema(0.5), optim.stochastic_rounding(seed=3), optim.skip_nonfinite()
    ),
    "memory": lambda: pipe(optim.adamw(1e-2), optim.state_dtype(mx.bfloat16), optim.stochastic_rounding()),
    "groups": lambda: optim.groups(
        ("layers.0", optim.master()(optim.sgd(0.1))), (None, optim.stochastic_rounding()(optim.adam(1e-2)))
    ),
    "lifted": lambda: optim.master()(optim.lift(mlx_optimizers.Muon(1e-2))),
}


def trained(optimizer, *verbs, **options):
    model = narrow(nn.sequential(*[nn.linear(4, 4) for _ in range(6)], nn.linear(4, 1)))
    x = mx.random.normal((16, 4), key=mx.random.key(0)).astype(mx.bfloat16)
    train = pipe(data.arrays(x=x, y=x.sum(axis=1)), data.shuffle(seed=1), data.batch(4))
    target = pipe(fp.trainer(model, fp.regression(metrics=[])), fp.with_optimizer(optimizer), *verbs)
    return fp.fit(train, quiet=True, **{"epochs": 2, **options})(target)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usual("memory")
def test_a_run_resumes_bit_by_bit(name, tmp_path):
    whole = trained(OPTIMIZERS[name]())
    assert set(dtypes(whole.params).values()) == {mx.bfloat16}
    saves = fp.checkpoints(tmp_path / "run-{step}")
    trained(OPTIMIZERS[name](), saves, epochs=1)
    again = trained(OPTIMIZERS[name](), saves, resume="latest")
    assert again.start_epoch == 1
    assert bits([again.params, again.opt_state]) == bits([whole.params, whole.opt_state])


def test_averages_within_copies_are_found():
    opt = pipe(optim.sgd(1e-3), optim.ema(0.5), optim.master())
    params, state = run(opt, NARROW, 2)
    assert state["inner"]["average"]["a"][0].item() == pytest.approx(0.25 * 1 + 0.25 * 0.999 + 0.5 * 0.998)
    assert optim.averaged(state)(params)["a"].dtype == mx.bfloat16


def test_frozen_parameters_have_no_copy():
    model = nn.freeze("encoder")(nn.sequential(encoder=narrow(nn.linear(3, 4)), head=narrow(nn.linear(4, 2))))
    step = fp.train_step(model, mse, optim.master()(optim.adam(1e-2)))
    params, opt_state = step.init(0)
    assert set(flat(opt_state["optimizer"]["master"])) == {"head.weight", "head.bias"}
    after, *_ = step(params, opt_state, random_batch(6))
    assert bits(after["encoder"]) == bits(params["encoder"])
