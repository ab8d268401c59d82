"""The faults of an earlier implementation and the traps of MLX, one test each."""

from __future__ import annotations

import gc
import math
import re
import warnings
import weakref

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
from helpers import Pair, assert_close, bits, changed, mean_square, mse, random_batch, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import flat, leaves

# the earlier implementation -------------------------------------------------------------------------------------


def test_the_compiled_step_does_not_train_on_stale_weights():
    step = fp.train_step(nn.linear(3, 2), mse, optim.sgd(0.1))
    params, opt_state = step.init(0)
    x, y = random_batch()
    for _ in range(3):
        wanted = mse(lambda x, p=params: x @ p["weight"].T + p["bias"], x, y).item()
        params, opt_state, logs = step(params, opt_state, (x, y))
        assert logs["loss"].item() == pytest.approx(wanted, rel=1e-5)
    elsewhere = {"weight": mx.zeros((2, 3)), "bias": mx.zeros((2,))}
    assert step(elsewhere, opt_state, (x, y))[2]["loss"].item() == pytest.approx((y**2).mean().item(), rel=1e-5)
    assert step.traces == 1


def test_two_models_through_one_step_do_not_mix():
    step = fp.train_step(nn.linear(3, 2), mse, optim.adam(0.1))
    alone = [one_after_another(step, seed) for seed in (1, 2)]
    ends = [step.init(seed) for seed in (1, 2)]
    for i in range(3):
        ends = [step(*end, random_batch(seed=i))[:2] for end in ends]
    assert [bits(end) for end in ends] == [bits(end) for end in alone]


def one_after_another(step, seed):
    end = step.init(seed)
    for i in range(3):
        end = step(*end, random_batch(seed=i))[:2]
    return end


class Deep(mlx_nn.Module):
    """Dropout and batch norm two modules down, in a list and in a dict."""

    def __init__(self):
        super().__init__()
        self.blocks = [mlx_nn.Sequential(mlx_nn.Dropout(0.9), mlx_nn.BatchNorm(3))]
        self.named = {"norm": mlx_nn.BatchNorm(3)}

    def __call__(self, x):
        return self.named["norm"](self.blocks[0](x))


@pytest.mark.parametrize("lifted", [True, False], ids=["lifted", "composed"])
def test_the_mode_reaches_every_nested_layer(lifted):
    composed = nn.sequential(nn.residual(nn.dropout(0.9), nn.stack(1, lambda: nn.batch_norm(3))))
    inner = nn.lift(Deep) if lifted else composed
    model = nn.sequential(nn.remat(inner), head=nn.linear(3, 2))
    train, evaluate = fp.train_step(model, mse, optim.sgd(0.0)), fp.eval_step(model, mse)
    params, opt_state = train.init(0)
    trained = [train(params, {**opt_state, "key": fp.rng.key(i)}, random_batch()) for i in range(3)]
    assert len({logs["loss"].item() for _, _, logs in trained}) == 3, "no dropout in training"
    statistics = [path for path in flat(params) if "running" in path]
    assert statistics
    for path in statistics:
        assert flat(trained[0][0])[path].tolist() != flat(params)[path].tolist()
    validated = [evaluate(params, {}, random_batch())[1]["loss"].item() for _ in range(3)]
    assert len(set(validated)) == 1
    assert validated[0] == pytest.approx(mse(lambda x: model.apply(params, x)[0], *random_batch()).item(), rel=1e-5)
    assert bits(model.apply(params, random_batch()[0])[1]) == bits(params), "validation moved statistics"


def moved(model, optimizer):
    """The paths that a step moves."""
    step = fp.train_step(model, mse, optimizer)
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, random_batch())
    return changed(params, new)


def test_groups_work_with_activations_between_layers():
    model = nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 4), nn.gelu, nn.linear(4, 2))
    optimizer = optim.groups(("layers.2", optim.sgd(0.0)), (re.compile("layers"), optim.sgd(0.5)))
    assert moved(model, optimizer) == {"layers.0.weight", "layers.0.bias", "layers.4.weight", "layers.4.bias"}


def test_groups_work_inside_a_stack():
    model = nn.sequential(body=nn.stack(2, lambda: nn.sequential(nn.linear(3, 3), nn.tanh)), head=nn.linear(3, 2))
    optimizer = optim.groups(("body.layers.1", optim.adam(0.1)), ("body", optim.sgd(0.0)), (None, optim.sgd(0.0)))
    assert moved(model, optimizer) == {"body.layers.1.layers.0.weight", "body.layers.1.layers.0.bias"}


