"""A label that is no class makes the loss and every metric NaN, never a figure."""

from __future__ import annotations

import math
import re

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import metrics, nn

LOGITS = mx.array([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [1.0, 0.0, 0.0, 0.5]])
"""The largest are 0, 1, 2, 0."""

OF_CLASSES = {
    "accuracy": metrics.accuracy,
    "token_accuracy": metrics.token_accuracy,
    "top_2": lambda **kw: metrics.top_k(2, **kw),
    "perplexity": metrics.perplexity,
    "precision": lambda **kw: metrics.precision(4, **kw),
    "recall": lambda **kw: metrics.recall(4, **kw),
    "f1": lambda **kw: metrics.f1(4, **kw),
}


def value(m, *batches):
    memory = m.init()
    for logits, y in batches:
        memory = m.update(memory, logits, x=None, y=y)
    return m.value(memory).item()


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("label", [-100, -1, 4, 1 << 30])
def test_a_label_that_is_no_class_makes_a_metric_nan_for_good(name, label):
    odd, good = mx.array([0, 1, 2, label]), mx.array([0, 1, 2, 3])
    m = OF_CLASSES[name]()
    assert math.isfinite(value(m, (LOGITS, good)))
    for batches in ([odd], [odd, good], [good, odd, good], [odd, odd]):
        assert math.isnan(value(m, *((LOGITS, y) for y in batches)))
    merged = m.merge(m.update(m.init(), LOGITS, None, odd), m.update(m.init(), LOGITS, None, good))
    assert math.isnan(m.value(merged).item())


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_label_that_is_ignored_or_masked_may_be_anything(name):
    y, wanted = mx.array([0, 3, 2, -100]), value(OF_CLASSES[name](), (LOGITS[:3], mx.array([0, 3, 2])))
    assert value(OF_CLASSES[name](ignore=-100), (LOGITS, y)) == pytest.approx(wanted)
    m = OF_CLASSES[name]()
    assert m.value(m.update(m.init(), LOGITS, None, y, mx.array([1, 1, 1, 0]))).item() == pytest.approx(wanted)


def test_recall_of_labels_with_padding_is_that_of_scikit_learn_over_the_others():
    y = mx.array([0, 1, 1, 3, -100])
    logits = mx.eye(4)[mx.array([0, 1, 0, 2, 0])]
    recalls = [1.0, 0.5, 0.0, 0.0]  # scikit-learn's, of labels and predictions without the last, zero_division=0
    assert value(metrics.recall(4, ignore=-100), (logits, y)) == pytest.approx(sum(recalls) / 4)
    assert math.isnan(value(metrics.recall(4), (logits, y)))


@pytest.mark.parametrize("name", ["accuracy", "perplexity", "f1"])
def test_probabilities_that_are_nan_make_a_metric_nan(name):
    y = mx.array([[1.0, 0.0, 0.0, 0.0], [0.0, mx.nan, 0.0, 0.0]])
    assert math.isnan(value(OF_CLASSES[name](), (LOGITS[:2], y)))


def test_perplexity_of_probabilities_is_that_of_their_cross_entropy():
    y = mx.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    wanted = math.exp(nn.losses.cross_entropy(LOGITS[:2], y).mean().item())
    assert value(metrics.perplexity(), (LOGITS[:2], y)) == pytest.approx(wanted)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_labels_that_are_no_integers_are_refused_as_by_the_loss(name):
    with pytest.raises(TypeError, match="integer labels; y is mlx.core.float32"):
        value(OF_CLASSES[name](), (LOGITS, mx.zeros((4,))))


def test_labels_may_be_bool():
    logits, y = mx.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), mx.array([True, False, True])
    assert value(metrics.accuracy(), (logits, y)) == pytest.approx(2 / 3)
    assert fp.classification().loss(lambda x: x, logits, y).weight.item() == 3


def test_validation_with_labels_that_are_no_class_has_no_best_epoch():
    task = fp.classification(metrics=[make() for make in OF_CLASSES.values()], monitor="val_perplexity")
    x, y = mx.random.normal((4, 3), key=mx.random.key(0)), mx.array([0, 1, 2, 3])
    run = fp.fit([(x, y)], validation=[(x, mx.array([0, 1, -100, 3]))], epochs=2, quiet=True)
    report = run(fp.trainer(nn.linear(3, 4), task))
    assert math.isnan(report.rows[-1].val_loss)
    assert all(math.isnan(figure) for figure in report.rows[-1].val_metrics.values())
    assert all(math.isfinite(figure) for figure in report.rows[-1].metrics.values())
    assert report.best_value is None


# the number of classes


@pytest.mark.parametrize("make", [metrics.f1, metrics.precision, metrics.recall])
def test_a_number_of_classes_below_two_or_other_than_the_logits_is_an_error(make):
    with pytest.raises(ValueError, match=re.escape("the number of classes, 2 or more; got 1")):
        make(1)
    with pytest.raises(ValueError, match=re.escape("is made for 2 classes, and the logits (4, 4) have 4")):
        value(make(2), (LOGITS, mx.array([0, 1, 0, 1])))


def test_top_k_of_fewer_classes_is_an_error():
    with pytest.raises(ValueError, match=re.escape("top_k(99) of 4 classes is always 1")):
        value(metrics.top_k(99), (LOGITS, mx.array([0, 1, 2, 3])))
    assert value(metrics.top_k(4), (LOGITS, mx.array([0, 1, 2, 3]))) == 1.0


# metrics and tasks of wrong parts

GOOD = {"init": lambda: mx.array(0), "update": lambda m, output, y: m, "value": lambda m: m}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mode": "mx"}, ValueError, "unknown mode 'mx': did you mean 'max'? known: min, max"),
        ({"mode": None}, ValueError, "unknown mode 'None'"),
        ({"init": 0}, TypeError, "init of metric 'own' is a function; got 0"),
        ({"update": None}, TypeError, "update of metric 'own' is a function; got None"),
        ({"value": 1.0}, TypeError, "value of metric 'own' is a function; got 1.0"),
        ({"merge": "sum"}, TypeError, "merge of metric 'own' is a function; got 'sum'"),
        ({"name": 5}, TypeError, "the name of a metric is a text; got 5"),
    ],
)
def test_a_metric_of_wrong_parts_is_refused_when_it_is_built(change, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fp.Metric(**{"name": "own", **GOOD, **change})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fp.Task("own", lambda model, x: x, mode="mx"), ValueError, "unknown mode 'mx'"),
        (lambda: fp.classification(mode="mx"), ValueError, "unknown mode 'mx'"),
        (lambda: fp.regression(mode="least"), ValueError, "unknown mode 'least'"),
        (lambda: fp.Task("own", 5), TypeError, "the loss of a task is a function"),
        (lambda: fp.Task("own", lambda model, x: x, (5,)), TypeError, "a metric is a Metric"),
        (lambda: fp.language_modeling(ignore="pad"), TypeError, "ignore is a label, an int; got 'pad'"),
        (lambda: fp.classification(ignore=1.5), TypeError, "ignore is a label, an int; got 1.5"),
        (lambda: metrics.accuracy(ignore="pad"), TypeError, "ignore is a label, an int; got 'pad'"),
        (lambda: metrics.perplexity(ignore=True), TypeError, "ignore is a label, an int; got True"),
        (lambda: metrics.recall(3, ignore="pad"), TypeError, "ignore is a label, an int; got 'pad'"),
    ],
)
def test_a_task_or_metric_of_wrong_options_is_refused_when_it_is_built(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
