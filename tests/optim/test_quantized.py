"""Memory in 8 bits: close to float32, few bytes, one large parameter at a time, the same bits after a resume."""

from __future__ import annotations

from importlib.util import find_spec

import mlx.core as mx
import pytest
from helpers import assert_same_bits, assert_same_run, bits, mean_square
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core.backend import on_device
from mlx_fp.optim._quantization import from_codes

BLIND = optim.Optimizer(lambda params: {}, lambda grads, state, params: (params, state), "blind")
PARAMS = {"w": mx.random.normal((80, 64), key=mx.random.key(0)), "b": [mx.ones((64,)), {}]}


def run(opt, count, params=PARAMS):
    state, update = opt.init(params), mx.compile(opt.update)
    for step in range(count):
        noise = mx.random.normal((80, 64), key=mx.random.key(step))
        grads = {**params, "w": params["w"] + 0.5 * noise}
        params, state = update(grads, state, params)
    return params, state


def moments(state, name):
    memory = state["inner"]["memory"]["w"]
    return from_codes(memory[name], memory[f"{name}_scales"])


@pytest.mark.slow
def test_moments_and_parameters_follow_those_of_float32():
    wide, exact = run(optim.adamw(1e-2), 40)
    params, state = run(optim.quantized()(optim.adamw(1e-2)), 40)
    moved = mx.abs(wide["w"] - PARAMS["w"]).mean()
    assert mx.abs(params["w"] - wide["w"]).mean() < 0.05 * moved
    for name, tolerance in (("m", 0.1), ("v", 0.1)):
        theirs = exact["memory"]["w"][name]
        assert mx.abs(moments(state, name) - theirs).mean() < tolerance * mx.abs(theirs).mean()
    assert moments(state, "v").mean().item() == pytest.approx(exact["memory"]["w"]["v"].mean().item(), rel=0.02)


@pytest.mark.slow
def test_small_parameters_and_rates_stay_in_float32_with_the_same_bits():
    wide, exact = run(optim.adamw(1e-2), 3)
    params, state = run(optim.quantized()(optim.adamw(1e-2)), 3)
    assert bits(params["b"]) == bits(wide["b"])
    assert bits(state["inner"]["memory"]["b"]) == bits(exact["memory"]["b"])
    assert state["inner"]["step"].item() == 3
    assert optim.reading("learning_rate")(optim.scale_rates(0.5)(state)).item() == pytest.approx(5e-3)


def test_one_update_by_hand():
    """The first update of momentum is the gradient, and the second reads the codes of the first."""
    opt, params, grads = optim.quantized()(optim.sgd(0.5, momentum=0.9)), {"w": PARAMS["w"]}, {"w": PARAMS["w"] * 0.1}
    first, state = opt.update(grads, opt.init(params), params)
    assert mx.allclose(first["w"], params["w"] - 0.5 * grads["w"])
    velocity = moments(state, "v")
    assert mx.allclose(velocity, grads["w"], rtol=0.35, atol=1e-3)
    second, _ = opt.update(grads, state, first)
    assert mx.allclose(second["w"], first["w"] - 0.5 * (0.9 * velocity + grads["w"]), atol=1e-6)


def test_the_bytes_of_bfloat16_parameters_and_their_state():
    params = {"w": mx.zeros((512, 512), mx.bfloat16)}
    state = pipe(optim.adamw(1e-3), optim.quantized(bits=8), optim.stochastic_rounding()).init(params)
    used = sum(leaf.nbytes for leaf in fp.flat([params, state]).values())
    assert used / params["w"].size < 4.2


def test_no_update_explodes_where_gradients_stop():
    """Adam divides by the root of a second moment: one that is rounded to zero would make a huge update."""
    scale = mx.exp(-mx.arange(64) / 4.0)  # the columns of a group differ by a factor of ten million
    largest = []
    for opt in (optim.adamw(1e-3), optim.quantized()(optim.adamw(1e-3))):
        params, update, steps = {"w": mx.zeros((64, 64))}, mx.compile(opt.update), []
        state = opt.init(params)
        for step in range(40):
            noise = mx.random.normal((64, 64), key=mx.random.key(step)) * scale * (step < 20)
            before, (params, state) = params, update({"w": noise}, state, params)
            steps.append(mx.abs(params["w"] - before["w"]).max())
        largest.append(mx.stack(steps).max().item())
    assert largest[1] < 5 * largest[0]  # not 1e5: the smallest code of a second moment is 15 times below the next