def test_the_matcher_of_a_single_group_counts():
    model = nn.sequential(enc=nn.linear(3, 4), head=nn.linear(4, 2))
    with pytest.raises(ValueError, match=r"groups\(under\('head'\)\) matches enc\.weight, enc\.bias"):
        moved(model, optim.groups(("head", optim.sgd(0.5))))
    assert moved(pipe(model, fp.freeze("enc")), optim.groups(("head", optim.sgd(0.5)))) == {"head.weight", "head.bias"}


def test_the_last_matcher_is_not_a_default():
    model = nn.sequential(enc=nn.linear(3, 4), mid=nn.linear(4, 4), head=nn.linear(4, 2))
    with pytest.raises(ValueError, match=r"matches mid\.weight, mid\.bias; end with \(everything, optimizer\)"):
        moved(model, optim.groups(("enc", optim.sgd(0.5)), ("head", optim.sgd(0.5))))


# MLX's traps ----------------------------------------------------------------------------------------------------


def test_dropout_under_compile_draws_anew_each_step():
    step = fp.train_step(small_net(), mse, optim.sgd(0.0))
    params, opt_state = step.init(0)
    losses = []
    for _ in range(5):
        _, opt_state, logs = step(params, opt_state, random_batch())
        losses.append(logs["loss"].item())
    assert len(set(losses)) == 5
    assert step.traces == 1


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("how", ["raised", "shape", "a vector"])
def test_an_exception_inside_a_step_leaves_everything_usable(how, compile):
    broken = []

    def moody(model, x, y):
        out = model(x)
        if broken:
            mx.random.uniform()
            if how == "raised":
                raise RuntimeError("from the loss")
            return (out @ mx.ones((7, 7))).mean() if how == "shape" else out
        return nn.losses.mse_loss(out, y)

    module = Deep()
    inner, arrays = nn.split(module)
    model = nn.sequential(inner, head=nn.linear(3, 2))
    given = {"layers": [arrays], "head": nn.init(0)(nn.linear(3, 2))}
    step = fp.train_step(model, moody, optim.adam(0.1), compile=compile)
    params, opt_state = step.init(given)
    wanted = bits(step(params, opt_state, random_batch()))
    mx.random.seed(5)
    stream = mx.random.uniform(shape=(3,)).tolist()
    mx.random.seed(5)
    held = bits([params, opt_state, module.parameters()])
    broken.append(True)
    for call in (step, step.gradients):
        with pytest.raises({"raised": RuntimeError, "shape": ValueError, "a vector": TypeError}[how]):
            call(params, opt_state, random_batch(7))
    broken.clear()
    assert bits([params, opt_state, module.parameters()]) == held
    assert mx.random.uniform(shape=(3,)).tolist() == stream
    assert np.isfinite(np.array(module(random_batch()[0]))).all()
    assert bits(step(params, opt_state, random_batch())) == wanted
    new, _, logs = step(params, opt_state, random_batch(7))
    mx.eval(new, logs)
    assert math.isfinite(logs["loss"].item())


def test_an_exception_in_the_first_trace_leaves_a_step_that_works():
    fails = [True]

    def moody(model, x, y):
        if fails:
            fails.clear()
            raise KeyError("the first time")
        return mse(model, x, y)

    step = fp.train_step(small_net(), moody, optim.adam(0.1))
    params, opt_state = step.init(0)
    with pytest.raises(KeyError, match="the first time"):
        step(params, opt_state, random_batch())
    good = fp.train_step(small_net(), mse, optim.adam(0.1))
    assert bits(step(params, opt_state, random_batch())) == bits(good(params, opt_state, random_batch()))


def test_tree_types_through_one_step_keep_their_types_and_their_ends():
    seen = []
    model = nn.define(lambda m, x: x * m.w, w=nn.param((), init=1.0))

    def record(m, parts):
        seen.append(type(parts))
        return sum((m(x).mean() for x in leaves(parts)), mx.array(0.0)) + len(parts)

    step = fp.train_step(model, record, optim.sgd(1.0))
    params, opt_state = step.init(0)
    one, two = mx.array([1.0]), mx.array([2.0])
    trees = [(one, two), [one, two], Pair(one, two), (one, two), [[one, two]]]
    found = [step(params, opt_state, {"parts": tree})[2]["loss"].item() for tree in trees]
    assert found == [5.0, 5.0, 5.0, 5.0, 4.0]
    assert seen == [tuple, list, Pair, list]


