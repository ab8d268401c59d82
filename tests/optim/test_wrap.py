"""Optimisers around optimisers: each verb by hand, and every nesting of them."""

from __future__ import annotations

import math
from itertools import permutations

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import assert_close, bits, mse, random_batch
from hypothesis import given
from hypothesis import strategies as st
from mlx.optimizers import clip_grad_norm
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.tree._paths import flat, norm

PARAMS = {"w": mx.array([1.0, 2.0]), "layers": [{"b": mx.array([[3.0]])}, {}]}
ELEMENTS = st.floats(-100, 100, width=32, allow_subnormal=False)
GRADS = st.builds(
    lambda a, b, c: {"w": mx.array([a, b]), "layers": [{"b": mx.array([[c]])}, {}]}, ELEMENTS, ELEMENTS, ELEMENTS
)


def grads(*values):
    a, b, c = values
    return {"w": mx.array([a, b]), "layers": [{"b": mx.array([[c]])}, {}]}


def run(opt, many, params=PARAMS):
    state = opt.init(params)
    for each in many:
        params, state = opt.update(each, state, params)
    return params, state


def net():
    return nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 2))


# clip_norm ------------------------------------------------------------------------------------------------------


@examples(30)
@given(GRADS, st.floats(0.01, 200))
def test_clip_norm_is_clip_grad_norm_of_mlx(gradients, limit):
    clipped, _ = clip_grad_norm(gradients, limit)
    plain, _ = run(optim.sgd(1.0), [clipped])
    mine, state = run(optim.clip_norm(limit)(optim.sgd(1.0)), [gradients])
    assert bits(mine) == bits(plain)
    assert optim.reading("grad_norm")(state).item() == norm(gradients).item()


def test_the_norm_read_is_the_one_before_clipping_by_hand():
    params, state = run(optim.clip_norm(1.0)(optim.sgd(1.0)), [grads(2.0, 3.0, 6.0)])
    assert optim.reading("grad_norm")(state).item() == 7.0
    np.testing.assert_allclose(params["w"], [1 - 2 / 7, 2 - 3 / 7], rtol=1e-5)
    np.testing.assert_allclose(params["layers"][0]["b"], [[3 - 6 / 7]], rtol=1e-5)


def test_an_infinite_limit_only_measures():
    plain, _ = run(optim.adam(0.1), [grads(2.0, 3.0, 6.0)])
    mine, state = run(optim.clip_norm(math.inf)(optim.adam(0.1)), [grads(2.0, 3.0, 6.0)])
    assert bits(mine) == bits(plain)
    assert optim.reading("grad_norm")(state).item() == 7.0


def test_an_infinite_limit_spreads_no_infinity():
    plain, _ = run(optim.sgd(0.1), [grads(1.0, 2.0, math.inf)])
    mine, state = run(optim.clip_norm(math.inf)(optim.sgd(0.1)), [grads(1.0, 2.0, math.inf)])
    assert bits(mine) == bits(plain)
    assert optim.reading("grad_norm")(state).item() == math.inf


def test_the_norm_through_the_step_is_that_of_the_gradients_by_hand():
    model, data = net(), random_batch(6)
    step = fp.train_step(model, mse, optim.clip_norm(1e-3)(optim.sgd(1.0)))
    params, opt_state = step.init(0)
    wanted = mx.grad(lambda p: mse(lambda x: model.apply(p, x)[0], *data))(params)
    new, opt_state, _ = step(params, opt_state, data)
    assert optim.reading("grad_norm")(opt_state).item() == pytest.approx(norm(wanted).item(), rel=1e-5)
    moved = {path: leaf - flat(params)[path] for path, leaf in flat(new).items()}
    assert norm(moved).item() == pytest.approx(1e-3, rel=1e-2)


def test_clip_norm_of_half_precision_does_not_overflow():
    params = {"w": mx.zeros((4,), mx.float16)}
    new, state = run(optim.clip_norm(1.0)(optim.sgd(1.0)), [{"w": mx.full((4,), 1000.0, mx.float16)}], params)
    assert optim.reading("grad_norm")(state).item() == pytest.approx(2000.0)
    assert new["w"].tolist() == [-0.5] * 4


