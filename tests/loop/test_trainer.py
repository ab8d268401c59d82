"""Verbs of trainers: each returns another trainer, and the later one wins."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from toolz import compose_left, pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim

X = mx.random.normal((8, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = [(X, Y)] * 2
PLAIN = fp.trainer(nn.linear(4, 2), fp.classification())


def fit(target, train=TRAIN, **options):
    return fp.fit(train, quiet=True, **options)(target)


# the record


def test_a_trainer_is_frozen_and_verbs_return_another():
    with pytest.raises(FrozenInstanceError):
        PLAIN.model = None
    changed = pipe(PLAIN, fp.with_optimizer(optim.sgd(0.1)), fp.on("after_step", print), fp.monitor("accuracy"))
    assert (PLAIN.optimizer.name, PLAIN.hooks, PLAIN.monitor) == ("adamw", (), None)
    assert (changed.optimizer.name, len(changed.hooks), changed.monitor.name) == ("sgd", 1, "accuracy")


@pytest.mark.parametrize("model", [mlx_nn.Linear(4, 2), nn.linear(4, 2), nn.sequential(mlx_nn.Linear(4, 2), nn.relu)])
@pytest.mark.usual("model0", "model1")
def test_a_model_is_a_layer_or_a_module(model):
    assert fit(fp.trainer(model, fp.classification())).rows[0].steps == 2


def test_a_model_without_parameters_says_that_nothing_trains():
    with pytest.raises(ValueError, match="nothing trains"):
        fit(fp.trainer(lambda x: x, lambda model, x, y: model(x).mean()))


def test_an_optimiser_may_come_with_the_trainer():
    assert fp.trainer(nn.linear(4, 2), fp.classification(), optimizer=optim.sgd(0.1)).optimizer.name == "sgd"
    with pytest.raises(TypeError, match="a trainer takes an Optimizer"):
        fp.trainer(nn.linear(4, 2), fp.classification(), optimizer="sgd")


# metrics


def test_more_metrics_are_in_rows_of_train_and_validation_and_can_be_watched():
    target = pipe(PLAIN, fp.with_metrics(metrics.top_k(2), metrics.f1(2)), fp.monitor("val_f1", mode="max"))
    report = fit(target, validation=TRAIN)
    row = report.rows[0]
    assert row.metrics.keys() == row.val_metrics.keys() == {"accuracy", "top_2", "f1"}
    assert (row.val_top_2, report.best_value) == (1.0, row.val_f1)


def test_metrics_join_a_loss_alone():
    target = pipe(fp.trainer(nn.linear(4, 2), fp.classification().loss), fp.with_metrics(fp.accuracy()))
    assert fit(target).rows[0].metrics.keys() == {"accuracy"}


def test_metrics_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two metrics are called accuracy"):
        fp.with_metrics(fp.accuracy())(PLAIN)
    with pytest.raises(TypeError, match="a metric is a Metric"):
        fp.with_metrics(fp.accuracy)


def test_a_loss_may_report_equal_figures_of_the_batch():
    def loss(model, x, y):
        return fp.classification().loss(model, x, y), {"seen": (x > 0).sum() * 1.0, "again": (x > 0).sum() * 1.0}

    for compile in (True, False):
        row = fit(fp.trainer(nn.linear(4, 2), fp.classification(loss=loss)), compile=compile).rows[0]
        assert row.seen == row.again == (X > 0).sum().item()


# presets, packs, dataflows

PRESETS = (
    fp.Registry("preset")
    .add("plain", fp.with_optimizer(optim.sgd(0.1)))
    .add("watched", fp.monitor("accuracy", mode="max"), extends="plain")
    .add("patient", fp.early_stop)
    .add("broken", lambda trainer: None)
)


def test_a_preset_is_applied_by_name_with_its_bases():
    target = pipe(PLAIN, fp.with_named(PRESETS, "watched"))
    assert (target.optimizer.name, target.monitor.name) == ("sgd", "accuracy")


def test_a_pack_gets_its_options():
    target = pipe(PLAIN, fp.with_named(PRESETS, "patient", patience=4))
    assert repr(target.hooks) == "(on('after_evaluation', early_stop(4)),)"


def test_a_pack_may_be_a_bundle_of_hooks_and_metrics():
    def watch(*, classes, patience=1):
        return compose_left(fp.with_metrics(metrics.f1(classes)), fp.early_stop(patience))

    target = pipe(PLAIN, fp.with_named(fp.Registry("pack").add("watch", watch), "watch", classes=2))
    assert ([m.name for m in target.task.metrics], len(target.hooks)) == (["accuracy", "f1"], 1)


def test_an_unknown_name_is_an_error_with_candidates_at_once():
    with pytest.raises(KeyError, match="unknown preset 'plian': did you mean 'plain'"):
        fp.with_named(PRESETS, "plian")
    with pytest.raises(TypeError, match="patence"):
        fp.with_named(PRESETS, "patient", patence=4)


def test_what_gives_no_trainer_is_named():
    with pytest.raises(TypeError, match="the preset 'broken' gave no trainer but None: does it take options"):
        fp.with_named(PRESETS, "broken")(PLAIN)


def test_later_wins_call_over_preset_over_trainer_over_default():
    preset = fp.with_named(PRESETS, "plain")
    own = fp.with_optimizer(optim.lion(0.1))
    called = fp.with_optimizer(optim.adam(0.1))
    assert PLAIN.optimizer.name == "adamw"
    assert pipe(PLAIN, own).optimizer.name == "lion"
    assert pipe(PLAIN, own, preset).optimizer.name == "sgd"
    assert pipe(PLAIN, own, preset, called).optimizer.name == "adam"


def test_hooks_of_several_verbs_add_up_in_order():
    order = []
    hooks = [fp.on("after_epoch", lambda e, name=name: order.append(name)) for name in "ab"]
    pack = fp.Registry("pack").add("c", fp.on("after_epoch", lambda e: order.append("c")), extends=())
    fit(pipe(PLAIN, *hooks, fp.with_named(pack, "c")))
    assert order == ["a", "b", "c"]


def test_a_dataflow_is_a_composition_for_train_and_validation_alike():
    flows = (
        fp.Registry("dataflow")
        .add("scaled", data.map(lambda row: {"x": row["x"] * 2, "y": row["y"]}))
        .add("batched", data.batch(4), extends="scaled")
    )
    flow = flows["batched"]
    rows = data.arrays(x=X, y=Y)
    report = fit(PLAIN, pipe(rows, data.shuffle(seed=1), flow), validation=flow(rows))
    by_hand = [(X[i : i + 4] * 2, Y[i : i + 4]) for i in (0, 4)]
    assert report.rows[0].batches == report.rows[0].validation_batches == 2
    assert report.rows[0].val_loss == pytest.approx(fp.evaluate(by_hand, params=report.params)(PLAIN)["loss"], rel=1e-5)


# freezing

BODY = nn.sequential(body=nn.linear(4, 4), head=nn.linear(4, 2))


def moved(*verbs):
    """The parts whose weights a run has changed."""
    start = nn.init(0)(BODY)
    report = fit(pipe(fp.trainer(BODY, fp.classification()), *verbs), params=start)
    return {part for part in start if not mx.array_equal(start[part]["weight"], report.params[part]["weight"])}


def test_what_is_frozen_on_a_trainer_does_not_move_and_what_is_unfrozen_does():
    assert moved() == {"body", "head"}
    assert moved(fp.freeze("body")) == {"head"}
    assert moved(fp.freeze(), fp.unfreeze("body")) == {"body"}
    assert moved(fp.freeze("body"), fp.unfreeze("body")) == {"body", "head"}


def test_freezing_a_trainer_leaves_the_first_one_alone():
    target = fp.trainer(BODY, fp.classification())
    fp.freeze("body")(target)
    assert fp.paths(target.model.trainable(nn.init(0)(BODY)))(nn.init(0)(BODY)) == fp.paths()(nn.init(0)(BODY))


def test_a_freeze_that_matches_nothing_names_the_nearest():
    with pytest.raises(KeyError, match="bdoy"):
        fp.freeze("bdoy")(fp.trainer(BODY, fp.classification()))


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("with_optimizer", fp.with_optimizer(optim.sgd(0.1))),
        ("on", fp.on("after_epoch", print)),
        ("with_metrics", fp.with_metrics(fp.metrics.top_k(2))),
        ("monitor", fp.monitor("loss")),
        ("checkpoints", fp.checkpoints("runs/{epoch}")),
        ("with_options", fp.with_options(epochs=2)),
        ("with_step", fp.with_step(fp.train_step)),
    ],
)
def test_a_verb_says_that_it_takes_a_trainer(name, verb):
    with pytest.raises(TypeError, match=rf"{name} takes a trainer; got Layer: fp.trainer\(model, task\) makes one"):
        verb(nn.linear(4, 2))


def test_a_notebook_shows_the_fields_of_a_trainer():
    model = nn.sequential(nn.fn(lambda x: x, "<b>"), nn.linear(4, 2))
    target = fp.with_options(epochs=3)(fp.trainer(model, fp.classification()))
    page = target._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert all(f">{name}</td>" in page for name in ("model", "task", "optimizer", "frozen", "hooks", "options"))
    assert repr(target).splitlines()[:3] == ["trainer", "  model: sequential", "    layers.0: <b>"]
