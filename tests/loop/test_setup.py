"""How a run was set up, as its report and its bundle say it."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
from helpers import batch_mean
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop._options import Options

X = mx.arange(24, dtype=mx.float32).reshape(8, 3) / 24
TRAIN = pipe(data.arrays(x=X, y=(X[:, 0] > 0.5).astype(mx.int32)), data.batch(4), data.take(1))


def worst(losses):
    return max(losses)


def fit(*verbs, optimizer=None, train=TRAIN, **options):
    target = fp.trainer(nn.linear(3, 2), fp.classification(), optimizer=optimizer or optim.sgd(0.1))
    return pipe(target, *verbs, fp.fit(train, quiet=True, **options))


def test_a_report_says_every_option_of_its_run():
    report = fit(
        fp.monitor("peak", metric=worst, min_delta=0.5, mode="max"),
        validation={"easy": TRAIN},
        steps=2,
        seed=mx.random.key(7),
        reduce=worst,
        validation_reduce="sum",
        dtype=mx.bfloat16,
        compile={"shapeless": False},
        sync="step",
        keep_best=True,
    )
    setup = report.setup
    assert set(Options.__annotations__) - setup.options.keys() == {"validation", "params", "resume"}
    wanted = {"steps": 2, "epochs": None, "reduce": "worst", "validation_reduce": "sum", "dtype": "bfloat16"}
    wanted |= {"compile": {"shapeless": False}, "sync": "step", "seed": mx.random.key(7).tolist(), "keep_best": True}
    assert {name: setup.options[name] for name in wanted} == wanted
    assert (setup.monitor_metric, setup.min_delta, report.monitor_name, report.monitor_mode) == (
        "worst",
        0.5,
        "peak",
        "max",
    )
    assert "take(1)" in setup.train
    assert list(setup.validation) == ["easy"]
    assert (setup.optimizer, setup.params_given, setup.resume_kind, setup.resume_source) == (
        "sgd",
        False,
        "fresh",
        None,
    )
    with pytest.raises(TypeError, match="read-only"):
        setup.options["seed"] = 0


def test_plain_values_and_the_bundle_have_the_same(tmp_path):
    report = fit(fp.with_options(log_every=1), params=nn.init(1)(nn.linear(3, 2)))
    assert report.setup.params_given
    assert json.loads(report.to_json())["setup"] == report.setup.to_dict() == report.to_dict()["setup"]
    read = fp.read_bundle(fp.save_bundle(tmp_path / "run.json")(report))
    assert read["report"]["setup"] == report.setup.to_dict()
    assert (read["report"]["setup"]["options"]["log_every"], read["report"]["monitor_name"]) == (1, "accuracy")


@pytest.mark.parametrize("source", ["latest", "best", "path", "checkpoint", "bundle", "function"])
@pytest.mark.usual("best", "path", "checkpoint", "bundle", "function")
def test_a_report_says_from_where_and_how_exactly_a_run_goes_on(tmp_path, source):
    policy = fp.checkpoints(tmp_path / "{epoch}", bundle=True)
    first = fit(policy)
    path = first.checkpoints[0]
    given = {
        "path": path,
        "checkpoint": fp.load(path),
        "bundle": first.policy["bundle"],
        "function": lambda: path,
    }.get(source, source)
    for train, rate, kind in ((TRAIN, 0.1, "exact"), (data.take(1)(TRAIN), 0.1, "inexact"), (TRAIN, 0.2, "inexact")):
        report = fit(policy, optimizer=optim.sgd(rate), train=train, resume=given)
        assert (report.setup.resume_source, report.setup.resume_kind, report.resume_from) == (source, kind, path)
        assert len(report.setup.differences) == (kind == "inexact")


def test_a_run_that_finds_nothing_to_go_on_from_is_fresh(tmp_path):
    report = fit(fp.checkpoints(tmp_path / "{epoch}"), resume="latest")
    assert (report.setup.resume_source, report.setup.resume_kind) == (None, "fresh")


def test_a_loss_of_ones_own_is_a_setup_like_any(tmp_path):
    report = fp.fit([mx.ones((2, 3))], quiet=True)(fp.trainer(nn.linear(3, 2), batch_mean))
    assert json.loads(report.to_json())["setup"]["optimizer"] == "adamw"