def test_the_norm_of_many_bfloat16_leaves_is_summed_in_float32():
    params = {f"w{i}": mx.zeros((1,), mx.bfloat16) for i in range(300)}  # a bfloat16 sum of ones stands still at 256
    new, state = run(
        optim.clip_norm(1.0)(optim.sgd(1.0)), [{name: mx.ones((1,), mx.bfloat16) for name in params}], params
    )
    assert optim.reading("grad_norm")(state).item() == pytest.approx(300**0.5)
    assert norm(new).item() == pytest.approx(1.0, rel=1e-2)
    assert new["w0"].dtype == mx.bfloat16


# clip_value -----------------------------------------------------------------------------------------------------


@examples(30)
@given(GRADS, st.floats(0.01, 200))
def test_clip_value_is_numpys_clip(gradients, limit):
    mine, _ = run(optim.clip_value(limit)(optim.sgd(1.0)), [gradients])
    for path, leaf in flat(mine).items():
        wanted = np.array(flat(PARAMS)[path]) - np.clip(
            np.array(flat(gradients)[path]), -np.float32(limit), np.float32(limit)
        )
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6, atol=1e-6)


# skip_nonfinite -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad):
    opt = optim.skip_nonfinite()(optim.adam(0.1))
    params, state = run(opt, [grads(1.0, 2.0, 3.0)])
    for times in (1, 2):
        after, later = opt.update(grads(1.0, 2.0, bad), state, params)
        assert bits(after) == bits(params)
        assert bits(later["inner"]) == bits(state["inner"])
        assert (later["skipped"].item(), later["in_a_row"].item()) == (times, times)
        params, state = after, later
    after, later = opt.update(grads(1.0, 2.0, 3.0), state, params)
    assert bits(after) == bits(run(optim.adam(0.1), [grads(1.0, 2.0, 3.0)] * 2)[0])
    assert (later["skipped"].item(), later["in_a_row"].item()) == (2, 0)


def test_after_the_limit_the_next_bad_gradient_goes_through():
    opt = optim.skip_nonfinite(limit=2)(optim.sgd(0.1))
    bad = grads(math.nan, 1.0, 1.0)
    params, state = run(opt, [bad, bad])
    assert bits(params) == bits(PARAMS)
    params, state = opt.update(bad, state, params)
    assert math.isnan(params["w"][0].item())
    assert (state["skipped"].item(), state["in_a_row"].item()) == (2, 0)


def test_a_good_gradient_starts_the_row_again():
    opt, bad, good = optim.skip_nonfinite(limit=2)(optim.sgd(0.1)), grads(math.nan, 1.0, 1.0), grads(1.0, 1.0, 1.0)
    params, state = run(opt, [bad, good, bad, bad])
    assert bits(params) == bits(run(optim.sgd(0.1), [good])[0])
    assert (state["skipped"].item(), state["in_a_row"].item()) == (3, 2)


# ema ------------------------------------------------------------------------------------------------------------


@examples(20)
@given(st.lists(GRADS, min_size=1, max_size=4), st.floats(0, 0.99))
def test_ema_by_hand(many, decay):
    opt = optim.ema(decay)(optim.sgd(0.1))
    params, state, wanted = PARAMS, opt.init(PARAMS), {p: np.array(x, np.float64) for p, x in flat(PARAMS).items()}
    for each in many:
        params, state = opt.update(each, state, params)
        wanted = {p: decay * wanted[p] + (1 - decay) * np.array(x, np.float64) for p, x in flat(params).items()}
    assert bits(params) == bits(run(optim.sgd(0.1), many)[0])
    for path, leaf in flat(optim.averaged(state)(params)).items():
        np.testing.assert_allclose(leaf, wanted[path], rtol=1e-5, atol=1e-4)


def test_averaged_fills_frozen_leaves_and_buffers_through_the_step():
    model = pipe(nn.sequential(enc=nn.linear(3, 4), norm=nn.batch_norm(4), head=nn.linear(4, 2)), nn.freeze("enc"))
    step = fp.train_step(model, mse, pipe(optim.sgd(0.5), optim.ema(0.75), optim.clip_norm(math.inf)))
    params, opt_state = step.init(0)
    start = params["head"]["weight"]
    params, opt_state, _ = step(params, opt_state, random_batch(6))
    mean = optim.averaged(opt_state)(params)
    np.testing.assert_allclose(
        mean["head"]["weight"], 0.75 * start + 0.25 * params["head"]["weight"], rtol=1e-5, atol=1e-6
    )
    assert bits(mean["enc"]) == bits(params["enc"])
    assert mean["norm"]["running_var"].tolist() == params["norm"]["running_var"].tolist()
    assert flat(mean).keys() == flat(params).keys()
    fp.eval_step(model, mse)(mean, {}, random_batch(6))


