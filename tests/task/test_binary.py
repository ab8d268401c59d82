"""Metrics of labels that are 0 or 1, and tables of classes, equal scikit-learn's."""

from __future__ import annotations

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import metrics, nn
from mlx_fp.show._curves import curves

scores = pytest.importorskip("sklearn.metrics")


def folded(m, *batches):
    memory = m.init()
    for output, *rest in batches:
        memory = m.update(memory, mx.array(output), None, *map(mx.array, rest))
    return m.value(memory)


def drawn(*shape, seed=0):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, shape)
    return (draw.normal(size=shape) + y).astype(np.float32), y


def cut(output, y):
    return (output[:5], y[:5]), (output[5:], y[5:])


@pytest.mark.parametrize("threshold", [0.0, 0.7])
@pytest.mark.parametrize("kind", [np.int32, np.bool_, np.float32])
def test_binary_accuracy_is_scikit_learn_s(threshold, kind):
    output, y = drawn(40)
    wanted = scores.accuracy_score(y, output > threshold)
    m = metrics.binary_accuracy(threshold=threshold)
    assert folded(m, *cut(output, y.astype(kind))).item() == pytest.approx(wanted)
    assert folded(m, (output[:, None], y.astype(kind))).item() == pytest.approx(wanted)


def test_multilabel_accuracy_is_scikit_learn_s_of_labels_and_of_rows():
    output, y = drawn(40, 3)
    found = [folded(metrics.multilabel_accuracy(exact=exact), *cut(output, y)).item() for exact in (False, True)]
    wanted = [1 - scores.hamming_loss(y, output > 0), scores.accuracy_score(y, output > 0)]
    assert found == pytest.approx(wanted)


def test_a_row_is_right_when_all_of_its_labels_that_count_are():
    output, y = [[1.0, -1.0], [1.0, 1.0], [1.0, 1.0]], [[1, 1], [1, 0], [0, 0]]
    mask = [[1, 0], [1, 1], [0, 0]]
    assert folded(metrics.multilabel_accuracy(exact=True), (output, y, mask)).item() == 0.5
    assert folded(metrics.multilabel_accuracy(), (output, y, mask)).item() == pytest.approx(2 / 3)


def test_auroc_is_scikit_learn_s_to_the_width_of_its_bins():
    output, y = drawn(4000)
    wanted = scores.roc_auc_score(y, output)
    assert folded(metrics.auroc(), *cut(output, y)).item() == pytest.approx(wanted, abs=1e-3)
    probabilities = 1 / (1 + np.exp(-output))
    assert folded(metrics.auroc(), (probabilities, y)).item() == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_auroc_of_bfloat16_outputs_is_exact_ties_and_signs_included(scale):
    draw = np.random.default_rng(1)
    output = mx.array((scale * draw.integers(-4, 5, 300)).astype(np.float32)).astype(mx.bfloat16)
    y = draw.integers(0, 2, 300)
    wanted = scores.roc_auc_score(y, np.array(output.astype(mx.float32)))
    assert folded(metrics.auroc(), (output, y)).item() == pytest.approx(wanted, abs=1e-6)


def test_auroc_without_one_of_the_labels_or_of_no_number_is_nan():
    for output, y in (([1.0, 2.0], [1, 1]), ([1.0, 2.0], [0, 0]), ([1.0, math.nan], [0, 1])):
        assert math.isnan(folded(metrics.auroc(), (output, y)).item())
    assert folded(metrics.auroc(), ([1.0, math.nan, 2.0], [0, 1, 1], [1, 0, 1])).item() == 1.0


@pytest.mark.parametrize("make", [metrics.auroc, metrics.binary_accuracy, metrics.multilabel_accuracy])
def test_a_label_that_is_neither_0_nor_1_makes_it_nan_unless_it_does_not_count(make):
    output, y = [1.0, -1.0, 2.0], [1, 0, -100]
    assert math.isnan(folded(make(), (output, y), ([1.0, -1.0], [1, 0])).item())
    assert folded(make(ignore=-100), (output, y)).item() == 1.0
    assert folded(make(), (output, y, [1, 1, 0])).item() == 1.0


# tables


def test_confusion_is_scikit_learn_s():
    draw = np.random.default_rng(2)
    logits, y = draw.normal(size=(50, 4)).astype(np.float32), draw.integers(0, 4, 50)
    wanted = scores.confusion_matrix(y, logits.argmax(-1), labels=range(4))
    assert folded(metrics.confusion(4), *cut(logits, y)).tolist() == wanted.tolist()
    y[3] = -100
    kept = y != -100
    wanted = scores.confusion_matrix(y[kept], logits[kept].argmax(-1), labels=range(4))
    assert folded(metrics.confusion(4, ignore=-100), *cut(logits, y)).tolist() == wanted.tolist()
    assert np.isnan(np.array(folded(metrics.confusion(4), *cut(logits, y)))).all()


BATCH = (mx.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), mx.array([0, 1, 1]))


def run(*folds, **options):
    task = fp.classification(metrics=[fp.accuracy(), *folds])
    return fp.fit([BATCH], validation=[BATCH], quiet=True, epochs=2, **options)(fp.trainer(nn.linear(2, 2), task))


def test_a_metric_that_is_a_table_is_in_rows_json_and_the_report(tmp_path):
    pytest.importorskip("matplotlib")
    report = run(metrics.confusion(2))
    table = report.rows[-1].val_confusion
    assert sum(map(sum, table)) == 3.0
    assert json.loads(report.to_json())["rows"][-1]["val_confusion"] == table
    assert "confusion" not in str(report).splitlines()[0]
    assert "val_confusion\n" in str(report)
    assert report.rows[-1].figures().keys() == {"loss", "accuracy", "val_loss", "val_accuracy"}
    curves(report, tmp_path / "curves.png")


def test_a_table_goes_through_a_checkpoint(tmp_path):
    task = fp.classification(metrics=[fp.accuracy(), metrics.confusion(2)])
    target = pipe(fp.trainer(nn.linear(2, 2), task), fp.checkpoints(str(tmp_path / "ep-{epoch}")))
    first = pipe(target, fp.fit([BATCH], validation=[BATCH], quiet=True))
    both = pipe(target, fp.fit([BATCH], validation=[BATCH], quiet=True, epochs=2, resume="latest"))
    assert both.rows[0].val_confusion == first.rows[0].val_confusion


def test_a_dict_of_arrays_is_a_metric_too():
    tree = fp.Metric(
        "counts", lambda: mx.array(0), lambda m, out, x, y: m + y.size, lambda m: {"n": m, "of": [m, mx.stack([m, m])]}
    )
    assert run(tree).rows[-1].counts == {"n": 3.0, "of": [3.0, [3.0, 3.0]]}


@pytest.mark.parametrize("name", ["val_confusion", "confusion"])
def test_no_monitor_watches_a_table(name):
    task = fp.classification(metrics=[metrics.confusion(2)])
    target = pipe(fp.trainer(nn.linear(2, 2), task), fp.monitor(name, mode="max"))
    with pytest.raises(
        ValueError, match=f"monitor '{name}' is a table of numbers, and only a single number can be the best"
    ):
        pipe(target, fp.fit([BATCH], validation=[BATCH], quiet=True))


def test_a_metric_that_returns_none_names_itself():
    good = {"init": lambda: mx.array(0), "update": lambda m, out, x, y: m, "value": lambda m: m}
    for part, words in (
        ("update", "update of metric 'mine' returned None"),
        ("value", "value of metric 'mine' returned None"),
    ):
        with pytest.raises(TypeError, match=words):
            run(fp.Metric("mine", **{**good, part: lambda *args: None}))
