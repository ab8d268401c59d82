"""Artifacts, verbs and the length of a run as settings of an experiment."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim

PAIRS = [(mx.ones((8, 3)), mx.zeros((8, 1)))] * 4


def made(*verbs, **parts):
    parts = {"model": nn.linear(3, 1), "task": fp.regression(), "data": PAIRS, **parts}
    return fp.experiment("e", *verbs, optimizer=partial(optim.sgd, 0.1), **parts)


def test_artifacts_are_a_section_with_settings(tmp_path):
    target = made(artifacts=partial(fp.checkpoints, str(tmp_path / "{step}"), every=2), epochs=4)
    assert fp.settings(target)["artifacts.every"] == 2
    other = fp.override({"artifacts.every": None, "artifacts.every_steps": 5})(target)
    fp.run(quiet=True)(other)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "10.safetensors",
        "15.safetensors",
        "16.safetensors",  # the end
        "5.safetensors",
    ]


def test_artifacts_may_be_a_verb(tmp_path):
    target = made(artifacts=fp.checkpoints(tmp_path / "{step}"))
    assert "seed" in fp.settings(target)
    fp.run(quiet=True)(fp.override({"seed": 3})(target))
    assert (tmp_path / "4.safetensors").exists()
    with pytest.raises(TypeError, match="artifacts are a verb"):
        made(artifacts="runs")


def test_a_verb_that_is_a_partial_has_settings():
    target = made(partial(fp.early_stop, patience=3), partial(fp.plateau, 0.5), epochs=20)
    assert fp.settings(target)["early_stop.patience"] == 3
    assert fp.settings(target)["plateau.factor"] == 0.5
    worse = fp.monitor("m", metric=lambda row: 1.0)
    report = fp.run(quiet=True)(fp.override({"early_stop.patience": 2})(made(worse, *target.verbs, epochs=20)))
    assert report.epochs_completed == 3
    with pytest.raises(KeyError, match="did you mean 'early_stop.patience'"):
        fp.override({"early_stop.patince": 2})(target)


def test_two_verbs_of_one_name_cannot_be_told_apart():
    with pytest.raises(TypeError, match="are called 'early_stop'"):
        made(partial(fp.early_stop, 3), partial(fp.early_stop, 4))


def test_steps_are_a_setting():
    target = made(steps=6)
    assert len(fp.run(quiet=True)(target).losses) == 6
    assert len(fp.run(quiet=True)(fp.override({"steps": 3})(target)).losses) == 3
    assert len(fp.run(quiet=True, epochs=2)(target).losses) == 8


def test_run_takes_an_experiment():
    with pytest.raises(TypeError, match=r"run takes an experiment; got Trainer: fit\(data\)\(trainer\)"):
        fp.run()(made().trainer)


def test_only_is_a_collection_of_names():
    with pytest.raises(TypeError, match=r"only=\('after_step',\)"):
        fp.events(PAIRS, only="after_step")


def test_the_bundle_of_a_run_has_the_settings_of_its_experiment(tmp_path):
    target = made(artifacts=partial(fp.checkpoints, str(tmp_path / "{step}"), bundle=True), seed=3)
    fp.run(quiet=True)(target)
    assert fp.read_bundle(tmp_path / "bundle.json")["settings"]["seed"] == 3
    fp.run(quiet=True, out=tmp_path / "out")(fp.override({"seed": 4})(target))
    settings = fp.read_bundle(tmp_path / "out" / "bundle.json")["settings"]
    assert (settings["seed"], settings["artifacts.bundle"], settings["optimizer.learning_rate"]) == (4, True, 0.1)


def test_a_run_that_never_began_changes_no_bundle(tmp_path):
    fp.run(quiet=True, out=tmp_path)(made(seed=3))
    before = (tmp_path / "bundle.json").read_bytes()
    with pytest.raises(FileExistsError):
        fp.run(quiet=True, out=tmp_path)(made(seed=4))
    assert (tmp_path / "bundle.json").read_bytes() == before


def test_a_run_that_an_error_ended_has_its_settings(tmp_path):
    failing = fp.on("after_step", lambda e: 1 / 0 if e.step == 2 else None)
    with pytest.raises(ZeroDivisionError):
        fp.run(quiet=True, out=tmp_path)(made(failing, seed=3))
    assert fp.read_bundle(tmp_path / "bundle.json")["settings"]["seed"] == 3


def test_a_verb_of_arguments_without_names_is_no_function_of_options():
    with pytest.raises(TypeError, match=r"'with_metrics' takes \*metrics, and options have names: give the result of"):
        made(partial(fp.with_metrics, fp.metrics.perplexity))