def test_averaged_has_the_averages_of_every_group():
    params = {"weight": mx.ones((2,)), "bias": mx.ones((2,)), "rest": mx.ones((2,))}
    halves = [(name, optim.ema(0.5)(optim.sgd(1.0))) for name in ("weight", "bias")]
    opt = optim.clip_norm(math.inf)(optim.groups(*halves, (None, optim.sgd(1.0))))
    new, state = opt.update({name: mx.ones((2,)) for name in params}, opt.init(params), params)
    wanted = {"weight": [0.5, 0.5], "bias": [0.5, 0.5], "rest": [0.0, 0.0]}
    assert {name: leaf.tolist() for name, leaf in optim.averaged(state)(new).items()} == wanted


def test_reading_what_several_groups_keep_says_to_choose_one():
    params = {"a": mx.ones((2,)), "b": mx.ones((2,))}
    opt = optim.groups(("a", optim.clip_norm(1.0)(optim.sgd(0.1))), ("b", optim.clip_norm(1.0)(optim.sgd(0.2))))
    _, state = opt.update(params, opt.init(params), params)
    with pytest.raises(KeyError, match="2 groups keep 'grad_norm': read it of one"):
        optim.reading("grad_norm")(state)
    norms = [optim.reading("grad_norm")(one).item() for one in state["groups"]]
    assert norms == pytest.approx([2**0.5] * 2)
    outer = optim.clip_norm(1.0)(opt)
    assert optim.reading("grad_norm")(outer.update(params, outer.init(params), params)[1]).item() == pytest.approx(2.0)


def test_the_average_of_bfloat16_is_float32_and_comes_back_narrow():
    params = {"w": mx.ones((2,), mx.bfloat16)}
    new, state = run(optim.ema(0.999)(optim.sgd(1.0)), [{"w": mx.ones((2,), mx.bfloat16)}], params)
    assert state["average"]["w"].dtype == mx.float32
    assert state["average"]["w"][0].item() == pytest.approx(0.999)
    assert optim.averaged(state)(new)["w"].dtype == mx.bfloat16


def test_averaged_without_ema_is_a_key_error_that_says_what_there_is():
    _, state = run(optim.clip_norm(1.0)(optim.sgd(0.1)), [grads(1.0, 1.0, 1.0)])
    with pytest.raises(KeyError, match=r"average.*grad_norm"):
        optim.averaged(state)


# all of them ----------------------------------------------------------------------------------------------------

VERBS = {
    "clip_norm": optim.clip_norm(1.0),
    "clip_value": optim.clip_value(0.5),
    "skip_nonfinite": optim.skip_nonfinite(limit=9),
    "ema": optim.ema(0.5),
}


@pytest.mark.parametrize("names", list(permutations(VERBS, 2)), ids="-".join)
def test_any_two_nest_purely_and_keep_structure_and_dtypes(names):
    opt = pipe(optim.adam(0.1), *(VERBS[name] for name in names))
    params = {"w": mx.array([1.0, 2.0], mx.bfloat16), "b": [{"v": mx.array([1.0])}, {}]}
    gradients = {"w": mx.array([3.0, 4.0], mx.bfloat16), "b": [{"v": mx.array([12.0])}, {}]}
    state = opt.init(params)
    before = bits([params, state, gradients])
    new, after = opt.update(gradients, state, params)
    assert bits(opt.update(gradients, state, params)) == bits((new, after))
    assert bits([params, state, gradients]) == before
    kinds = [{path: leaf.dtype for path, leaf in flat(tree).items()} for tree in ([params, state], [new, after])]
    assert kinds[0] == kinds[1]
    assert bits(new) != bits(params)
    for name, kept in {"clip_norm": "grad_norm", "skip_nonfinite": "skipped", "ema": "average"}.items():
        assert (name not in names) or optim.reading(kept)(after) is not None