def test_one_and_one_point_zero_and_true_are_not_one_constant():
    report = fp.train_step(
        nn.linear(3, 2), lambda m, x, k: (m(x).mean(), {"times": mx.array(3) * k, "k": mx.array(k)}), optim.sgd(1.0)
    )
    end, x = report.init(0), random_batch()[0]
    logs = [report(*end, {"x": x, "k": k})[2] for k in (1, 1.0, True, 1, 1.0)]
    assert [log["times"].dtype for log in logs] == [mx.int32, mx.float32, mx.int32, mx.int32, mx.float32]
    assert [log["k"].dtype for log in logs] == [mx.int32, mx.float32, mx.bool_, mx.int32, mx.float32]


OPTIMIZERS = [optim.adamw(0.1), optim.clip_norm(9.0)(optim.lion(0.1)), optim.groups((None, optim.sgd(0.1)))]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_parameters_called_step_and_learning_rate_are_parameters(optimizer):
    parts = {name: nn.linear(3, 3) for name in ("step", "learning_rate")}
    model = nn.define(lambda m, x: m.learning_rate(m.step(x))[:, :2], **parts)
    assert moved(model, optimizer) == {f"{name}.{leaf}" for name in parts for leaf in ("weight", "bias")}


def backwards(tree):
    """The same tree with the keys of every dict in another order."""
    if isinstance(tree, dict):
        return {key: backwards(tree[key]) for key in reversed(tree)}
    return [backwards(child) for child in tree] if isinstance(tree, list) else tree


def test_a_reordered_dict_does_not_retrace_and_gives_the_same_numbers():
    step = fp.train_step(small_net(), mse, optim.groups(("enc", optim.adam(0.1)), (None, optim.sgd(0.1))))
    params, opt_state = step.init(0)
    given = dict(zip("xy", random_batch(), strict=True))
    wanted = bits(step(params, opt_state, given))
    for arguments in (
        (backwards(params), opt_state, given),
        (params, backwards(opt_state), given),
        (params, opt_state, backwards(given)),
        (backwards(params), backwards(opt_state), backwards(given)),
    ):
        assert bits(step(*arguments)) == wanted
    assert step.traces == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_batch_under_skip_nonfinite_changes_nothing_and_is_counted(bad):
    step = fp.train_step(small_net(), mse, optim.skip_nonfinite()(optim.adam(0.1)))
    params, opt_state = step.init(0)
    params, opt_state, _ = step(params, opt_state, random_batch())
    x, y = random_batch(seed=1)
    x[0, 0] = bad
    after, state, logs = step(params, opt_state, (x, y))
    assert not math.isfinite(logs["loss"].item())
    assert bits(after) == bits(params), "parameters or batch-norm statistics moved"
    assert bits(state["optimizer"]["inner"]) == bits(opt_state["optimizer"]["inner"])
    assert optim.reading("skipped")(state).item() == 1
    again, state, logs = step(after, state, random_batch())
    assert math.isfinite(logs["loss"].item())
    assert bits(again) != bits(params)
    assert all(mx.all(mx.isfinite(leaf)).item() for leaf in leaves(again))
    assert (optim.reading("skipped")(state).item(), optim.reading("in_a_row")(state).item()) == (1, 0)
    assert step.traces == 1


OUTER = {"clip_norm": optim.clip_norm(1.0), "ema": optim.ema(0.9)}


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER)
def test_skip_nonfinite_inside_another_wrapper_holds_the_statistics_too(outer):
    step = fp.train_step(small_net(), mse, pipe(optim.adam(0.1), optim.skip_nonfinite(), outer))
    params, opt_state = step.init(0)
    x, y = random_batch()
    x[0, 0] = math.nan
    after, state, _ = step(params, opt_state, (x, y))
    assert bits(after) == bits(params)
    assert optim.reading("skipped")(state).item() == 1


def test_accumulated_steps_equal_one_step_on_the_larger_batch():
    model = nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 2))
    step = fp.train_step(model, mse, optim.adam(0.1))
    (x, y), start = random_batch(12), step.init(0)
    for cut in (6, 4):
        many, state, _ = step.accumulate(*start, [(x[:cut], y[:cut]), (x[cut:], y[cut:])])
        once, wanted, _ = step(*start, (x, y))
        assert_close(many, once, rtol=1e-4)
        assert_close(state["optimizer"], wanted["optimizer"], rtol=1e-4)


