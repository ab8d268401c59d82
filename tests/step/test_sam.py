"""Sharpness-aware steps against steps by hand, alone and with other verbs."""

import mlx.core as mx
import pytest
from helpers import assert_close, cross_entropy, random_batch, small_net
from mlx.utils import tree_flatten, tree_map

import mlx_fp as fp
from mlx_fp import nn, optim, passes

X, _ = random_batch(8)
Y = mx.array([0, 1, 0, 1, 1, 1, 0, 0])
MODEL = nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 2))


def value(params, x=X, y=Y):
    return nn.losses.cross_entropy(MODEL.apply(params, x)[0], y, reduction="mean")


def by_hand(params, rate=0.5, rho=0.1, parts=((X, Y),)):
    total = tree_map(mx.zeros_like, params)
    for x, y in parts:
        g = mx.grad(value)(params, x, y)
        length = mx.sqrt(sum((leaf**2).sum() for _, leaf in tree_flatten(g)))
        worst = mx.grad(value)(tree_map(lambda p, d, length=length: p + rho * d / length, params, g), x, y)
        total = tree_map(lambda t, d: t + d / len(parts), total, worst)
    return tree_map(lambda p, d: p - rate * d, params, total)


def taken(**options):
    step = fp.train_step(MODEL, cross_entropy, optim.sgd(0.5), **options)
    params, opt_state = step.init(0)
    after, opt_state, logs = step(params, opt_state, (X, Y))
    assert step.traces == 1
    return params, after, logs


def test_a_step_is_that_by_hand_and_logs_the_loss_before_it():
    params, after, logs = taken(through=[passes.sam(0.1)])
    assert_close(after, by_hand(params))
    assert logs["loss"].item() == pytest.approx(value(params).item(), rel=1e-6)


def test_parts_inside_change_nothing_and_parts_outside_move_for_themselves():
    params, after, _ = taken(through=[passes.in_parts(2), passes.sam(0.1)])
    assert_close(after, by_hand(params))
    params, after, _ = taken(through=[passes.sam(0.1), passes.in_parts(2)])
    assert_close(after, by_hand(params, parts=((X[:4], Y[:4]), (X[4:], Y[4:]))))


def test_both_passes_draw_the_same_numbers_and_frozen_weights_and_buffers_are_those_of_one_pass():
    model = nn.freeze("enc")(small_net())
    plain, moved = (
        fp.train_step(model, cross_entropy, optim.sgd(0.5), through=verbs) for verbs in ([], [passes.sam(1e-6)])
    )
    results = [step(*step.init(0), (X, Y))[:2] for step in (plain, moved)]
    assert_close(*results, atol=1e-5)


@pytest.mark.parametrize(("rho", "error"), [(0, ValueError), (-1.0, ValueError), ("a", TypeError)])
def test_a_distance_is_above_0(rho, error):
    with pytest.raises(error, match="rho of sam is a finite number above 0"):
        passes.sam(rho)
