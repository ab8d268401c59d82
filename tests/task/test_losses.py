"""The losses of the tasks are means over what counts: value, weight and gradient."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim
from mlx_fp.task._mean import Mean

LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.array([2, 0, 1, 1, 2, 0])
WEIGHTS = np.array([1.0, 0.5, 3.0])


def surprise(logits):
    """Minus the log of the chance of each class, in float64."""
    wide = logits.astype(np.float64)
    return np.log(np.exp(wide).sum(-1, keepdims=True)) - wide


EACH = surprise(LOGITS)[np.arange(6), Y]


def loss(task, output, *batch):
    """The total and the weight of the loss of a model that always returns `output`."""
    found = task.loss(lambda x: mx.array(output), None, *(mx.array(column) for column in batch))
    assert isinstance(found, Mean)
    return found.total.item(), found.weight.item()


# classification


def test_classification_is_a_mean_over_the_labels():
    assert loss(fp.classification(), LOGITS, Y) == (pytest.approx(EACH.sum(), rel=1e-6), 6)
    places = LOGITS.reshape(2, 3, 3)
    assert loss(fp.classification(), places, Y.reshape(2, 3)) == (pytest.approx(EACH.sum(), rel=1e-6), 6)


def test_labels_that_are_ignored_or_masked_do_not_count():
    counts = np.array([1, 1, 0, 1, 0, 0], bool)
    wanted = (pytest.approx(EACH[counts].sum(), rel=1e-6), 3)
    assert loss(fp.classification(ignore=-100), LOGITS, np.where(counts, Y, -100)) == wanted
    assert loss(fp.classification(), LOGITS, Y, counts) == wanted
    both = np.where(np.arange(6) == 4, -100, Y)
    assert loss(fp.classification(ignore=-100), LOGITS, both, np.arange(6) != 1) == (
        pytest.approx(EACH[[0, 2, 3, 5]].sum(), rel=1e-6),
        4,
    )


def test_labels_weigh_as_their_class():
    each = WEIGHTS[Y]
    wanted = (pytest.approx((each * EACH).sum(), rel=1e-6), each.sum())
    for weights in (WEIGHTS.tolist(), WEIGHTS, mx.array(WEIGHTS)):
        assert loss(fp.classification(class_weights=weights), LOGITS, Y) == wanted
    some = np.where(np.arange(6) < 2, Y, 7)
    task = fp.classification(ignore=7, class_weights=WEIGHTS)
    assert loss(task, LOGITS, some) == (pytest.approx((each * EACH)[:2].sum(), rel=1e-6), each[:2].sum())


def test_class_weights_of_probabilities_stand_within_the_sum_over_classes():
    chances = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], np.float32)
    wanted = (WEIGHTS * chances * surprise(LOGITS[:2])).sum()
    task = fp.classification(class_weights=WEIGHTS)
    assert loss(task, LOGITS[:2], chances) == (pytest.approx(wanted, rel=1e-6), 2)
    plain = (chances * surprise(LOGITS[:2])).sum()
    assert loss(fp.classification(), LOGITS[:2], chances) == (pytest.approx(plain, rel=1e-6), 2)


def test_probabilities_of_which_the_likeliest_class_is_ignored_count_neither_in_loss_nor_in_accuracy():
    chances, logits = np.eye(3, dtype=np.float32)[[0, 2]], LOGITS[:2]
    task = fp.classification(ignore=0)
    assert loss(task, logits, chances) == (pytest.approx(surprise(logits)[1, 2], rel=1e-6), 1)
    (m,) = task.metrics
    assert m.update(m.init(), mx.array(logits), x=None, y=mx.array(chances))["count"].item() == 1


def test_the_default_accuracy_leaves_out_what_the_loss_ignores():
    (m,) = fp.classification(ignore=-1).metrics
    memory = m.update(m.init(), mx.eye(3), x=None, y=mx.array([0, 0, -1]))
    assert (memory["hits"].item(), memory["count"].item()) == (1, 2)


@pytest.mark.parametrize("label", [-1, 3, 2**32])
@pytest.mark.parametrize("options", [{}, {"ignore": -100}, {"class_weights": [0.0, 0.0, 0.0]}], ids=str)
def test_a_label_that_is_no_class_makes_the_loss_nan_unless_it_is_ignored(label, options):
    y = np.where(np.arange(6) == 1, label, Y)
    assert math.isnan(loss(fp.classification(**options), LOGITS, y)[0])
    assert loss(fp.classification(ignore=label), LOGITS, y) == (pytest.approx(EACH.sum() - EACH[1], rel=1e-6), 5)


def test_the_loss_over_nothing_is_nan_and_moves_nothing():
    model, y = nn.linear(3, 2), mx.full((4,), -100)
    params = nn.init(0)(model)

    def value(params):
        return fp.classification(ignore=-100).loss(lambda x: model.apply(params, x)[0], mx.ones((4, 3)), y).value

    found, grads = mx.value_and_grad(value)(params)
    assert math.isnan(found.item())
    assert {name: mx.abs(grad).max().item() for name, grad in grads.items()} == {"weight": 0, "bias": 0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 2.0]], r"a weight for each class, \(classes,\); they are \(1, 2\)"),
        (2.0, r"a weight for each class, \(classes,\); they are \(\)"),
        ([], r"they are \(0,\)"),
        ([1.0, -1.0], r"0 or more; got \[1\.0, -1\.0\]"),
        ([1.0, math.nan], "finite numbers, 0 or more"),
    ],
)
def test_class_weights_that_are_none_are_refused_at_once(weights, message):
    with pytest.raises(ValueError, match=message):
        fp.classification(class_weights=weights)


def test_class_weights_for_other_classes_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"each class of logits \(6, 3\), \(3,\); they are \(2,\)"):
        loss(fp.classification(class_weights=[1.0, 2.0]), LOGITS, Y)


def test_class_weights_beside_a_loss_of_ones_own_are_refused():
    with pytest.raises(ValueError, match="which `loss` replaces"):
        fp.classification(class_weights=[1.0, 2.0], loss=lambda model, x, y: model(x).mean())


@pytest.mark.parametrize("task", [fp.classification(), fp.regression(), fp.language_modeling()], ids=repr)
def test_the_gradient_of_the_plain_loss_is_that_of_the_plain_mean_to_the_bit(task):
    output = mx.array(LOGITS)
    y = mx.array(LOGITS[::-1].copy()) if task.name == "regression" else mx.array(Y)
    stock = nn.losses.mse_loss if task.name == "regression" else nn.losses.cross_entropy
    mine = mx.grad(lambda output: task.loss(lambda x: output, None, y).value)(output)
    assert mx.array_equal(mine, mx.grad(lambda output: stock(output, y, reduction="mean"))(output)).item()


@examples(30)
@given(st.integers(0, 6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_losses_of_two_parts_add_up_to_that_of_the_whole(cut, counts):
    task, y = fp.classification(ignore=-1, class_weights=WEIGHTS), np.where(counts, Y, -1)
    parts = [loss(task, LOGITS[part], y[part]) for part in (slice(cut), slice(cut, None)) if len(y[part])]
    total, weight = loss(task, LOGITS, y)
    assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-5)
    assert sum(part[1] for part in parts) == pytest.approx(weight)


# numbers and tokens


def test_regression_is_a_mean_over_the_numbers():
    y = LOGITS[::-1].copy()
    square = (LOGITS - y) ** 2
    assert loss(fp.regression(), LOGITS, y) == (pytest.approx(square.sum(), rel=1e-6), 18)
    rows = np.array([1, 0, 0, 1, 0, 0])
    masked = loss(fp.regression(), LOGITS, y, rows[:, None])
    assert masked == (pytest.approx(square[rows == 1].sum(), rel=1e-6), 6)
    assert loss(fp.regression(), LOGITS[:, :1], y[:, 0], rows)[1] == 2


def test_language_modeling_is_a_mean_over_the_tokens_that_count():
    logits, y, mask = LOGITS.reshape(2, 3, 3), Y.reshape(2, 3), np.array([[1, 1, 0], [1, 0, 0]])
    wanted = (pytest.approx(EACH[mask.ravel() == 1].sum(), rel=1e-6), 3)
    assert loss(fp.language_modeling(), logits, y, mask) == wanted
    assert loss(fp.language_modeling(ignore=-1), logits, np.where(mask, y, -1)) == wanted
    assert loss(fp.language_modeling(), logits, y) == (pytest.approx(EACH.sum(), rel=1e-6), 6)


def test_tasks_say_their_unit():
    made = (fp.classification(), fp.regression(), fp.language_modeling(), fp.Task("own", lambda model, x: model(x)))
    assert [task.unit for task in made] == ["rows", "rows", "tokens", "rows"]


# batches


@pytest.mark.parametrize("task", [fp.classification, fp.regression, fp.language_modeling])
@pytest.mark.parametrize(
    ("x", "shapes"),
    [
        (mx.zeros((5,)), r"x is \(5,\) and y is \(3,\)"),
        (mx.zeros(()), r"x is \(\) and y is \(3,\)"),
        ({"a": mx.zeros((5,)), "b": mx.zeros((4, 2))}, r"x is \(5,\), \(4, 2\) and y is \(3,\)"),
        ((mx.zeros((5,)), "name"), r"x is \(5,\) and y is \(3,\)"),
    ],
    ids=["vector", "number", "dict", "tuple"],
)
def test_a_row_with_several_targets_is_refused_with_both_shapes(task, x, shapes):
    with pytest.raises(ValueError, match=shapes + r".*data\.batch\(n\)"):
        task().loss(lambda x: mx.zeros((3, 2)), x, mx.zeros((3,), mx.int32))


def test_rows_of_vectors_are_refused_before_the_model_sees_them():
    rows = data.arrays(x=mx.ones((4, 5)), y=mx.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"x is \(5,\) and y is \(3,\).*not rows: data\.batch\(n\)"):
        fp.fit(rows, quiet=True)(fp.trainer(nn.linear(5, 3), fp.regression()))


@pytest.mark.parametrize(
    "x",
    [
        mx.zeros((3, 5, 2)),
        {"nodes": mx.zeros((3, 5)), "edges": mx.zeros((2, 7))},
        (mx.zeros((3, 5)), mx.array(0.5)),
        ("names", None),
        None,
    ],
    ids=["tokens", "graph", "temperature", "no array", "none"],
)
def test_what_may_be_a_batch_is_taken(x):
    assert loss_of_rows(x) == (pytest.approx(3 * math.log(2)), 3)


def loss_of_rows(x):
    found = fp.classification().loss(lambda x: mx.zeros((3, 2)), x, mx.array([0, 1, 1]))
    return found.total.item(), found.weight.item()


def test_logits_of_one_row_are_refused():
    with pytest.raises(ValueError, match=r"logits \(n, …, classes\), two or more; they are \(3,\)"):
        fp.classification().loss(lambda x: mx.zeros((3,)), mx.zeros((3,)), mx.array([0, 1, 0]))


# in a run


def test_a_task_trains_with_ignored_labels_weights_a_mask_and_further_columns():
    x, y = mx.random.normal((8, 3), key=mx.random.key(0)), mx.array([0, 1, 0, 1, 1, -1, 0, 1])
    folds = [metrics.accuracy(ignore=-1), metrics.f1(2)]

    def own(model, x, y, mask, id):
        return task.loss(model, x, y, mask)

    task = fp.classification(ignore=-1, class_weights=[1.0, 2.0])
    batch = {"x": x, "y": y, "mask": mx.array([1, 1, 1, 1, 0, 1, 1, 1]), "id": mx.arange(8)}
    target = pipe(
        fp.trainer(nn.linear(3, 2), fp.classification(loss=own, metrics=folds)), fp.with_optimizer(optim.sgd(0.1))
    )
    row = fp.fit([batch], quiet=True, seed=0)(target).rows[0]
    plain = pipe(fp.trainer(nn.linear(3, 2), task), fp.with_optimizer(optim.sgd(0.1)))
    kept = {"x": x, "y": mx.where(batch["mask"] == 0, -1, y)}
    wanted = fp.fit([kept], quiet=True, seed=0)(plain).rows[0]
    assert (row.epoch_loss, row.accuracy) == (wanted.epoch_loss, wanted.accuracy)
