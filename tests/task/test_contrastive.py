"""The task to find partners in a batch, against the formula in NumPy."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

ROWS = 6
A = mx.random.normal((ROWS, 3), key=mx.random.key(1))
B = mx.random.normal((ROWS, 4), key=mx.random.key(2))
TOWERS = nn.branch(image=nn.linear(3, 5), text=nn.linear(4, 5))


def learning(start):
    """Return two towers and a temperature that is learned."""
    return nn.define(
        lambda m, a, b: (m.image(a), m.text(b)),
        image=nn.linear(3, 5),
        text=nn.linear(4, 5),
        log_scale=nn.param((), init=start),
    )


def expected(a, b, counts, scale):
    """Return the loss and the accuracy of two lists of vectors, row by row."""
    a, b = (np.array(v, np.float64) for v in (a, b))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    chosen = np.flatnonzero(counts)
    s = scale * a[chosen] @ b[chosen].T
    rows = [np.log(np.exp(s[i]).sum()) - s[i, i] for i in range(len(s))]
    columns = [np.log(np.exp(s[:, i]).sum()) - s[i, i] for i in range(len(s))]
    hits = [int(s[i].argmax() == i) + int(s[:, i].argmax() == i) for i in range(len(s))]
    return (np.mean(rows) + np.mean(columns)) / 2, np.mean(hits) / 2


def reference_loss(forward, a, b):
    """Compute the loss of CLIP with the cross entropy of MLX."""
    a, b = (v / mx.linalg.norm(v, axis=1, keepdims=True) for v in (forward.image(a), forward.text(b)))
    s, target = a @ b.T / 0.07, mx.arange(a.shape[0])
    rows, columns = (nn.losses.cross_entropy(each, target, reduction="mean") for each in (s, s.T))
    return (rows + columns) / 2


@pytest.mark.parametrize("counts", [None, [1, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0]])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.usual("0.07-counts1", "0.07-counts2", "1.0-counts1", "1.0-counts2")
def test_loss_and_accuracy_are_those_of_the_formula(counts, temperature):
    task = fp.contrastive(towers=("image", "text"), temperature=temperature)
    step = fp.train_step(TOWERS, task.loss, optim.sgd(0.1))
    params, state = step.init(0)
    a, b = (nn.predictor(params[name])(part)(x) for (name, part), x in zip(TOWERS.parts, (A, B), strict=True))
    loss, accuracy = expected(a, b, [1] * ROWS if counts is None else counts, 1 / temperature)
    after, _, logs = step(params, state, (A, B) if counts is None else (A, B, mx.array(counts)))
    assert_close(logs, {"loss": mx.array(loss), "accuracy": mx.array(accuracy)}, rtol=2e-5, atol=1e-5)
    assert all(mx.all(mx.isfinite(leaf)).item() for leaf in fp.flat(after).values())


def test_the_gradient_is_that_of_the_cross_entropies():
    results = []
    for loss in (fp.contrastive(towers=("image", "text")).loss, reference_loss):
        step = fp.train_step(TOWERS, loss, optim.sgd(0.1))
        results.append(step(*step.init(0), (A, B))[0])
    assert_close(*results)


def test_rows_that_do_not_count_are_neither_rows_nor_negatives():
    task = fp.contrastive(towers=("image", "text"))
    step = fp.train_step(TOWERS, task.loss, optim.sgd(0.1))
    params, state = step.init(0)
    padded = tuple(mx.concatenate([x, mx.full((2, x.shape[1]), fill)]) for x, fill in ((A, 0.0), (B, 7.0)))
    mask = mx.array([1] * ROWS + [0, 0])
    one, _, logs = step(params, state, (A, B))
    other, _, others = step(params, state, (*padded, mask))
    assert_close(one, other)
    assert_close(logs, others)


def test_one_encoder_turns_both_into_vectors():
    model = nn.linear(3, 5)
    step = fp.train_step(model, fp.contrastive().loss, optim.sgd(0.1))
    params, state = step.init(0)
    noisy = A + 0.1 * B[:, :3]
    vectors = [nn.predictor(params)(model)(x) for x in (A, noisy)]
    loss, accuracy = expected(*vectors, [1] * ROWS, 1 / 0.07)
    assert_close(
        step(params, state, (A, noisy))[2], {"loss": mx.array(loss), "accuracy": mx.array(accuracy)}, rtol=1e-4
    )


def test_a_learned_temperature_moves_and_is_bounded():
    start = math.log(1 / 0.07)
    task = fp.contrastive(towers=("image", "text"), temperature="log_scale")
    step = fp.train_step(learning(start), task.loss, optim.sgd(0.1))
    params, state = step.init(0)
    fixed = fp.train_step(TOWERS, fp.contrastive(towers=("image", "text")).loss, optim.sgd(0.1))
    own = {name: params[name] for name in ("image", "text")}
    after, _, logs = step(params, state, (A, B))
    assert_close(logs["loss"], fixed(*fixed.init(own), (A, B))[2]["loss"])
    assert logs["temperature"].item() == pytest.approx(0.07, rel=1e-5)

    def at(scale):
        vectors = [nn.predictor(own[name])(part)(x) for (name, part), x in zip(TOWERS.parts, (A, B), strict=True)]
        return expected(*vectors, [1] * ROWS, math.exp(scale))[0]

    slope = (at(start + 1e-4) - at(start - 1e-4)) / 2e-4
    assert (start - after["log_scale"].item()) / 0.1 == pytest.approx(slope, rel=1e-3)
    _, _, hot = step({**params, "log_scale": mx.array(9.0)}, state, (A, B))
    assert hot["temperature"].item() == pytest.approx(0.01, rel=1e-5)


def test_a_run_binds_columns_by_the_names_of_the_towers_and_learns():
    train = pipe(data.arrays(text=B, image=A), data.batch(ROWS))
    trainer = pipe(fp.trainer(TOWERS, fp.contrastive(towers=("image", "text"))), fp.with_optimizer(optim.adam(0.05)))
    report = pipe(trainer, fp.fit(train, validation=train, epochs=60, quiet=True))
    assert report.rows[-1].val_accuracy == 1.0
    assert report.rows[-1].val_loss < 0.1 < report.rows[0].val_loss


@pytest.mark.parametrize("option", ["parts", "streams"])
@pytest.mark.usual("streams")
def test_options_that_cut_batches_are_refused(option):
    train = [(A, A), (A, A)]
    trainer = fp.trainer(nn.linear(3, 5), fp.contrastive())
    with pytest.raises(ValueError, match=f"compares the rows of a batch, and {option}=2 cuts batches"):
        fp.fit(train, quiet=True, **{option: 2})(trainer)
    with pytest.raises(ValueError, match="streams=2 cuts"):
        fp.evaluate(train, params=nn.init(0)(nn.linear(3, 5)), streams=2)(trainer)
    assert fp.fit(train, quiet=True, accumulate=2)(trainer).rows[-1].steps == 1


def test_what_fits_nothing_is_refused():
    with pytest.raises(ValueError, match="temperature of contrastive is a finite number above 0"):
        fp.contrastive(temperature=0.0)
    with pytest.raises(TypeError, match="towers of contrastive are the names of two parts"):
        fp.contrastive(towers="image")
    step = fp.train_step(TOWERS, fp.contrastive(towers=("image", "text"), temperature="scale").loss, optim.sgd(0.1))
    with pytest.raises(KeyError, match="temperature"):
        step(*step.init(0), (A, B))
    step = fp.train_step(nn.linear(3, 5), fp.contrastive().loss, optim.sgd(0.1))
    with pytest.raises(ValueError, match="vectors of one shape"):
        step(*step.init(0), (A, A[:4]))
    with pytest.raises(ValueError, match=r"a place for each row, \(6,\)"):
        step(*step.init(0), (A, A, mx.ones((5,))))
    with pytest.raises(ValueError, match="a pair is of the columns a and b"):
        fp.fit([{"a": A, "c": A}], quiet=True)(fp.trainer(nn.linear(3, 5), fp.contrastive()))