@pytest.mark.parametrize(
    "inner",
    [
        optim.clip_norm(1.0)(optim.adamw(1e-2)),
        optim.groups((r"b", optim.sgd(0.1, momentum=0.9)), (None, optim.ema(0.9)(optim.adam(1e-2)))),
        optim.adafactor(1e-2),
        optim.muon(1e-2),
        optim.lion(1e-3),
    ],
    ids=["clip_norm", "groups", "adafactor", "muon", "lion"],
)
@pytest.mark.usual("clip_norm", "groups", "muon", "lion")
def test_other_optimisers_and_wrappers_inside(inner):
    params, state = run(optim.quantized()(inner), 3)
    wide, _ = run(inner, 3)
    assert mx.abs(params["w"] - wide["w"]).mean() < 0.2 * mx.abs(wide["w"] - PARAMS["w"]).mean()
    assert {path: leaf.dtype for path, leaf in fp.flat(state).items()} == {
        path: leaf.dtype for path, leaf in fp.flat(optim.quantized()(inner).init(PARAMS)).items()
    }


def test_the_update_is_pure_and_seeds_differ():
    opt = optim.quantized(seed=1)(optim.adam(1e-2))
    params, state = run(opt, 1)
    grads = tree_map(mx.ones_like, params)
    before = bits([params, state])
    assert bits(opt.update(grads, state, params)) == bits(opt.update(grads, state, params))
    assert bits([params, state]) == before
    assert bits(run(optim.quantized(seed=2)(optim.adam(1e-2)), 1)[1]["inner"]) != bits(state["inner"])


def test_a_gradient_that_is_not_finite_changes_nothing_with_a_skip_around():
    opt = optim.skip_nonfinite()(optim.quantized()(optim.adam(1e-2)))
    params, state = run(opt, 1)
    bad = {**tree_map(mx.ones_like, params), "w": mx.full((80, 64), mx.nan)}
    after, later = opt.update(bad, state, params)
    assert_same_bits([after, later["inner"]], [params, state["inner"]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.quantized(bits=4), ValueError, "bits of quantized is 8; got 4"),
        (lambda: optim.quantized(seed="x"), TypeError, "a seed is an int"),
        (lambda: optim.quantized()(optim.sgd), TypeError, "quantized takes an Optimizer"),
        (lambda: optim.quantized()(BLIND).init(PARAMS), ValueError, "keeps no memory of its parameters"),
        (lambda: optim.quantized()(optim.sharded(fp.world())(optim.adam(0.1))).init(PARAMS), ValueError, "processes"),
    ],
)
def test_wrong_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def net():
    return nn.sequential(nn.remat(nn.linear(8, 512)), nn.tanh, nn.linear(512, 2))


def trained(optimizer, *verbs, **options):
    x = mx.random.normal((24, 8), key=mx.random.key(0))
    train = pipe(data.arrays(x=x, y=x[:, :2]), data.shuffle(seed=1), data.batch(4))
    target = pipe(fp.trainer(net(), fp.regression()), fp.with_optimizer(optimizer), *verbs)
    return fp.fit(train, quiet=True, **{"epochs": 2, **options})(target)


def test_a_run_resumes_to_the_same_bits(tmp_path):
    optimizer = pipe(optim.adamw(optim.cosine_decay(1e-2, 12)), optim.quantized(), optim.clip_norm(1.0))
    whole, saves = trained(optimizer), fp.checkpoints(tmp_path / "step-{step}")
    trained(optimizer, saves, epochs=1)
    again = trained(optimizer, saves, resume="latest")
    assert again.start_epoch == 1
    assert_same_run(again, whole)


def test_updates_in_the_backward_pass_have_the_same_bits():
    ends = []
    for update in ("at_end", "in_backward"):
        step = fp.train_step(net(), mean_square, optim.quantized()(optim.adamw(1e-2)), update=update)
        state = step.init(0)
        for _ in range(3):
            *state, _ = step(*state, mx.ones((4, 8)))
        ends.append(list(state))
    assert_same_bits(*ends)


@pytest.mark.skipif(find_spec("mlx_fp.cpu") is None, reason="MLX's queue holds the memory without the backend")
def test_the_float32_memory_of_one_parameter_at_a_time_exists():
    params = [mx.random.normal((512, 512), key=mx.random.key(i)) for i in range(12)]
    peaks = []
    for opt in (optim.adamw(1e-3), optim.quantized()(optim.adamw(1e-3))):
        state, update = opt.init(params), mx.compile(on_device(opt.update))
        grads = tree_map(mx.ones_like, params)
        mx.eval(params, state, grads)
        mx.eval(update(grads, state, params))  # compiles
        mx.reset_peak_memory()
        start = mx.get_active_memory()
        mx.eval(update(grads, state, params))
        peaks.append((mx.get_peak_memory() - start) / params[0].nbytes)
    assert peaks[1] < 12 + 12 * 0.6 + 14 < peaks[0]  # new parameters, new codes, and the arrays of one parameter
