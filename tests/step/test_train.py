"""The compiled step: pure, repeatable, one trace, and the same numbers as MLX's own idiom."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from functools import partial
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from drawn import examples
from helpers import assert_close, bits, changed, mse, numpy_batch, random_batch, run_python, small_net
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat, leaves


class Pair(NamedTuple):
    x: object
    y: object


def run(step, params, opt_state, batches):
    logs = []
    for each in batches:
        params, opt_state, log = step(params, opt_state, each)
        logs.append(log["loss"].item())
    return params, opt_state, logs


# what a batch may be --------------------------------------------------------------------------------------------


def test_a_batch_may_be_a_dict_a_tuple_a_list_a_named_tuple_or_numpy():
    step = fp.train_step(small_net(), mse, optim.sgd(0.1))
    params, opt_state = step.init(0)
    x, y = random_batch()
    wanted = bits(step(params, opt_state, (x, y)))
    for each in (
        [x, y],
        {"x": x, "y": y},
        {"y": y, "x": x},
        Pair(x, y),
        numpy_batch(),
        dict(zip("xy", numpy_batch(), strict=True)),
    ):
        assert bits(step(params, opt_state, each)) == wanted


@pytest.mark.parametrize("as_numpy", [False, True])
def test_a_batch_of_one_array_goes_to_the_loss_whole(as_numpy):
    step = fp.train_step(nn.linear(3, 1), lambda model, rows: model(rows).mean(), optim.sgd(0.1))
    params, opt_state = step.init(0)
    x = numpy_batch()[0]
    _, _, logs = step(params, opt_state, x if as_numpy else mx.array(x))
    wanted = (x @ np.array(params["weight"]).T + np.array(params["bias"])).mean()
    assert logs["loss"].item() == pytest.approx(wanted, rel=1e-5)


def test_numpy_keeps_its_dtype_and_constants_pass():
    seen = {}

    def record(model, *, x, label, mode, extra):
        seen.update(label=label.dtype, mode=mode, extra=type(extra))
        return fp.mean(model(x))

    step = fp.train_step(nn.linear(3, 1), record, optim.sgd(0.1))
    params, opt_state = step.init(0)
    given = {"x": numpy_batch()[0], "label": np.arange(6, dtype=np.int32), "mode": "mean", "extra": {"a": [np.ones(2)]}}
    step(params, opt_state, given)
    assert seen == {"label": mx.int32, "mode": "mean", "extra": dict}
    assert isinstance(given["label"], np.ndarray), "the caller's batch was changed"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x": 1}, r"takes \(x, y\) but the batch has keys \(x\): no key fills 'y'"),
        ({"x": 1, "y": 2, "z": 3}, r"takes \(x, y\).*keys \(x, y, z\): no parameter takes 'z'"),
        ({"x": 1, "my y": 2}, r"'my y' is not an identifier"),
        ((1,), r"takes \(x, y\) but the batch has 1 value"),
        ((1, 2, 3), r"takes \(x, y\) but the batch has 3 values"),
    ],
)
def test_a_batch_that_does_not_fit_the_loss_names_both_sides(given, words):
    train, evaluate = fp.train_step(small_net(), mse, optim.sgd(0.1)), fp.eval_step(small_net(), mse)
    params, opt_state = train.init(0)
    with pytest.raises(TypeError, match=words):
        train(params, opt_state, given)
    with pytest.raises(TypeError, match=words):
        evaluate(params, evaluate.init(), given)


# what a loss may return -----------------------------------------------------------------------------------------


def test_a_loss_may_report_scalars_beside_itself():
    def both(model, x, y):
        off = model(x) - y
        return (off**2).mean(), {"mae": mx.abs(off).mean(), "worst": mx.abs(off).max()}

    step = fp.train_step(nn.linear(3, 2), both, optim.sgd(0.1))
    params, opt_state = step.init(0)
    x, y = numpy_batch()
    _, _, logs = step(params, opt_state, (x, y))
    off = x @ np.array(params["weight"]).T + np.array(params["bias"]) - y
    wanted = {"loss": (off**2).mean(), "mae": np.abs(off).mean(), "worst": np.abs(off).max()}
    assert {name: value.item() for name, value in logs.items()} == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda y: y, r"loss is an array of shape \(6, 2\): fp\.mean\(\) it\?"),
        (lambda y: 1.0, r"loss is float"),
        (lambda y: None, r"loss is NoneType"),
        (lambda y: [y.mean(), {}], r"loss is list"),
        (lambda y: (y.mean(), {}, {}), r"loss is tuple"),
        (lambda y: (y.mean(), y), r"its second value is an array of shape \(6, 2\)"),
        (lambda y: (y.mean(), y.mean()), r"its second value is an array of shape \(\)"),
        (lambda y: (y.mean(), {"acc": y}), r"acc is an array of shape \(6, 2\)"),
        (lambda y: (y.mean(), {"acc": 0.5}), r"acc is float"),
    ],
)
def test_any_other_result_of_a_loss_is_a_type_error_that_says_which(result, words):
    step = fp.train_step(nn.linear(3, 2), lambda model, x, y: result(model(x)), optim.sgd(0.1))
    told = "a loss returns a scalar array or a Mean, alone or with a dict of further ones; .*"
    with pytest.raises(TypeError, match=told + words):
        step(*step.init(0), random_batch())


@pytest.mark.parametrize("value", [lambda y: y.mean(), lambda y: y], ids=["beside a scalar", "beside an array"])
def test_what_a_loss_reports_may_not_take_the_place_of_the_loss(value):
    step = fp.train_step(nn.linear(3, 2), lambda m, x, y: (value(m(x)), {"loss": mx.array(7.0)}), optim.sgd(0.1))
    with pytest.raises(ValueError, match="'loss'"):
        step(*step.init(0), random_batch())


def test_a_loss_may_return_means_with_weights_of_their_own():
    def both(model, x, y, counts):
        off = model(x) - y
        return fp.mean(off**2, where=counts), {"mae": fp.mean(mx.abs(off), weights=counts + 1.0), "first": off[0, 0]}

    step = fp.train_step(nn.linear(3, 2), both, optim.sgd(0.1))
    params, opt_state = step.init(0)
    x, y = numpy_batch()
    counts = np.array([1, 0, 1, 1, 0, 0], np.float32)
    done = step.gradients(params, opt_state, (x, y, counts))
    off = x @ np.array(params["weight"]).T + np.array(params["bias"]) - y
    wanted = {
        "loss": (off[counts > 0] ** 2).mean(),
        "mae": np.average(np.abs(off), weights=np.broadcast_to(counts[:, None] + 1, off.shape)),
        "first": off[0, 0],
    }
    assert {name: value.item() for name, value in done.logs.items()} == pytest.approx(wanted, rel=1e-5)
    weights = {name: getattr(weight, "item", lambda weight=weight: weight)() for name, weight in done.weights.items()}
    assert weights == {"loss": 6.0, "mae": 18.0, "first": 6}, "3 rows of 2 numbers count; 6 rows"


# forward --------------------------------------------------------------------------------------------------------


def test_forward_called_twice_moves_buffers_twice_and_gathers_both_gradients():
    model = nn.sequential(norm=nn.batch_norm(3, momentum=0.5), head=nn.linear(3, 1))
    x = mx.array(numpy_batch()[0])
    step = fp.train_step(model, lambda m, x: m(x).mean() + 2 * m(x + 1).mean(), optim.sgd(1.0))
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, x)
    mean = np.array(x).mean(axis=0)
    np.testing.assert_allclose(new["norm"]["running_mean"], 0.25 * mean + 0.5 * (mean + 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(params["head"]["bias"] - new["head"]["bias"], [3.0], rtol=1e-5)


def test_forward_has_the_parameters_for_a_penalty_and_the_mode():
    modes = []

    def penalised(model, x):
        modes.append(model.train)
        return 0 * model(x).mean() + (model.params["weight"] ** 2).sum() / 2

    model = nn.linear(3, 1)
    step = fp.train_step(model, penalised, optim.sgd(0.1))
    params, opt_state = step.init(0)
    new, _, logs = step(params, opt_state, mx.ones((2, 3)))
    np.testing.assert_allclose(new["weight"], 0.9 * params["weight"], rtol=1e-5)
    assert logs["loss"].item() == pytest.approx((params["weight"] ** 2).sum().item() / 2, rel=1e-5)
    evaluate = fp.eval_step(model, penalised)
    assert evaluate(params, {}, mx.ones((2, 3)))[1]["loss"].item() == logs["loss"].item()
    assert modes == [True, False]


def test_forward_passes_keywords_and_several_inputs():
    model = nn.define(lambda m, a, b, *, scale: m.proj(a + b) * scale, proj=nn.linear(3, 1, bias=False))
    step = fp.train_step(model, lambda m, a, b, s: m(a, b, scale=s).mean(), optim.sgd(1.0))
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, (mx.ones((2, 3)), mx.ones((2, 3)), mx.array(3.0)))
    np.testing.assert_allclose(params["proj"]["weight"] - new["proj"]["weight"], [[6.0] * 3], rtol=1e-5)


# what trains ----------------------------------------------------------------------------------------------------


def moved(step):
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, random_batch())
    return changed(params, new)


BUFFERS = {"norm.running_mean", "norm.running_var"}
HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("head", HEAD),
        (re.compile(r"bias$"), {"head.bias", "norm.bias"}),
        (fp.ndim(2), {"enc.weight", "head.weight"}),
        (["head.bias", "norm.running_mean"], {"head.bias"}),
    ],
)
@pytest.mark.usual("bias$-wanted1", "spec2-wanted2", "spec3-wanted3")
def test_trainable_narrows_what_trains_and_buffers_follow_the_mode(spec, wanted):
    step = fp.train_step(small_net(), mse, optim.adam(0.1), trainable=spec)
    # batch norm takes the mean away, and with it the gradient of the bias before it, to rounding
    assert moved(step) - {"enc.bias"} == wanted | BUFFERS
    memory = flat(step.init(0)[1]["optimizer"]["memory"])
    assert {path.rsplit(".", 1)[0] for path in memory} == fp_paths(spec) - BUFFERS


def fp_paths(spec):
    return set(fp.paths(spec)(nn.shapes(small_net())))


def test_freezing_and_trainable_both_hold():
    model = pipe(small_net(), fp.freeze("enc"))
    assert moved(fp.train_step(model, mse, optim.adam(0.1), trainable=re.compile("weight"))) == {
        "norm.weight",
        "head.weight",
        *BUFFERS,
    }


def test_when_nothing_trains_init_says_so():
    for step in (
        fp.train_step(small_net(), mse, optim.sgd(0.1), trainable=fp.nothing),
        fp.train_step(pipe(small_net(), fp.freeze()), mse, optim.sgd(0.1)),
        fp.train_step(nn.dropout(0.5), mse, optim.sgd(0.1)),
    ):
        with pytest.raises(ValueError, match=r"nothing trains.*frozen, a buffer, or outside `trainable`"):
            step.init(0)


def test_integer_parameters_are_named_until_they_are_frozen():
    model = nn.define(lambda m, x: m.proj(x) + m.shift, proj=nn.linear(3, 2), shift=nn.param(2, init=1, dtype=mx.int32))
    with pytest.raises(ValueError, match=r"only floating parameters can train; freeze shift \(mlx\.core\.int32\)"):
        fp.train_step(model, mse, optim.sgd(0.1)).init(0)
    step = fp.train_step(pipe(model, fp.freeze("shift")), mse, optim.sgd(0.1))
    params, _, _ = step(*step.init(0), random_batch())
    assert params["shift"].dtype == mx.int32
    assert params["shift"].tolist() == [1, 1]


# the halves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("False")
def test_the_halves_equal_the_whole_bit_for_bit(compile):
    optimizer = pipe(optim.adamw(0.1), optim.clip_norm(0.5), optim.skip_nonfinite())
    step = fp.train_step(small_net(), mse, optimizer, compile=compile)
    params, opt_state = step.init(0)
    for i in range(3):
        whole, whole_state, whole_logs = step(params, opt_state, random_batch(seed=i))
        grads, rest, between, logs, weights = step.gradients(params, opt_state, random_batch(seed=i))
        params, opt_state = step.update(params, between, grads, rest)
        assert weights == {"loss": 6}
        assert bits([params, opt_state, logs]) == bits([whole, whole_state, whole_logs])
    assert step.traces == (3 if compile else 0)
    assert flat(grads).keys() == {"enc.weight", "enc.bias", "norm.weight", "norm.bias", *HEAD}
    assert flat(rest).keys() == BUFFERS


# several batches in one update ----------------------------------------------------------------------------------


def with_figure(model, x, y):
    off = model(x) - y
    return fp.mean(off**2), {"mae": mx.abs(off).mean()}


def cut(batch, sizes):
    ends = np.cumsum(sizes)
    return [tuple(each[end - size : end] for each in batch) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("sizes", [[6], [6, 6], [3, 5, 4]])
@pytest.mark.usual("sizes0-True", "sizes0-False", "sizes1-False", "sizes2-False")
def test_an_update_on_several_batches_equals_one_on_all_their_rows_to_rounding(sizes, compile):
    model, whole = nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 2)), random_batch(sum(sizes))
    step = fp.train_step(model, with_figure, optim.adam(0.05), metrics=[fp.metrics.mae()], compile=compile)
    params, opt_state = step.init(0)
    many, many_state, logs = step.accumulate(params, opt_state, cut(whole, sizes))
    once, once_state, wanted = step(params, opt_state, whole)
    assert_close([many, logs], [once, wanted], rtol=1e-4)
    for name in ("optimizer", "metrics"):
        assert_close(many_state[name], once_state[name], rtol=1e-4)


def test_an_update_on_several_batches_weighs_each_by_what_counts_in_it():
    def loss(model, x, y, counts):
        return fp.mean((model(x) - y) ** 2, where=counts)

    step = fp.train_step(nn.linear(3, 2), loss, optim.sgd(0.1))
    whole = (*random_batch(8), mx.array([1, 0, 0, 0, 1, 1, 1, 0]))
    empty = (*random_batch(3), mx.zeros((3,)))
    params, opt_state = step.init(0)
    once, _, wanted = step(params, opt_state, whole)
    for batches in (cut(whole, [4, 4]), [*cut(whole, [4, 4]), empty], [empty, *cut(whole, [2, 6])]):
        many, _, logs = step.accumulate(params, opt_state, batches)
        assert_close([many, logs], [once, wanted], rtol=1e-4)


def test_each_batch_of_an_update_draws_numbers_of_its_own():
    seen = []

    def loss(model, x):
        out = model(x)
        seen.append(mx.stop_gradient(out).tolist())
        return out.mean()

    step = fp.train_step(nn.sequential(nn.dropout(0.5), nn.linear(64, 1)), loss, optim.sgd(0.0), compile=False)
    params, opt_state = step.init(0)
    _, after, _ = step.accumulate(params, opt_state, [mx.ones((2, 64))] * 3)
    assert len({str(out) for out in seen}) == 3
    assert after["key"].tolist() == run(step, params, opt_state, [mx.ones((2, 64))] * 3)[1]["key"].tolist()


def test_buffers_move_once_for_an_update_on_several_batches():
    step = fp.train_step(nn.sequential(nn.batch_norm(3, momentum=0.5), nn.linear(3, 2)), mse, optim.sgd(0.1))
    params, opt_state = step.init(0)
    whole = random_batch(8)
    after, _, _ = step.accumulate(params, opt_state, cut(whole, [4, 4]))
    wanted = 0.5 * np.array(whole[0]).mean(axis=0)
    np.testing.assert_allclose(after["layers"][0]["running_mean"], wanted, rtol=1e-4, atol=1e-6)


def test_gradients_of_many_batches_are_summed_in_float32():
    model = nn.define(lambda m, x: (m.w.astype(mx.float32) * x).sum(), w=nn.param(1, init=0.0, dtype=mx.bfloat16))
    step = fp.train_step(model, lambda m, x: fp.mean(m(x)), optim.sgd(1.0))
    params, opt_state = step.init(0)
    batches = [mx.ones((1,)), *[mx.full((1,), 1 + 1 / 128)] * 15]  # a mean in bfloat16 stands still at 1
    done = step.accumulated_gradients(params, opt_state, batches)
    assert done.grads["w"].dtype == mx.bfloat16
    params, _, _ = step.accumulate(params, opt_state, batches)
    assert params["w"].tolist() == [-(1 + 1 / 128)]
    assert params["w"].dtype == mx.bfloat16


@pytest.mark.parametrize("batches", [[], (), None, random_batch()[0], {"x": mx.ones((2, 3))}])
def test_an_update_takes_a_list_of_batches(batches):
    step = fp.train_step(nn.linear(3, 2), mse, optim.sgd(0.1))
    with pytest.raises(TypeError, match="accumulate takes a list of one batch or more"):
        step.accumulate(*step.init(0), batches)


def test_the_halves_of_an_update_on_several_batches_equal_the_whole_bit_for_bit():
    optimizer = pipe(optim.adamw(0.1), optim.clip_norm(0.5), optim.skip_nonfinite())
    step = fp.train_step(small_net(), mse, optimizer, metrics=[fp.metrics.mae()])
    params, opt_state = step.init(0)
    batches = [random_batch(seed=i) for i in range(3)]
    whole, whole_state, whole_logs = step.accumulate(params, opt_state, batches)
    grads, rest, between, logs, _ = step.accumulated_gradients(params, opt_state, batches)
    assert bits([*step.update(params, between, grads, rest), logs]) == bits([whole, whole_state, whole_logs])


# init -----------------------------------------------------------------------------------------------------------


def test_init_takes_a_seed_a_key_or_parameters():
    model = small_net()
    step = fp.train_step(model, mse, optim.adam(0.1))
    assert bits(step.init(7)) == bits(step.init(rng.key(7))) == bits(step.init(7))
    assert bits(step.init(7)[0]) != bits(step.init(8)[0])
    given = nn.init(3)(model)
    params, opt_state = step.init(given, seed=7)
    assert bits(params) == bits(given)
    assert params is not given
    assert bits(opt_state) == bits(step.init(7)[1])
    assert bits(step.init(given)[1]["key"]) != bits(opt_state["key"])
    assert opt_state["optimizer"]["step"].item() == 0
    assert bits(model.init(opt_state["key"])) != bits(step.init(7)[0]), "steps draw what init drew"


def test_init_keeps_the_structure_of_given_parameters_and_fresh_containers():
    step = fp.train_step(nn.sequential(nn.linear(3, 2), nn.relu), mse, optim.sgd(0.1))
    given = nn.init(0)(nn.sequential(nn.linear(3, 2), nn.relu))
    params, _ = step.init(given)
    assert params["layers"] is not given["layers"]
    assert params["layers"][0]["weight"] is given["layers"][0]["weight"]


def test_init_takes_parameters_of_numpy():
    step = fp.train_step(nn.linear(3, 2), mse, optim.sgd(0.1))
    given = nn.init(0)(nn.linear(3, 2))
    assert bits(step.init({name: np.array(leaf) for name, leaf in given.items()})) == bits(step.init(given))


@pytest.mark.parametrize("bad", [-1, 1.5, True, "7", None])
def test_a_bad_seed_is_a_type_error(bad):
    with pytest.raises(TypeError, match=r"a seed is an int in \[0, 2\*\*64\) or a random key"):
        fp.train_step(small_net(), mse, optim.sgd(0.1)).init(bad)


# compile --------------------------------------------------------------------------------------------------------


def test_compiled_equals_eager_to_rounding_and_one_trace():
    steps = [fp.train_step(small_net(), mse, optim.adamw(0.05), compile=c) for c in (True, False, {"shapeless": False})]
    ends = [run(step, *step.init(0), [random_batch(seed=i) for i in range(5)]) for step in steps]
    assert_close(ends[0][:2], ends[1][:2], rtol=1e-3, atol=1e-5)
    assert bits(ends[0][:2]) == bits(ends[2][:2])
    assert [step.traces for step in steps] == [1, 0, 1]


def test_compiled_and_eager_draw_the_same_random_numbers():
    model = nn.sequential(nn.dropout(0.5), scale=nn.define(lambda m, x: m.by * x, by=nn.param((), init=1.0)))
    outcomes = []
    for compile in (True, False):
        step = fp.train_step(model, lambda m, x: (m(x) * mx.arange(64)).sum(), optim.sgd(0.0), compile=compile)
        _, opt_state, logs = run(step, *step.init(5), [mx.ones((64,))] * 4)
        outcomes.append((logs, opt_state["key"].tolist()))
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0][0])) == 4, "the same mask twice"


@pytest.mark.parametrize("bad", [None, 1, "yes"])
def test_a_bad_compile_is_a_type_error(bad):
    for make in (partial(fp.train_step, small_net(), mse, optim.sgd(0.1)), partial(fp.eval_step, small_net(), mse)):
        with pytest.raises(TypeError, match="compile is True, False or a mapping"):
            make(compile=bad)


def test_each_shape_is_traced_once():
    step = fp.train_step(small_net(), mse, optim.sgd(0.1))
    params, opt_state = step.init(0)
    run(step, params, opt_state, [random_batch(6), random_batch(5), random_batch(6), random_batch(5), random_batch(6)])
    assert step.traces == 2


# dtype ----------------------------------------------------------------------------------------------------------


def test_bfloat16_computes_narrow_and_updates_float32():
    seen = []

    def record(model, x, y):
        out = model(x)
        seen.append((x.dtype, y.dtype, out.dtype))
        return nn.losses.mse_loss(out, y), {"finer": (out != out.astype(mx.bfloat16)).sum()}

    step = fp.train_step(small_net(), record, optim.adam(1e-4), dtype=mx.bfloat16)
    params, opt_state = step.init(0)
    before = {path: leaf.dtype for path, leaf in flat([params, opt_state]).items()}
    new, new_state, logs = step(params, opt_state, random_batch())
    assert seen == [(mx.float32, mx.float32, mx.float32)]  # the loss gets its batch as it came, and wide outputs
    assert {path: leaf.dtype for path, leaf in flat([new, new_state]).items()} == before
    assert {leaf.dtype for leaf in leaves(new)} == {mx.float32}
    assert (logs["loss"].dtype, logs["finer"].item()) == (mx.float32, 0)
    change = mx.abs(new["head"]["weight"] - params["head"]["weight"])
    assert 0 < change.max().item() < 1e-3, "an update this small is lost in bfloat16"
    moved = run(step, new, new_state, [random_batch()] * 2)[0]["norm"]["running_mean"]
    assert mx.any(moved != moved.astype(mx.bfloat16)).item(), "statistics were narrowed"
    assert step.traces == 1


def test_bfloat16_leaves_integers_alone():
    seen = []
    step = fp.train_step(
        nn.embedding(5, 2),
        lambda m, i: (seen.append((i.dtype, m(i).dtype)), m(i).mean())[1],
        optim.sgd(0.1),
        dtype=mx.bfloat16,
    )
    step(*step.init(0), mx.array([1, 2]))
    assert seen == [(mx.int32, mx.float32)]


# purity ---------------------------------------------------------------------------------------------------------


class Counting(mlx_nn.Module):
    """A module that changes what it holds in place, as modules do."""

    def __init__(self):
        super().__init__()
        self.lin = mlx_nn.Linear(3, 2)
        self.count = mx.array(0.0)
        self.seen = [mx.zeros((3,))]
        self.unfreeze()

    def unfreeze(self, *args, **kwargs):
        super().unfreeze(*args, **kwargs)
        self.freeze(keys=["count", "seen"], recurse=False)  # buffers, told as BatchNorm tells its own

    def __call__(self, x):
        self.count += 1
        self.seen[0] += x.sum(axis=0)
        return self.lin(x) * (self.count / self.count)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("False")
def test_the_step_is_pure_also_around_a_module_that_changes_itself(compile):
    module = Counting()
    model, params = nn.split(module)
    step = fp.train_step(nn.sequential(model, nn.dropout(0.2)), mse, optim.adam(0.1), compile=compile)
    params, opt_state = step.init({"layers": [params, {}]})
    given = random_batch()
    held, objects = (
        bits([params, opt_state, given, module.parameters()]),
        list(map(id, leaves([params, opt_state, given]))),
    )
    first = step(params, opt_state, given)
    second = step(params, opt_state, given)
    assert bits(first) == bits(second)
    assert bits([params, opt_state, given, module.parameters()]) == held
    assert list(map(id, leaves([params, opt_state, given]))) == objects
    assert first[0]["layers"][0]["count"].item() == 1.0
    np.testing.assert_allclose(first[0]["layers"][0]["seen"][0], given[0].sum(axis=0), rtol=1e-5)
    assert module.count.item() == 0.0


@pytest.mark.parametrize("compile", [True, False])
def test_a_loss_that_changes_its_batch_in_place_leaves_the_callers_alone(compile):
    def centred(model, x, y):
        x -= x.mean()
        y *= 2
        return mse(model, x, y)

    step = fp.train_step(nn.linear(3, 2), centred, optim.sgd(0.1), compile=compile)
    given, (x, y) = random_batch(), random_batch()
    step(*step.init(0), given)
    fp.eval_step(nn.linear(3, 2), centred, compile=compile)(step.init(0)[0], {}, given)
    assert bits(given) == bits((x, y))


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.usual("False")
def test_a_layer_that_changes_its_arrays_in_place_leaves_the_callers_alone(compile):
    def forward(m, x):
        scale, count = m.scale, m.count
        scale *= 2
        count += 1
        m.update(count=count)
        return x * scale

    model = nn.define(forward, scale=nn.param(2, init=1.0), count=nn.buffer(()))
    step = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(0.5), compile=compile)
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, mx.ones((1, 2)))
    assert (params["scale"].tolist(), params["count"].item()) == ([1.0, 1.0], 0.0)
    assert (new["scale"].tolist(), new["count"].item()) == ([0.5, 0.5], 1.0)


def test_the_step_does_not_touch_the_callers_random_stream():
    step = fp.train_step(small_net(), mse, optim.sgd(0.1))
    mx.random.seed(3)
    wanted = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(3)
    run(step, *step.init(0), [random_batch()] * 2)
    assert mx.random.uniform(shape=(4,)).tolist() == wanted


def test_each_step_draws_another_mask_and_a_rerun_repeats_them():
    step = fp.train_step(small_net(), mse, optim.sgd(0.0))
    params, opt_state = step.init(0)
    masks = run(step, params, opt_state, [random_batch()] * 4)[2]
    assert len(set(masks)) == 4
    assert run(step, params, opt_state, [random_batch()] * 4)[2] == masks
    other = run(step, params, {**opt_state, "key": rng.key(99)}, [random_batch()] * 4)[2]
    assert other != masks


@examples(8)
@given(st.integers(0, 2**64 - 1), st.integers(0, 3))
def test_a_run_cut_anywhere_and_taken_up_again_ends_with_the_same_bits(seed, cut):
    step = RESUMED
    params, opt_state = step.init(seed)
    batches = [random_batch(seed=i) for i in range(4)]
    whole = run(step, params, opt_state, batches)
    params, opt_state, _ = run(step, params, opt_state, batches[:cut])
    saved = {path: np.array(leaf) for path, leaf in flat([params, opt_state]).items()}
    back = fp.restore_like([params, opt_state], {path: mx.array(leaf) for path, leaf in saved.items()})
    assert bits(run(step, *back, batches[cut:])[:2]) == bits(whole[:2])
    assert step.traces <= 1


RESUMED = fp.train_step(small_net(), mse, pipe(optim.adam(0.1), optim.ema(0.9)))


# against MLX's own idiom ----------------------------------------------------------------------------------------


class Net(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlx_nn.Sequential(mlx_nn.Linear(3, 8), mlx_nn.BatchNorm(8), mlx_nn.ReLU(), mlx_nn.Dropout(0.3))
        self.head = mlx_nn.Linear(8, 2)

    def __call__(self, x):
        return self.head(self.body(x))


def captured(module, optimizer, batches):
    """Train a module with MLX's captured-state idiom."""
    state = [module.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(x, y):
        value, grads = mlx_nn.value_and_grad(module, mse)(module, x, y)
        optimizer.update(module, grads)
        return value

    return [step(x, y).item() for x, y in batches]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda: optim.adamw(0.01), lambda: mlx_optimizers.AdamW(0.01)),
        (
            lambda: optim.sgd(optim.cosine_decay(0.1, 9), momentum=0.9),
            lambda: mlx_optimizers.SGD(optim.cosine_decay(0.1, 9), momentum=0.9),
        ),
    ],
    ids=["adamw", "sgd-scheduled"],
)
@pytest.mark.usual("sgd-scheduled")
def test_a_whole_run_equals_mlxs_captured_state_idiom_to_rounding(mine, theirs):
    batches = [random_batch(16, seed=i) for i in range(8)]
    module, optimizer = Net(), theirs()
    step = fp.train_step(nn.lift(Net), mse, mine())
    params, opt_state = step.init(nn.split(module)[1], seed=11)
    high, low = opt_state["key"].tolist()
    mx.random.seed(high << 32 | low)
    wanted = captured(module, optimizer, batches)
    params, opt_state, losses = run(step, params, opt_state, batches)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    assert_close(params, nn.split(module)[1], rtol=1e-3, atol=1e-5)
    assert opt_state["key"].tolist() == mx.random.state[0].tolist(), "another number of draws"
    assert step.traces == 1


