"""The task to imitate a teacher, against the formula in NumPy."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, assert_same_run, bits, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim

ROWS, CLASSES, TOKENS = 6, 4, 5
X = mx.random.normal((ROWS, 3), key=mx.random.key(1))
Y = mx.random.randint(0, CLASSES, (ROWS,), key=mx.random.key(2))
WORDS = mx.random.randint(0, CLASSES, (ROWS, TOKENS + 1), key=mx.random.key(3))
TEACHER = small_net(out=nn.linear(2, CLASSES))
MODEL = nn.with_frozen(teacher=TEACHER)(nn.linear(3, CLASSES))
LANGUAGE = nn.with_frozen(teacher=nn.sequential(nn.embedding(CLASSES, 8), nn.linear(8, CLASSES)))(
    nn.sequential(nn.embedding(CLASSES, 4), nn.linear(4, CLASSES))
)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def expected(student, teacher, y, mask, temperature, alpha):
    """Return the two terms and the loss, and the gradient of the loss by the logits of the student."""
    student, teacher, y = np.array(student, np.float64), np.array(teacher, np.float64), np.array(y)
    mask = np.ones(y.shape) if mask is None else np.array(mask, np.float64)
    p, q, plain = softmax(teacher / temperature), softmax(student / temperature), softmax(student)
    label = np.eye(student.shape[-1])[y]
    divergence = temperature**2 * (p * np.log(p / q)).sum(axis=-1)
    entropy = -np.log((plain * label).sum(axis=-1))
    slope = alpha * (plain - label) + (1 - alpha) * temperature * (q - p)
    weight = mask.sum()
    terms = {"divergence": (divergence * mask).sum() / weight, "cross_entropy": (entropy * mask).sum() / weight}
    loss = alpha * terms["cross_entropy"] + (1 - alpha) * terms["divergence"]
    return {**terms, "loss": loss}, slope * mask[..., None] / weight


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.usual("False-0.9-2.0", "False-0.9-5.0", "True-0.9-1.0", "True-0.9-2.0", "True-0.9-5.0")
def test_loss_and_gradient_are_those_of_the_formula(temperature, alpha, masked):
    task = fp.distillation(temperature=temperature, alpha=alpha)
    step = fp.train_step(MODEL, task.loss, optim.sgd(1.0))
    params, state = step.init(0)
    mask = mx.array([1, 0, 1, 1, 0, 1]) if masked else None
    batch = (X, Y) if mask is None else (X, Y, mask)
    own = {name: params[name] for name in ("weight", "bias")}
    student, teacher = nn.predictor(own)(nn.linear(3, CLASSES))(X), nn.predictor(params["teacher"])(TEACHER)(X)
    terms, slope = expected(student, teacher, Y, mask, temperature, alpha)
    after, _, logs = step(params, state, batch)
    if not alpha:
        assert logs.keys() == {"loss", "divergence"}
    assert_close({name: mx.array(terms[name]) for name in logs}, logs, rtol=2e-5)
    assert_close(params["weight"] - after["weight"], mx.array((slope.T @ np.array(X)).astype(np.float32)), atol=3e-6)
    assert_close(params["bias"] - after["bias"], mx.array(slope.sum(axis=0).astype(np.float32)), atol=3e-6)
    assert_same_bits(after["teacher"], params["teacher"])


def test_tokens_that_do_not_count_change_nothing():
    x, y = WORDS[:, :-1], WORDS[:, 1:]
    mask = mx.array(np.arange(TOKENS)[None] < np.array([5, 3, 1, 4, 2, 5])[:, None])
    task = fp.distillation(ignore=-100)
    step = fp.train_step(LANGUAGE, task.loss, optim.sgd(0.1), metrics=task.metrics)
    params, state = step.init(0)
    wide = [mx.pad(each, [(0, 0), (0, 3)]) for each in (x, y, mask)]
    results = [
        step(params, state, batch)
        for batch in ((x, y, mask), (x, mx.where(mask, y, -100)), (x, mx.where(mask, y, 99), mask), tuple(wide))
    ]
    first, own = results[0], {name: tree for name, tree in params.items() if name != "teacher"}
    student = nn.predictor(own)(nn.sequential(nn.embedding(CLASSES, 4), nn.linear(4, CLASSES)))(x)
    teacher = nn.predictor(params["teacher"])(nn.sequential(nn.embedding(CLASSES, 8), nn.linear(8, CLASSES)))(x)
    assert_close(first[2]["loss"], mx.array(expected(student, teacher, y, mask, 2.0, 0.5)[0]["loss"]))
    for other in results[1:]:
        assert_close(first[0], other[0])
        assert_close(first[2], other[2])
        assert_same_bits(first[1]["metrics"], other[1]["metrics"])
    assert first[1]["metrics"]["accuracy"]["count"].item() == mask.sum().item()


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.usual("2")
def test_every_cutting_of_a_batch_gives_one_update(parts):
    mask = mx.array([1, 0, 1, 1, 0, 1])
    results = []
    for options in ({}, {"parts": parts}):
        step = fp.train_step(MODEL, fp.distillation().loss, optim.sgd(0.5), **options)
        results.append(step(*step.init(0), (X, Y, mask)))
    assert_close(results[0][0], results[1][0])
    assert_close(results[0][2], results[1][2])


def test_the_student_is_measured_and_not_the_teacher():
    task = fp.distillation()
    step = fp.train_step(MODEL, task.loss, optim.sgd(0.0), metrics=task.metrics)
    params, state = step.init(0)
    own = {name: params[name] for name in ("weight", "bias")}
    right = (nn.predictor(own)(nn.linear(3, CLASSES))(X).argmax(axis=-1) == Y).sum()
    assert step(params, state, (X, Y))[1]["metrics"]["accuracy"]["hits"].item() == right.item()
    assert (task.monitor, [m.name for m in task.metrics]) == ("val_accuracy", ["accuracy"])


def test_without_labels_the_divergence_alone_is_the_loss():
    task = fp.distillation(alpha=0.0)
    assert (task.metrics, task.monitor) == ((), "val_loss")
    trainer = pipe(fp.trainer(MODEL, task), fp.with_optimizer(optim.sgd(0.1)))
    losses = [
        pipe(trainer, fp.fit([batch], quiet=True)).losses[0]
        for batch in (X, {"x": X}, (X, Y), {"x": X, "label": Y}, {"x": X, "mask": mx.ones((ROWS,))})
    ]
    assert max(losses) - min(losses) < 1e-6
    assert losses[0] > 0


def test_a_class_that_both_models_exclude_leaves_numbers():
    excluded = nn.fn(lambda x: mx.where(mx.arange(CLASSES) == 1, -mx.inf, x))
    model = nn.with_frozen(teacher=nn.sequential(nn.linear(3, CLASSES), excluded))(
        nn.sequential(nn.linear(3, CLASSES), excluded)
    )
    step = fp.train_step(model, fp.distillation(alpha=0.0).loss, optim.sgd(0.1))
    params, _, logs = step(*step.init(0), X)
    assert np.isfinite(logs["loss"].item())
    assert all(mx.all(mx.isfinite(leaf)).item() for leaf in fp.flat(params).values())


def test_a_model_can_teach_itself_at_other_parameters():
    model = nn.linear(3, CLASSES)
    step = fp.train_step(model, fp.distillation(teacher=lambda params: params, alpha=0.0).loss, optim.sgd(0.1))
    params, state = step.init(0)
    after, _, logs = step(params, state, X)
    assert logs["loss"].item() == pytest.approx(0, abs=1e-6)
    assert_close(after, params)


def test_a_run_learns_the_teacher_and_resumes_to_the_bit_without_its_weights_in_the_file(tmp_path):
    train = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(3))
    begun = nn.init(7)(MODEL)

    def fit(*verbs, **options):
        target = pipe(fp.trainer(MODEL, fp.distillation()), fp.with_optimizer(optim.adam(1e-2)), *verbs)
        return pipe(target, fp.fit(train, validation=train, epochs=3, quiet=True, params=begun, **options))

    alone = fit()
    saved = fit(fp.checkpoints(tmp_path / "{step}", every_steps=1, trainable_only=True))
    held = fp.load(saved.checkpoints[-1])
    weights = {path for path in fp.flat(begun) if path.startswith("teacher.") and "running" not in path}
    assert set(held.left_out) == weights
    assert_same_run(fit(resume=tmp_path / "3"), alone)
    assert bits(alone.params["teacher"]) == bits(begun["teacher"])
    assert alone.rows[-1].val_loss < alone.rows[0].val_loss
    assert {"val_divergence", "val_cross_entropy"} <= alone.rows[-1].to_dict().keys()


def test_options_and_batches_that_fit_nothing_are_refused():
    for options, text in (
        ({"temperature": 0}, "temperature of distillation is a finite number above 0; got 0"),
        ({"alpha": 1.0}, "alpha of distillation is a finite number of at least 0 and below 1; got 1.0"),
    ):
        with pytest.raises(ValueError, match=text):
            fp.distillation(**options)
    with pytest.raises(TypeError, match="teacher of distillation is the name"):
        fp.distillation(teacher="a b")
    step = fp.train_step(nn.linear(3, CLASSES), fp.distillation().loss, optim.sgd(0.1))
    with pytest.raises(ValueError, match=r"nn.with_frozen\(teacher=\(layer, params\)\)"):
        step(*step.init(0), (X, Y))
    model = nn.with_frozen(teacher=nn.linear(3, 2))(nn.linear(3, CLASSES))
    step = fp.train_step(model, fp.distillation().loss, optim.sgd(0.1), metrics=[metrics.accuracy()])
    with pytest.raises(ValueError, match=r"student are \(6, 4\), those of the teacher \(6, 2\)"):
        step(*step.init(0), (X, Y))
    step = fp.train_step(MODEL, fp.distillation().loss, optim.sgd(0.1))
    with pytest.raises(ValueError, match="the batch has no y"):
        step(*step.init(0), X)