@pytest.mark.parametrize(
    "order", [list(VERBS), list(VERBS)[::-1], ["ema", "skip_nonfinite", "clip_norm", "clip_value"]], ids="-".join
)
@pytest.mark.usual("ema-skip_nonfinite-clip_norm-clip_value")
def test_all_of_them_nest_in_one_compiled_step_that_learns(order):
    step = fp.train_step(net(), mse, pipe(optim.adam(0.05), *(VERBS[name] for name in order)))
    params, opt_state = step.init(0)
    losses = []
    for _ in range(40):
        params, opt_state, logs = step(params, opt_state, random_batch(6))
        losses.append(logs["loss"].item())
    assert losses[-1] < 0.5 * losses[0]
    assert step.traces == 1
    assert optim.reading("skipped")(opt_state).item() == 0


# an update on several batches -----------------------------------------------------------------------------------


def taken(optimizer, *batches):
    """Train weights of 1 and 2 on a loss whose gradient is the mean of the rows; return both and the state."""
    model = nn.define(lambda m, x: x @ m.w, w=nn.param(2))
    step = fp.train_step(model, lambda m, x: m(x).mean(), optimizer)
    params, opt_state = step.init({"w": mx.array([1.0, 2.0])})
    for each in batches:
        params, opt_state, _ = step.accumulate(params, opt_state, each)
    return params["w"].tolist(), opt_state


def row(*values):
    return mx.array([values])


def test_clipping_sees_the_mean_gradient_of_all_batches():
    w, state = taken(optim.clip_norm(1.0)(optim.sgd(1.0)), [row(3.0, 4.0), row(0.0, 0.0)])
    assert optim.reading("grad_norm")(state).item() == 2.5
    np.testing.assert_allclose(w, [1 - 0.6, 2 - 0.8], rtol=1e-4)
    w, _ = taken(optim.clip_value(1.75)(optim.sgd(1.0)), [row(3.0, 4.0), row(0.0, 0.0)])
    assert w == [-0.5, 0.25]


def test_schedules_and_averages_count_updates_and_not_batches():
    optimizer = optim.ema(0.5)(optim.sgd(optim.linear_schedule(1.0, 0.0, 4)))
    ones, seen = [row(1.0, 1.0)] * 3, []
    for count in range(1, 4):
        w, state = taken(optimizer, *[ones] * count)
        seen.append((optim.reading("step")(state).item(), w[0], optim.reading("average")(state)["w"][0].item()))
    assert seen == [(1, 0.0, 0.5), (2, -0.75, -0.125), (3, -1.25, -0.6875)]


def test_a_gradient_that_is_not_finite_in_one_batch_drops_the_whole_update():
    optimizer = pipe(optim.sgd(1.0), optim.skip_nonfinite())
    bad, good = row(math.nan, 1.0), row(1.0, 1.0)
    for batches in ([bad, good], [good, bad], [good, bad, good]):
        w, state = taken(optimizer, batches)
        assert w == [1.0, 2.0]
        assert (optim.reading("skipped")(state).item(), optim.reading("in_a_row")(state).item()) == (1, 1)
    w, state = taken(optimizer, [bad, good], [good, good])
    assert w == [0.0, 1.0]
    assert (optim.reading("skipped")(state).item(), optim.reading("in_a_row")(state).item()) == (1, 0)


@pytest.mark.parametrize("order", [list(VERBS), list(VERBS)[::-1]], ids="-".join)
def test_all_of_them_nest_in_an_update_on_several_batches_as_on_one(order):
    step = fp.train_step(net(), mse, pipe(optim.adam(0.05), *(VERBS[name] for name in order)))
    many, once = step.init(0), step.init(0)
    for seed in range(3):
        x, y = random_batch(6, seed)
        *many, _ = step.accumulate(*many, [(x[:2], y[:2]), (x[2:], y[2:])])
        *once, _ = step(*once, (x, y))
    assert_close([many[0], many[1]["optimizer"]], [once[0], once[1]["optimizer"]], rtol=1e-3, atol=1e-5)


def test_a_parameter_may_bear_the_name_of_what_a_wrapper_keeps():
    params = {name: mx.array([1.0]) for name in ("inner", "optimizer", "grad_norm", "average", "skipped", "memory")}
    ones = {name: mx.array([1.0]) for name in params}
    for order in permutations(["clip_norm", "skip_nonfinite", "ema"]):
        new, state = run(pipe(optim.adam(0.1), *(VERBS[name] for name in order)), [ones], params)
        assert len({leaf.item() for leaf in new.values()}) == 1
        assert optim.reading("grad_norm")(state).item() == pytest.approx(6**0.5)
        assert optim.averaged(state)(new).keys() == params.keys()