def test_bfloat16_parameters_stay_bfloat16_with_a_float32_rate_and_no_retrace():
    model = nn.sequential(nn.linear(3, 4), nn.layer_norm(4), nn.dropout(0.1), nn.linear(4, 2))
    step = fp.train_step(model, mse, optim.clip_norm(1.0)(optim.adamw(optim.cosine_decay(0.1, 9))))
    narrow = fp.restore_like(nn.shapes(model), {p: x.astype(mx.bfloat16) for p, x in flat(nn.init(0)(model)).items()})
    params, opt_state = step.init(narrow)
    for i in range(3):
        params, opt_state, _ = step(params, opt_state, tuple(x.astype(mx.bfloat16) for x in random_batch(seed=i)))
    assert {leaf.dtype for leaf in leaves(params)} == {mx.bfloat16}
    assert {leaf.dtype for leaf in leaves(opt_state["optimizer"]["inner"]["memory"])} == {mx.bfloat16}
    assert opt_state["optimizer"]["inner"]["learning_rate"].dtype == mx.float32
    assert step.traces == 1


def test_a_step_that_keeps_retracing_warns_once_at_the_fifth_shape_naming_what_changed():
    step = fp.train_step(nn.linear(3, 2), mse, optim.sgd(0.1))
    end = step.init(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (1, 2, 3, 4, 1, 2):
            step(*end, random_batch(rows))
    changed = r"batch\.0 was float32\(4, 3\), is float32\(5, 3\)"
    with pytest.warns(RuntimeWarning, match=r"train_step\(Linear\).*5th time.*" + changed):
        step(*end, random_batch(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (6, 7, 8, 9, 10):
            step(*end, random_batch(rows))
    assert step.traces == 10


@pytest.mark.parametrize("changed", ["dtype", "constant"])
def test_the_warning_names_a_dtype_and_a_constant(changed):
    step = fp.train_step(nn.linear(3, 1), lambda m, x, k: m(x).mean() * mx.array(k).astype(mx.float32), optim.sgd(0.1))
    end, x = step.init(0), mx.ones((2, 3))
    values = {"dtype": [1, 2, 3, 4, mx.array(5)], "constant": [1, 2, 3, 4, 5]}[changed]
    for k in values[:4]:
        step(*end, {"x": x, "k": k})
    told = {"dtype": r"4, is int32\(\)", "constant": r"4, is 5.*numbers that change as arrays"}
    with pytest.warns(RuntimeWarning, match=r"batch\.k was " + told[changed]):
        step(*end, {"x": x, "k": values[4]})


@pytest.mark.parametrize("compile", [True, False])
def test_the_step_does_not_hold_old_parameters_batches_or_state(compile):
    step = fp.train_step(small_net(), mse, optim.adam(0.1), compile=compile)
    params, opt_state = step.init(0)
    for i in range(3):
        given = random_batch(seed=i)
        trained = [leaf for path, leaf in flat(params).items() if "running" not in path]
        old = [weakref.ref(leaf) for leaf in [*trained, *leaves(given), *leaves(opt_state["optimizer"]["memory"])]]
        params, opt_state, logs = step(params, opt_state, given)
        mx.eval(params, opt_state, logs)
        del given, trained
        gc.collect()
        assert [ref() for ref in old if ref() is not None] == []


def test_active_memory_stands_still_and_frozen_parameters_are_held_once():
    big = 256
    model = pipe(nn.sequential(enc=nn.linear(big, big), head=nn.linear(big, 2)), fp.freeze("enc"))
    step = fp.train_step(model, mse, optim.adam(0.1))
    given = (mx.ones((4, big)), mx.ones((4, 2)))
    params, opt_state = step.init(0)
    mx.eval(given)
    for _ in range(2):
        params, opt_state, logs = step(params, opt_state, given)
        mx.eval(params, opt_state, logs)
    gc.collect()
    base = mx.get_active_memory()
    new, state, logs = step(params, opt_state, given)
    mx.eval(new, state, logs)
    assert mx.get_active_memory() - base < big * big * 4 / 2, "a step copied the frozen weight"
    params, opt_state = new, state
    del new, state
    for _ in range(5):
        params, opt_state, logs = step(params, opt_state, given)
        mx.eval(params, opt_state, logs)
    gc.collect()
    assert mx.get_active_memory() <= base + 4096
    assert not [path for path in flat(opt_state) if "enc" in path]


def test_a_lifted_module_is_not_poisoned_by_tracing():
    module = Deep()
    model, arrays = nn.split(module)
    before = bits(module.parameters())
    step = fp.train_step(model, mean_square, optim.sgd(0.1))
    step(*step.init(arrays), random_batch()[0])
    assert bits(module.parameters()) == before
    assert module.training
    mx.eval(module(random_batch()[0]))


def test_swapping_a_rate_is_seen_by_the_compiled_step():
    step = fp.train_step(nn.linear(3, 2), mse, optim.sgd(0.5))
    params, opt_state = step.init(0)
    step(params, opt_state, random_batch())
    new, _, _ = step(params, fp.swap("optimizer.learning_rate", 0.0)(opt_state), random_batch())
    assert bits(new) == bits(params)
    assert step.traces == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        pipe(optim.adam(0.1), optim.skip_nonfinite(), optim.ema(0.9)),
        optim.groups((None, optim.skip_nonfinite()(optim.adam(0.1)))),
    ],
    ids=["inside ema", "inside groups"],
)
def test_skip_nonfinite_keeps_nan_out_of_the_statistics_wherever_it_stands(optimizer):
    model = nn.sequential(nn.linear(3, 3), nn.batch_norm(3), nn.linear(3, 2))
    step = fp.train_step(model, mean_square, optimizer)
    params, opt_state = step.init(0)
    start = params["layers"][1]["running_mean"]
    params, opt_state, _ = step(params, opt_state, mx.full((4, 3), float("nan")))
    assert mx.array_equal(params["layers"][1]["running_mean"], start)
    params, opt_state, _ = step(params, opt_state, mx.random.normal((4, 3)))
    assert not mx.array_equal(params["layers"][1]["running_mean"], start)
    assert all(mx.all(mx.isfinite(leaf)).item() for leaf in fp.flat(params).values())


def test_an_array_that_a_module_freezes_and_moves_itself_comes_back_moved():
    class Counting(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.proj, self.calls = mlx_nn.Linear(3, 1), mx.array(0.0)
            self.freeze(keys=["calls"], recurse=False)

        def __call__(self, x):
            self.calls += 1
            return self.proj(x)

    step = fp.train_step(nn.lift(Counting), lambda m, x: m(x).mean(), optim.sgd(0.1))
    start, opt_state = step.init(0)
    params, opt_state, _ = step(start, opt_state, mx.ones((2, 3)))
    params, opt_state, _ = step(params, opt_state, mx.ones((2, 3)))
    assert (start["calls"].item(), params["calls"].item()) == (0.0, 2.0)


def test_what_a_function_does_in_place_stays_in_its_call():
    def forward(m, x):
        scale = m.scale
        scale *= 2
        x += 1
        return x * scale

    layer = nn.define(forward, scale=nn.param(2, init=1.0))
    params, x = nn.init(0)(layer), mx.zeros((2,))
    assert nn.predictor(params)(layer)(x).tolist() == [2.0, 2.0]
    assert (params["scale"].tolist(), x.tolist()) == ([1.0, 1.0], [0.0, 0.0])


def test_parameters_of_another_model_are_refused_with_what_differs():
    step = fp.train_step(nn.linear(3, 2), lambda m, x: m(x).mean(), optim.sgd(0.1))
    with pytest.raises(ValueError, match=r"weigth is not there, given \(2, 3\)|weight is \(2, 3\), given nothing"):
        step.init({"weigth": mx.ones((2, 3)), "bias": mx.zeros((2,))})
    with pytest.raises(ValueError, match=r"weight is \(2, 3\), given \(3, 2\)"):
        step.init({"weight": mx.ones((3, 2)), "bias": mx.zeros((2,))})


def test_buffers_stay_wide_in_a_narrow_type():
    model = nn.batch_norm(2)
    params = {**nn.init(0)(model), "running_var": mx.full((2,), 1e6)}  # more than float16 holds
    step = fp.eval_step(model, lambda m, x: m(x).mean(), dtype=mx.float16)
    _, logs = step(params, step.init(), mx.full((1, 2), 1000.0))
    assert math.isclose(logs["loss"].item(), 1.0, rel_tol=1e-3)