class Plain(mlx_nn.Module):
    """Matrices, batch norm and dropout, without Linear, whose derivative mlx_fp computes in another layout."""

    def __init__(self):
        super().__init__()
        self.first, self.second = mx.random.normal((3, 8)), mx.random.normal((8, 2))
        self.norm, self.drop = mlx_nn.BatchNorm(8), mlx_nn.Dropout(0.3)

    def __call__(self, x):
        return self.drop(self.norm(mx.tanh(x @ self.first))) @ self.second


def test_a_whole_run_equals_mlxs_captured_state_idiom_bit_for_bit():
    batches = [random_batch(16, seed=i) for i in range(8)]
    module = Plain()
    step = fp.train_step(nn.lift(Plain), mse, optim.adamw(0.01))
    params, opt_state = step.init(nn.split(module)[1], seed=11)
    high, low = opt_state["key"].tolist()
    mx.random.seed(high << 32 | low)
    wanted = captured(module, mlx_optimizers.AdamW(0.01), batches)
    params, _, losses = run(step, params, opt_state, batches)
    assert losses == wanted
    assert bits(params) == bits(nn.split(module)[1])


# evaluation -----------------------------------------------------------------------------------------------------


def test_eval_step_draws_nothing_moves_no_statistics_and_repeats():
    inner = nn.stack(2, lambda: nn.sequential(nn.dropout(0.9), nn.batch_norm(4)))
    model = nn.sequential(enc=nn.linear(3, 4), body=nn.residual(nn.batch_norm(4), inner), head=nn.linear(4, 2))
    params, given, after = nn.init(0)(model), random_batch(), []

    def record(m, x, y):
        value = mse(m, x, y)
        after.append(bits(m.params))
        return value

    evaluate = fp.eval_step(model, record, compile=False)
    losses = [evaluate(params, evaluate.init(), given)[1]["loss"].item() for _ in range(3)]
    assert losses == [mse(lambda x: model.apply(params, x)[0], *given).item()] * 3
    assert after == [bits(params)] * 3
    compiled = fp.eval_step(model, mse)
    twice = [compiled(params, compiled.init(), given)[1]["loss"].item() for _ in range(2)]
    assert twice == [pytest.approx(losses[0], rel=1e-5)] * 2
    assert compiled.traces == 1


