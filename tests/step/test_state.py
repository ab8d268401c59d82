"""The state of another step is refused, with what either keeps; its own is not checked twice."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import metrics, nn, optim

MODEL = nn.linear(3, 2)
X, Y = mx.ones((4, 3)), mx.array([0, 1, 0, 1])
LOSS = fp.classification().loss


def made(optimizer, **options):
    return fp.train_step(MODEL, LOSS, optimizer, **options)


CASES = {
    "adam to sgd": (
        optim.adam(0.1),
        optim.sgd(0.1),
        "the state has memory.bias.m (2,), memory.weight.m (2, 3), which sgd does not keep",
    ),
    "sgd to adam": (
        optim.sgd(0.1),
        optim.adam(0.1),
        "adam keeps memory.bias.m (2,), memory.weight.m (2, 3), which the state does not have",
    ),
    "clipped to plain": (
        optim.clip_norm(1.0)(optim.sgd(0.1)),
        optim.sgd(0.1),
        "the state has grad_norm (), inner.learning_rate (), inner.memory.bias.v (2,), inner.memory.weight.v (2, 3) "
        "and 1 more, which sgd does not keep; sgd keeps learning_rate ()",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("way", ["call", "accumulate", "advance", "gradients"])
def test_the_state_of_another_optimiser_is_an_error_that_lists_both(case, compile, way):
    theirs, own, words = CASES[case]
    params, state = made(theirs).init(0)
    step = made(own, compile=compile)
    step.init(0)
    calls = {
        "call": lambda: step(params, state, (X, Y)),
        "accumulate": lambda: step.accumulate(params, state, [(X, Y), (X, Y)]),
        "advance": lambda: step.advance(step.carry(params, state), [(X, Y)]),
        "gradients": lambda: step.gradients(params, state, (X, Y)),
    }
    with pytest.raises(ValueError, match=re.escape(words)):
        calls[way]()


@pytest.mark.parametrize("compile", [True, False])
def test_a_state_of_the_same_optimiser_goes_from_step_to_step(compile):
    one, other = made(optim.adam(0.1), compile=compile), made(optim.adam(0.2), compile=compile)
    params, state, _ = one(*one.init(0), (X, Y))
    params, state, _ = other(params, state, (X, Y))
    assert state["optimizer"]["step"].item() == 2


def test_an_optimiser_may_change_the_layout_of_its_state():
    def update(grads, state, params):
        return params, {"count": state.get("count", mx.array(0)) + 1}

    step = made(optim.Optimizer(lambda params: {}, update, "growing"))
    params, state = step.init(0)
    for _ in range(3):
        params, state, _ = step(params, state, (X, Y))
    assert state["optimizer"]["count"].item() == 3


def test_what_is_known_is_not_checked_again():
    calls = []
    plain = optim.sgd(0.1)
    counted = optim.Optimizer(lambda params: calls.append(1) or plain.init(params), plain.update, "counted")
    step = made(counted)
    params, state = step.init(0)
    for size in (4, 3, 2):
        params, state, _ = step(params, state, (X[:size], Y[:size]))
    assert len(calls) == 1


@pytest.mark.parametrize("compile", [True, False])
def test_the_memory_of_other_metrics_is_an_error_that_lists_both(compile):
    params, state = made(optim.sgd(0.1), metrics=[fp.accuracy(), metrics.top_k(2)]).init(0)
    words = "it folds accuracy, and the state has accuracy, top_2"
    with pytest.raises(ValueError, match=words):
        made(optim.sgd(0.1), metrics=[fp.accuracy()], compile=compile)(params, state, (X, Y))
    step = fp.eval_step(MODEL, LOSS, metrics=[fp.accuracy()], compile=compile)
    with pytest.raises(ValueError, match=words):
        step(params, state["metrics"], (X, Y))