def test_reading_takes_the_outermost_and_names_what_there_is():
    opt = pipe(optim.sgd(0.1), optim.clip_norm(1.0), optim.clip_value(0.5), optim.clip_norm(9.0))
    _, state = run(opt, [grads(2.0, 3.0, 6.0)])
    assert optim.reading("grad_norm")(state).item() == 7.0
    assert optim.reading("learning_rate")(state).item() == pytest.approx(0.1)
    with pytest.raises(KeyError, match=r"skipped.*kept: grad_norm, learning_rate, step"):
        optim.reading("skipped")(state)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: optim.clip_norm(0), "max_norm.*above 0.*got 0"),
        (lambda: optim.clip_norm(math.nan), "max_norm.*above 0.*nan"),
        (lambda: optim.clip_norm("1"), "max_norm.*above 0.*'1'"),
        (lambda: optim.clip_norm(True), "max_norm.*True"),
        (lambda: optim.clip_value(-1), "limit.*above 0.*-1"),
        (lambda: optim.skip_nonfinite(limit=0), "limit.*1 or more.*0"),
        (lambda: optim.skip_nonfinite(limit=1.5), "limit.*1.5"),
        (lambda: optim.ema(1), r"decay.*\[0, 1\).*1"),
        (lambda: optim.ema(-0.1), r"decay.*\[0, 1\).*-0.1"),
        (lambda: optim.ema(math.nan), r"decay.*nan"),
        (lambda: optim.ema("0.9"), r"decay.*'0.9'"),
    ],
)
def test_bad_options_are_refused_at_once(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# of one's own


def halved(inner):
    """A wrapper by a user: half of each gradient, and a count of updates."""

    def init(params):
        return {"updates": mx.array(0), "inner": inner.init(params)}

    def update(grads, state, params):
        params, memory = inner.update(tree_map(lambda g: g / 2, grads), state["inner"], params)
        return params, {"updates": state["updates"] + 1, "inner": memory}

    return optim.Optimizer(init, update, f"halved({inner.name})")


def trained(optimizer, **options):
    model = nn.sequential(*[nn.linear(4, 4) for _ in range(8)], nn.linear(4, 1))
    x = mx.random.normal((16, 4), key=mx.random.key(0))
    train = pipe(data.arrays(x=x, y=x.sum(axis=1)), data.shuffle(seed=1), data.batch(4))
    verbs = options.pop("verbs", ())
    target = pipe(fp.trainer(model, fp.regression(metrics=[])), fp.with_optimizer(optimizer), *verbs)
    return fp.fit(train, quiet=True, **{"epochs": 2, **options})(target)


CITIZENS = {
    "alone": lambda: halved(optim.adam(1e-2)),
    "averaged": lambda: optim.ema(0.5)(halved(optim.adam(1e-2))),
    "around": lambda: halved(optim.clip_norm(1.0)(optim.adam(1e-2))),
    "in groups": lambda: optim.groups(("layers.0", halved(optim.sgd(0.1))), (None, optim.adam(1e-2))),
}


@pytest.mark.parametrize("name", CITIZENS)
@pytest.mark.usual("in groups")
def test_a_wrapper_of_ones_own_is_a_full_citizen(name, tmp_path):
    """Resume, averages, groups, packing, reading: it takes `init` and `update` alone."""
    whole = trained(CITIZENS[name]())
    assert optim.reading("updates")(whole.opt_state).item() == 8
    plain = trained(CITIZENS[name](), compile=False)
    assert_close(whole.params, plain.params, rtol=1e-4)
    saves = (fp.checkpoints(tmp_path / "run-{step}"),)
    trained(CITIZENS[name](), epochs=1, verbs=saves)
    again = trained(CITIZENS[name](), verbs=saves, resume="latest")
    assert again.start_epoch == 1
    assert bits([again.params, again.opt_state]) == bits([whole.params, whole.opt_state])


def test_scale_rates_goes_through_every_wrapper():
    opt = pipe(optim.sgd(0.5), *(VERBS[name] for name in VERBS))
    state = optim.scale_rates(0.5)(opt.init(PARAMS))
    assert optim.reading("learning_rate")(state).item() == 0.25
    before, after = flat(opt.init(PARAMS)), flat(state)
    assert [path for path in before if before[path].tolist() != after[path].tolist()] == [
        path for path in before if path.endswith("learning_rate")
    ]
