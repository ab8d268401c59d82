"""Small arrays lie together from step to step: the same numbers, fewer arrays, and trees wherever somebody looks."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from helpers import assert_close, cross_entropy
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.step._train_step import TrainStep

MODEL = nn.sequential(*[nn.linear(4, 4) for _ in range(6)], nn.batch_norm(4), nn.linear(4, 2))
X = mx.random.normal((8, 4), key=mx.random.key(1))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.batch(2))

CHAINS = {
    "sgd": optim.sgd(0.1),
    "adamw": optim.adamw(1e-2),
    "clipped": optim.clip_norm(0.5)(optim.adam(1e-2)),
    "averaged": optim.ema(0.9)(optim.adamw(1e-2)),
    "skipping": optim.skip_nonfinite()(optim.adamw(1e-2)),
    "groups": optim.groups(("layers.0", optim.sgd(0.1, momentum=0.9)), (None, optim.adam(1e-2))),
    "lion": optim.lion(1e-3),
}


def trainer(*verbs):
    return pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optim.adamw(1e-2)), *verbs)


def fit(target, **options):
    return fp.fit(TRAIN, **{"epochs": 2, "quiet": True, **options})(target)


@pytest.fixture
def layouts(monkeypatch):
    """The layouts of the steps that are taken."""
    seen, advance = [], TrainStep.advance

    def watched(step, state, batches):
        seen.append(state.form)
        return advance(step, state, batches)

    monkeypatch.setattr(TrainStep, "advance", watched)
    return seen


@pytest.mark.parametrize("name", CHAINS)
def test_steps_on_packed_arrays_are_the_steps_on_trees(name):
    step = fp.train_step(MODEL, cross_entropy, CHAINS[name], metrics=[fp.accuracy()])
    state = step.init(0)
    packed, leaves = step.carry(*state), len(fp.flat(state[0])) + len(fp.flat(state[1]))
    assert 2 * len(packed.arrays) <= leaves
    for i in range(5):
        *state, logs = step(*state, (X + i, Y))
        packed, ((other, *_),) = step.advance(packed, [(X + i, Y)])
        np.testing.assert_allclose(other["loss"].item(), logs["loss"].item(), rtol=1e-5)
    assert_close(state[0], packed.params, atol=1e-7)
    assert_close(state[1], packed.opt_state, atol=1e-7)
    assert step.traces == 2


def test_a_layout_is_found_once():
    step = fp.train_step(MODEL, cross_entropy, optim.adamw(1e-2))
    packed = step.carry(*step.init(0))
    for _ in range(3):
        packed, _ = step.advance(packed, [(X, Y)])
        again = step.carry(packed.params, fp.swap("optimizer.learning_rate", 1e-3)(packed.opt_state))
        assert again.form is packed.form
        packed = again
    assert step.traces == 1


def test_a_state_of_another_step_is_packed_anew():
    one, other = (fp.train_step(MODEL, cross_entropy, optim.sgd(rate)) for rate in (0.1, 0.0))
    params, opt_state = one.init(0)
    state, _ = other.advance(one.carry(params, {**opt_state, "optimizer": other.init(0)[1]["optimizer"]}), [(X, Y)])
    assert mx.array_equal(state.params["layers"][0]["weight"], params["layers"][0]["weight"])
    assert (one.traces, other.traces) == (0, 1)


class InPlace(mlx_optimizers.SGD):
    """Writes over the parameters that it is given."""

    def apply_single(self, gradient, parameter, state):
        parameter -= self.learning_rate.astype(gradient.dtype) * gradient
        return parameter


def written_over():
    def update(grads, state, params):
        for path, grad in fp.flat(grads).items():
            param = fp.flat(params)[path]
            param -= 0.1 * grad
        return params, state

    return optim.Optimizer(lambda params: {"step": mx.array(0)}, update)


@pytest.mark.parametrize("name", ["lifted", "own", "wrapped"])
def test_optimisers_that_write_over_parameters_train(name):
    made = {"lifted": optim.lift(InPlace, 0.1), "own": written_over(), "wrapped": optim.ema(0.5)(written_over())}
    step = fp.train_step(MODEL, cross_entropy, made[name])
    params, opt_state = step.init(0)
    *after, _ = fp.train_step(MODEL, cross_entropy, optim.sgd(0.1))(
        *fp.train_step(MODEL, cross_entropy, optim.sgd(0.1)).init(0), (X, Y)
    )
    state, _ = step.advance(step.carry(params, opt_state), [(X, Y)])
    assert_close(state.params, after[0], atol=1e-7)
    assert state.form is not None


def test_trees_of_other_containers_stay_trees():
    step = fp.train_step(MODEL, cross_entropy, optim.sgd(0.1))
    params, opt_state = step.init(0)
    state, _ = step.advance(step.carry(OrderedDict(params), opt_state), [(X, Y)])
    assert_close(state.params, step(params, opt_state, (X, Y))[0], atol=1e-7)


def test_what_does_not_train_stays_by_itself():
    step = fp.train_step(nn.freeze("layers.0")(MODEL), cross_entropy, optim.sgd(0.1))
    params, opt_state = step.init(0)
    packed = step.carry(params, opt_state)
    assert any(array is params["layers"][0]["weight"] for array in packed.arrays)
    packed, _ = step.advance(packed, [(X, Y)])
    assert mx.array_equal(packed.params["layers"][0]["weight"], params["layers"][0]["weight"])


@pytest.mark.parametrize("options", [{"compile": False}, {}], ids=["not compiled", "large"])
def test_trees_stay_trees_where_nothing_is_gained(options, monkeypatch):
    if not options:
        monkeypatch.setattr("mlx_fp.cpu._packing.MIDDLE_BYTES", 1)
    step = fp.train_step(MODEL, cross_entropy, optim.adamw(1e-2), **options)
    state = step.carry(*step.init(0))
    assert state.form is None
    state, _ = step.advance(state, [(X, Y)])
    state, logs = step.advance(state, [(X, Y)] * 2)
    assert state.form is None
    assert len(logs) == 2


def test_few_arrays_stay_trees():
    step = fp.train_step(nn.linear(4, 2), cross_entropy, optim.adamw(1e-2))
    assert step.carry(*step.init(0)).form is None


def test_a_state_that_changes_its_shape_goes_on_as_trees():
    def run(params, xs, kw, train):
        return xs[0], {"seen": mx.concatenate([params["seen"], xs[0][:1]])}

    kept = nn.layer(lambda: {"seen": mx.zeros((1, 4))}, run)
    step = fp.train_step(
        nn.sequential(nn.freeze()(kept), *[nn.linear(4, 4) for _ in range(6)]), cross_entropy, optim.adamw(1e-2)
    )
    state = step.carry(*step.init(0))
    for i in range(3):
        assert (state.form is None) == (i > 0)  # other shapes are found out as they come
        state, _ = step.advance(state, [(X, Y)])
    assert state.params["layers"][0]["seen"].shape == (4, 4)


def test_a_state_that_no_step_made_is_refused():
    step = fp.train_step(MODEL, cross_entropy, optim.adamw(1e-2))
    params, opt_state = step.init(0)
    with pytest.raises(TypeError, match="takes the opt_state of its own init"):
        step.carry(params, opt_state["optimizer"])


def test_trees_and_a_single_batch_are_refused():
    step = fp.train_step(MODEL, cross_entropy, optim.adamw(1e-2))
    params, opt_state = step.init(0)
    for args in (((params, opt_state), [(X, Y)]), (step.carry(params, opt_state), {"x": X, "y": Y})):
        with pytest.raises(TypeError, match="a list of batches"):
            step.advance(*args)


def test_fit_packs_and_its_report_and_files_hold_trees(tmp_path, layouts):
    report = fit(trainer(fp.checkpoints(tmp_path / "{epoch}.safetensors")))
    assert len(layouts) == 8
    assert None not in layouts
    by_hand = fp.train_step(MODEL, cross_entropy, optim.adamw(1e-2))
    params, opt_state = by_hand.init(0)
    for batch in list(TRAIN) * 2:
        params, opt_state, _ = by_hand(params, opt_state, (batch["x"], batch["y"]))
    assert_close(report.params, params, atol=1e-7)
    assert_close(report.opt_state["optimizer"], opt_state["optimizer"], atol=1e-7)
    held = fp.load(tmp_path / "1.safetensors")
    assert_close(held.params, params, atol=1e-7)
    assert_close(held.opt_state["optimizer"], opt_state["optimizer"], atol=1e-7)


def test_hooks_see_trees_and_may_replace_them(layouts):
    seen = []

    def halve(event):
        seen.append(event.state.params["layers"][0]["weight"].shape)
        weights = fp.restore_like(event.state.params, {p: a / 2 for p, a in fp.flat(event.state.params).items()})
        return fp.Replace(params=weights)

    halved = fit(trainer(fp.on("after_step", halve)), epochs=1)
    plain = fit(trainer(fp.on("after_step", halve)), epochs=1, compile=False)
    assert_close(halved.params, plain.params, atol=1e-7)
    assert seen == [(4, 4)] * 8
    assert None not in layouts[:4]
    assert layouts[4:] == [None] * 4


def test_steps_in_halves_take_trees(layouts):
    report = fit(trainer(fp.on("after_backward", lambda event: None)), epochs=1)
    assert_close(report.params, fit(trainer(), epochs=1).params, atol=1e-7)
    assert len(layouts) == 4  # those of the second run


def test_trees_that_were_taken_apart_can_be_read_in_another_thread():
    kept = []
    hooks = [fp.on(name, lambda event: kept.append(event.state)) for name in ("before_step", "after_step")]
    report = fit(trainer(*hooks), epochs=1)
    trees = [report.params, report.opt_state, *(tree for state in kept for tree in (state.params, state.opt_state))]
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(lambda: [np.array(leaf) for tree in trees for leaf in fp.flat(tree).values()]).result()
    assert len(read) == sum(len(fp.flat(tree)) for tree in trees)
