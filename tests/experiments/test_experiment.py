"""An experiment is one frozen record; settings change by path, and equal experiments give equal bits."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from functools import partial

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import outcome
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim

X = mx.random.normal((16, 3), key=mx.random.key(0))
Y = X.sum(axis=1)
PAIRS = [(X[:8], Y[:8]), (X[8:], Y[8:])]


def network(width=4, dropout=0.0):
    return nn.sequential(nn.linear(3, width), nn.relu, nn.dropout(dropout), nn.linear(width, 1))


def batches(batch_size=8, seed=1):
    train = (data.arrays(x=X, y=Y), data.shuffle(seed=seed), data.batch(batch_size))
    return data.splits(train=train, validation=PAIRS[:1], test=PAIRS[1:])


def wrapped(first=0.1, rest=0.01, limit=1.0, max_norm=1.0, decay=0.5):
    return pipe(
        optim.groups(("layers.0", optim.sgd(first)), (None, optim.clip_value(limit)(optim.adam(rest)))),
        optim.clip_norm(max_norm),
        optim.ema(decay),
    )


def made(*verbs, **parts):
    usual = {"model": nn.linear(3, 1), "task": fp.regression(), "optimizer": partial(optim.sgd, 0.1), "data": PAIRS}
    return fp.experiment("sums", *verbs, **{**usual, **parts})


def run(target, **options):
    return fp.run(quiet=True, **options)(target)


def rate(target):
    return run(target).opt_state["optimizer"]["learning_rate"].item()


# the record


def test_an_experiment_is_frozen_and_override_returns_another():
    plain = made()
    with pytest.raises(FrozenInstanceError):
        plain.epochs = 3
    changed = fp.override({"epochs": 3, "optimizer.learning_rate": 0.5})(plain)
    assert (plain.epochs, changed.epochs) == (1, 3)
    assert fp.settings(plain)["optimizer.learning_rate"] == 0.1
    assert fp.settings(changed)["optimizer.learning_rate"] == 0.5
    assert repr(changed) == "experiment('sums', epochs=3, seed=0, optimizer.learning_rate=0.5)"


def test_an_experiment_trains_as_fit_does():
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression()), fp.with_optimizer(optim.sgd(0.1)))
    assert outcome(run(made(epochs=2, seed=3))) == outcome(fp.fit(PAIRS, epochs=2, seed=3, quiet=True)(target))


def test_verbs_change_the_trainer_in_order():
    seen = []
    verbs = (fp.with_metrics(metrics.mae("off")), fp.monitor("off"), fp.on("after_epoch", lambda e: seen.append(e.off)))
    report = run(made(*verbs))
    assert report.monitor_name == "off"
    assert seen == [report.best_value]


def test_a_loss_may_stand_for_the_task():
    def distance(model, x, y):
        return mx.abs(model(x)[:, 0] - y).mean()

    assert run(made(task=None, loss=distance)).monitor_name == "loss"


def test_without_an_optimiser_it_is_adamw():
    assert made(optimizer=None).trainer.optimizer.name == "adamw"
    assert "optimizer.weight_decay" in fp.settings(made(optimizer=None))


# settings by path


def test_a_setting_of_the_optimiser_is_what_it_goes_by():
    assert rate(fp.override({"optimizer.learning_rate": 0.5})(made())) == 0.5


def test_an_optimiser_that_is_made_already_has_no_settings():
    target = made(optimizer=optim.sgd(0.1))
    assert [path for path in fp.settings(target) if path.startswith("optimizer")] == []
    assert rate(target) == pytest.approx(0.1)


def test_settings_of_a_function_of_options_reach_wrappers_and_groups():
    target = made(optimizer=wrapped, model=network)
    changes = {"first": 0.25, "rest": 0.5, "decay": 0.75, "limit": 0.125, "max_norm": 2.0}
    changed = fp.override({f"optimizer.{name}": value for name, value in changes.items()})(target)
    groups = run(changed).opt_state["optimizer"]["inner"]["inner"]["groups"]
    assert groups[0]["learning_rate"].item() == 0.25
    assert groups[1]["inner"]["learning_rate"].item() == 0.5
    assert changed.trainer.optimizer.name.startswith("ema(0.75)(clip_norm(2)(groups(under('layers.0'): sgd")
    assert "clip_value(0.125)(adam)" in changed.trainer.optimizer.name


def test_settings_of_functions_reach_what_they_make():
    target = made(model=network, data=batches)
    assert {p: v for p, v in fp.settings(target).items() if p.startswith(("model.", "data."))} == {
        "model.width": 4,
        "model.dropout": 0.0,
        "data.batch_size": 8,
        "data.seed": 1,
    }
    report = run(fp.override({"model.width": 6, "data.batch_size": 4})(target))
    assert report.params["layers"][0]["weight"].shape == (6, 3)
    assert (report.rows[0].steps, report.rows[0].validation_batches) == (4, 1)


def test_tasks_and_optimisers_may_be_functions_too():
    def task(with_r2=False):
        return fp.regression(metrics=[metrics.r2()] if with_r2 else [])

    def optimizer(rate=0.1):
        return optim.sgd(rate)

    changed = fp.override({"task.with_r2": True, "optimizer.rate": 0.75})(made(task=task, optimizer=optimizer))
    assert run(changed).rows[0].metrics.keys() == {"r2"}
    assert rate(changed) == 0.75


def test_a_function_that_takes_anything_has_the_settings_that_it_names():
    def model(bias=True, **more):
        return nn.linear(3, 1, bias=bias)

    assert [path for path in fp.settings(made(model=model)) if path.startswith("model.")] == ["model.bias"]


def test_later_overrides_win_and_add_up():
    changed = pipe(
        made(model=network),
        fp.override({"optimizer.learning_rate": 0.5, "model.width": 5}),
        fp.override({"optimizer.learning_rate": 0.25}),
    )
    assert changed.options == {"optimizer.learning_rate": 0.25, "model.width": 5}


def test_a_schedule_may_be_a_setting():
    changed = fp.override({"optimizer.learning_rate": optim.step_decay(0.5, 0.5, 1)})(made(epochs=2))
    assert rate(changed) == 0.0625  # that of the fourth step


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("optimiser.momentum", "optimizer.momentum"),
        ("model.widht", "model.width"),
        ("epoch", "epochs"),
    ],
)
def test_an_unknown_path_is_an_error_with_candidates(path, near):
    with pytest.raises(KeyError, match=f"unknown setting '{path}': did you mean '{near}'"):
        fp.override({path: 1})(made(model=network))


def test_a_section_that_is_no_function_has_no_settings():
    with pytest.raises(KeyError, match="unknown setting 'model.width'"):
        fp.override({"model.width": 4})(made(model=network()))


# what is refused


def test_functions_of_options_need_defaults():
    def linear(dims, outs=1, *, bias):
        return nn.linear(dims, outs, bias=bias)

    with pytest.raises(TypeError, match="the model 'linear' is a function of options; give dims, bias a default"):
        made(model=linear)


def test_an_experiment_takes_a_task_or_a_loss():
    for parts in ({"task": None}, {"loss": lambda model, x, y: model(x).mean()}):
        with pytest.raises(TypeError, match="a task or a loss, one of the two"):
            made(**parts)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"model": 3}, "an experiment's model"),
        ({"task": "regression"}, "a task is a Task"),
        ({"optimizer": "sgd"}, "an experiment takes an Optimizer"),
        ({"data": 3}, "int"),
        ({"data": (pair for pair in PAIRS)}, "stream"),
    ],
)
def test_a_section_that_is_none_is_refused_when_the_experiment_is_made(parts, words):
    with pytest.raises(TypeError, match=words):
        made(**parts)


def test_what_is_no_verb_is_refused_when_the_experiment_is_made():
    with pytest.raises(TypeError, match=r"verbs change its trainer, as on\(…\) does; got on\('after_epoch', print\)"):
        made(fp.hook("after_epoch", print))


# equal experiments


def test_equal_experiments_give_equal_bits_and_others_do_not():
    def target():
        return made(model=network, data=batches, optimizer=wrapped, epochs=2, seed=5)

    first = outcome(run(fp.override({"model.dropout": 0.5})(target())))
    assert outcome(run(fp.override({"model.dropout": 0.5})(target()))) == first
    assert outcome(run(fp.override({"model.dropout": 0.5, "seed": 6})(target()))) != first
    assert outcome(run(fp.override({"model.dropout": 0.5, "data.seed": 2})(target()))) != first


def test_a_run_leaves_nothing_behind_for_the_next():
    target = made(fp.early_stop(0), fp.plateau(0.5, patience=1), epochs=3)
    assert outcome(run(target)) == outcome(run(target))


def test_an_override_by_the_value_that_is_there_changes_no_bit():
    target = made(optimizer=wrapped, model=network)
    same = {path: value for path, value in fp.settings(target).items() if "." in path}
    assert outcome(run(fp.override(same)(target))) == outcome(run(target))


def test_options_of_a_run_go_before_those_of_the_experiment():
    assert run(made(epochs=3), epochs=1).epochs_target == 1
    assert outcome(run(made(seed=1), seed=2)) == outcome(run(made(seed=2)))
    with pytest.raises(TypeError, match="unknown option 'epoch'"):
        run(made(), epoch=1)


# sections of other kinds


class Net(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.head = mlx_nn.Linear(3, 1)

    def __call__(self, x):
        return self.head(x)


@pytest.mark.parametrize("model", [Net, Net(), lambda: Net(), lambda: nn.lift(Net)])
def test_a_model_may_be_a_module_class_or_instance_or_a_function_of_one(model):
    report = run(made(model=model))
    assert fp.paths()(report.params) == ("head.weight", "head.bias")
    assert report.rows[0].steps == 2


def test_splits_and_datasets_and_lists_are_data():
    assert run(made(data=batches())).rows[0].val_loss is not None
    assert run(made(data=pipe(data.arrays(x=X, y=Y), data.batch(4)))).rows[0].steps == 4
    assert run(made(data=PAIRS)).rows[0].steps == 2


def test_the_test_split_of_an_experiment_evaluates():
    target = made(data=batches)
    report = run(target)
    found = fp.evaluate(target.splits, params=report.params)(target.trainer)
    assert found == fp.evaluate(PAIRS[1:], params=report.params)(target.trainer)


def test_a_bundle_holds_the_settings_of_an_experiment(tmp_path):
    target = fp.override({"optimizer.learning_rate": 0.5})(made(model=network))
    path = fp.save_bundle(tmp_path / "run.json", settings=fp.settings(target))(run(target))
    read = fp.read_bundle(path)
    assert read["settings"]["optimizer.learning_rate"] == 0.5
    again = fp.override(read["settings"])(made(model=network))
    assert outcome(run(again)) == outcome(run(target))
    assert json.loads(path.read_text())["report"]["epochs_completed"] == 1
