"""Tasks supply loss, metrics and monitor, each overridable."""

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.task import as_task


def test_classification_is_cross_entropy_and_accuracy():
    task = fp.classification()
    logits, y = mx.array([[2.0, 0.0], [0.0, 1.0]]), mx.array([0, 0])
    expected = nn.losses.cross_entropy(logits, y, reduction="mean")
    assert task.loss(lambda x: logits, None, y).item() == expected.item()
    assert ([m.name for m in task.metrics], task.monitor, task.mode) == (["accuracy"], "val_accuracy", "max")


def test_each_part_can_be_replaced():
    mine = fp.classification(
        loss=lambda model, x, y: model(x).mean(), metrics=[fp.accuracy("hits")], monitor="val_hits"
    )
    assert [m.name for m in mine.metrics] == ["hits"]
    assert mine.monitor == "val_hits"
    with pytest.raises(ValueError, match="two metrics are called accuracy"):
        fp.classification(metrics=[fp.accuracy(), fp.accuracy()])


def test_a_loss_alone_is_a_task_and_anything_else_is_refused():
    def mine(model, x):
        return model(x).mean()

    assert as_task(mine).name == "mine"
    with pytest.raises(TypeError, match="loss function"):
        as_task("classification")


def test_a_trainer_says_what_it_takes():
    with pytest.raises(TypeError, match="model"):
        fp.trainer("model", fp.classification())
    with pytest.raises(TypeError, match=r"optim\.lift"):
        fp.with_optimizer("adam")


def test_labels_that_are_no_integers_are_refused_with_the_remedy():
    batch = (mx.ones((4, 3)), mx.ones((4,)))
    with pytest.raises(TypeError, match=r"integer labels; y is mlx.core.float32 \(4,\): y.astype"):
        fp.fit([batch], quiet=True)(fp.trainer(nn.linear(3, 2), fp.classification()))
    soft = (mx.ones((4, 3)), mx.full((4, 2), 0.5))  # probabilities of each class are labels too
    fp.fit([soft], quiet=True)(fp.trainer(nn.linear(3, 2), fp.classification(metrics=[])))


def test_what_stands_in_the_wrong_place_is_named_at_once():
    from mlx_fp import optim

    with pytest.raises(TypeError, match="call it, with a rate"):
        fp.with_optimizer(optim.adam)
    with pytest.raises(TypeError, match="a seed is an int.*got"):
        nn.init(nn.linear(3, 2))
    with pytest.raises(KeyError, match="the parameters lack layers; they have weight, bias"):
        nn.predictor(nn.init(0)(nn.linear(3, 2)))(nn.sequential(nn.linear(3, 2)))(mx.ones((1, 3)))