def test_eval_step_leaves_the_callers_random_stream():
    evaluate = fp.eval_step(nn.linear(3, 2), lambda m, x, y: mse(m, x, y) + 0 * mx.random.uniform())
    mx.random.seed(3)
    wanted = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(3)
    evaluate(nn.init(0)(nn.linear(3, 2)), {}, random_batch())
    assert mx.random.uniform(shape=(4,)).tolist() == wanted


def test_eval_step_computes_narrow():
    def loss(model, x):
        y = model(x)
        return y.mean(), {"mean": y.mean(), "finer": (y != y.astype(mx.bfloat16)).sum()}

    model, x = nn.linear(3, 2), random_batch()[0]
    for dtype, finer in ((None, True), (mx.bfloat16, False)):
        _, logs = fp.eval_step(model, loss, dtype=dtype)(nn.init(0)(model), {}, x)
        assert (logs["loss"].dtype, logs["mean"].dtype) == (mx.float32, mx.float32)
        assert (logs["finer"].item() > 0) == finer, "the outputs are not those of the type"


# the record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: fp.train_step(mlx_nn.Linear(3, 2), mse, optim.sgd(0.1)),
            "a Layer as model; got Linear: lift or split",
        ),
        (lambda: fp.train_step(small_net(), "mse", optim.sgd(0.1)), "a function as loss; got 'mse'"),
        (lambda: fp.train_step(small_net(), mse, mlx_optimizers.SGD(0.1)), "an Optimizer; got SGD: optim.lift it"),
        (lambda: fp.train_step(small_net(), mse, optim.sgd(0.1), trainable=3), "a spec is None, a path"),
        (lambda: fp.train_step(small_net(), mse, optim.sgd(0.1), metrics=[mse]), r"a metric is a Metric\(name"),
        (lambda: fp.eval_step(Net(), mse), "a Layer as model; got Net"),
        (lambda: fp.eval_step(small_net(), None), "a function as loss; got None"),
    ],
)
def test_wrong_parts_are_refused_when_the_step_is_made(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_a_step_is_frozen_and_reads_as_what_it_is():
    step = fp.train_step(small_net(), mse, optim.clip_norm(1.0)(optim.sgd(0.1)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.computation = nn.linear(3, 2)
    assert repr(step) == "train_step(sequential, clip_norm(1)(sgd))"


# memory ---------------------------------------------------------------------------------------------------------

COMMON = """
    from functools import partial
    import mlx.core as mx, mlx.nn as mlx_nn, mlx.optimizers as mlx_optimizers
    class Net(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [mlx_nn.Linear(832, 832) for _ in range(3)]
        def __call__(self, x):
            for layer in self.layers:
                x = mx.tanh(layer(x))
            return x
    def loss(model, x):
        return model(x).square().mean()
    x = mx.ones((4, 832))
"""
PURE = """
    import mlx_fp as fp
    from mlx_fp import nn, optim
    step = fp.train_step(nn.lift(Net), loss, optim.adamw(1e-3))
    params, opt_state = step.init(0)
    mx.eval(x, params, opt_state)
    for i in range(6):
        if i == 2:
            mx.clear_cache(); mx.reset_peak_memory()
        params, opt_state, logs = step(params, opt_state, x)
        mx.eval(params, opt_state, logs)
"""
CAPTURED = """
    model, optimizer = Net(), mlx_optimizers.AdamW(1e-3)
    mx.eval(x, model.parameters())
    state = [model.state, optimizer.state]
    @partial(mx.compile, inputs=state, outputs=state)
    def step(x):
        value, grads = mlx_nn.value_and_grad(model, loss)(model, x)
        optimizer.update(model, grads)
        return value
    for i in range(6):
        if i == 2:
            mx.clear_cache(); mx.reset_peak_memory()
        value = step(x)
        mx.eval(state, value)
"""


def test_peak_memory_is_at_most_that_of_mlxs_captured_state_idiom():
    def peak(body):
        text = textwrap.dedent(COMMON + body) + "\nprint(mx.get_peak_memory(), mx.get_active_memory())"
        return [int(number) for number in run_python(text).split()]

    pure, theirs = peak(PURE), peak(CAPTURED)
    assert theirs[1] > 3 * 3 * 832 * 832 * 4, "the model is smaller than it should be"
    assert pure[0] <= 1.02 * theirs[0]
    assert pure[1] <= 1.02 * theirs[1]


@pytest.mark.parametrize("make", [fp.train_step, fp.eval_step], ids=lambda make: make.__name__)
def test_options_are_checked_when_the_step_is_made(make):
    optimizer = (optim.sgd(0.1),) if make is fp.train_step else ()
    for options, error, words in (
        ({"compile": {"shapless": True}}, TypeError, "did you mean 'shapeless'"),
        ({"compile": {"shapeless": True}}, ValueError, "pad or bucket"),
        ({"dtype": "bfloat16"}, TypeError, "mx.bfloat16; got 'bfloat16'"),
        ({"dtype": mx.int32}, TypeError, "floating"),
    ):
        with pytest.raises(error, match=words):
            make(nn.linear(3, 2), lambda m, x: m(x).mean(), *optimizer, **options)


@pytest.mark.parametrize("given", [nn.losses.cross_entropy, nn.losses.mse_loss, mlx_nn.losses.mse_loss])
def test_a_loss_of_arrays_is_refused_with_what_to_write(given):
    words = f"{given.__name__} compares arrays, and a loss takes the model: lambda model, x, y: {given.__name__}"
    with pytest.raises(TypeError, match=re.escape(words)):
        fp.train_step(nn.linear(3, 2), given, optim.sgd(0.1))


@pytest.mark.parametrize("state", [lambda opt, params: opt.init(params), lambda *_: {}, lambda *_: None])
def test_a_state_that_no_step_made_is_refused(state):
    optimizer = optim.sgd(0.1)
    step = fp.train_step(small_net(), mse, optimizer)
    params, _ = step.init(0)
    with pytest.raises(TypeError, match="takes the opt_state of its own init, with key, optimizer and metrics; this"):
        step(params, state(optimizer, params), random_batch())


def test_what_is_frozen_is_not_copied_where_bad_steps_are_skipped():
    model = nn.sequential(nn.freeze()(nn.embedding(4096, 512)), nn.batch_norm(512), nn.linear(512, 2))
    step = fp.train_step(model, lambda m, x: m(x).mean(), pipe(optim.sgd(0.1), optim.skip_nonfinite()))
    params, opt_state = step.init(0)
    size = params["layers"][0]["weight"].nbytes

    def take(scale, params, opt_state):
        params["layers"][1]["bias"] = params["layers"][1]["bias"] * scale
        params, opt_state, _ = step(params, opt_state, mx.array([1, 2]))
        mx.eval(params, opt_state)
        return params, opt_state

    params, opt_state = take(1.0, params, opt_state)
    mx.reset_peak_memory()
    held = mx.get_active_memory()
    after, opt_state = take(1.0, params, opt_state)
    assert mx.get_peak_memory() - held < size / 4
    before = after["layers"][1]["running_mean"].tolist()
    lost, opt_state = take(math.nan, after, opt_state)
    assert lost["layers"][1]["running_mean"].tolist() == before
    assert opt_state["optimizer"]["skipped"].item() == 1


def test_metrics_need_a_loss_that_calls_the_model():
    step = fp.train_step(
        nn.linear(3, 2), lambda m, x, y: m.params["bias"].sum(), optim.sgd(0.1), metrics=[fp.accuracy()]
    )
    with pytest.raises(ValueError, match="did not call it"):
        step(*step.init(0), (mx.ones((2, 3)), mx.array([0, 1])))


def test_a_numpy_array_of_strings_is_named():
    step = fp.train_step(nn.linear(3, 2), lambda m, x: m(x).mean(), optim.sgd(0.1))
    with pytest.raises(TypeError, match="no arrays of <U1"):
        step(*step.init(0), np.array(["a", "b"]))


def test_what_is_frozen_decides_no_limit():
    base, head = nn.linear(64, 64), nn.linear(64, 2)
    frozen = fp.train_step(nn.freeze("base")(nn.sequential(base=base, head=head)), mse, optim.sgd(0.1))
    assert frozen.parameter_bytes == 4 * (64 * 2 + 2)
    chosen = fp.train_step(nn.sequential(base=base, head=head), mse, optim.sgd(0.1), trainable="head.bias")
    assert chosen.parameter_bytes == 4 * 2
    assert fp.train_step(nn.batch_norm(8), mse, optim.sgd(0.1)).parameter_bytes == 4 * 16
