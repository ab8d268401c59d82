"""Which files are of which run: resumed from an older file, from one spelled otherwise, beside files of others."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import visible
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((16, 3), key=mx.random.key(0))
BATCHES = [(X[i : i + 4], X[i : i + 4].sum(axis=1)) for i in range(0, 16, 4)]
VALUES = [9.0, 3.0, 5.0, 4.0, 2.0, 6.0, 7.0, 8.0]
"""What the monitor says of each epoch: the best of the first four is 1, of all is 4."""


def trainer(*verbs, values=VALUES):
    watched = fp.monitor("given", metric=lambda row: values[row.epoch])
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(metrics=[])), fp.with_optimizer(optim.sgd(0.01)))
    return pipe(target, watched, *verbs)


def fit(target, epochs, **options):
    return pipe(target, fp.fit(BATCHES, epochs=epochs, quiet=True, **options))


def paused(after):
    return fp.on("after_epoch", lambda e: fp.Stop("a pause", final=False) if e.epoch == after else None)


# a run that goes on from an older file


def test_a_run_from_an_older_file_keeps_its_own_last_and_best(tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch}", best=True, keep_last=2)
    fit(trainer(fp.checkpoints(tmp_path / "{epoch}")), 8)
    branch = fit(trainer(policy, paused(6)), 8, resume=tmp_path / "2")
    assert (branch.best_epoch, branch.best_checkpoint) == (4, str(tmp_path / "4.safetensors"))
    assert visible(tmp_path) == ["2.safetensors", "4.safetensors", "5.safetensors", "6.safetensors", "7.safetensors"]
    assert fp.load(tmp_path / "6").metadata["branch"] == {fp.load(tmp_path / "7").metadata["run"]: 12}


@pytest.mark.parametrize(("which", "epoch"), [("latest", 6), ("best", 4)])
@pytest.mark.usual("latest-6")
def test_latest_and_best_are_of_the_line_that_the_newest_run_is_on(which, epoch, tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch}")
    fit(trainer(policy, values=[9.0, 3.0, 5.0, 4.0, 1.0, 1.0, 1.0, 0.5]), 8)
    fit(trainer(policy, paused(6)), 8, resume=tmp_path / "2")
    assert fit(trainer(policy), 8, resume=which).resume_from == str(tmp_path / f"{epoch}.safetensors")


def test_the_best_of_a_line_may_be_of_before_it_branched_off(tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch}")
    fit(trainer(policy), 4)
    fit(trainer(policy, paused(3)), 4, resume=tmp_path / "2")
    assert fit(trainer(policy), 4, resume="best").resume_from == str(tmp_path / "1.safetensors")


def test_a_run_that_goes_on_from_its_newest_file_is_the_same_run(tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch}")
    fit(trainer(policy), 2)
    fit(trainer(policy), 4, resume="latest")
    fit(trainer(policy), 5, resume=tmp_path / "3")
    told = [fp.load(tmp_path / str(epoch)).metadata for epoch in range(5)]
    assert len({one["run"] for one in told}) == 1
    assert [one["branch"] for one in told] == [{}] * 5


def test_a_run_that_begins_comes_after_those_that_are_there_whatever_the_clock_says(tmp_path, monkeypatch):
    policy = fp.checkpoints(tmp_path / "{epoch}")
    fit(trainer(policy), 3)
    before = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: before() - 3_600 * 10**9)
    fit(trainer(policy, paused(0)), 3)
    assert fit(trainer(policy), 3, resume="latest").resume_from == str(tmp_path / "0.safetensors")


# names


def test_the_same_folder_spelled_otherwise_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(trainer(fp.checkpoints("runs/{epoch:02}")), 2)
    for path in ("./runs/{epoch:02}", str(tmp_path / "runs" / "{epoch:02}"), "runs/../runs/{epoch:02}"):
        report = fit(trainer(fp.checkpoints(path)), 2, resume="latest")
        assert (report.start_epoch, os.path.basename(report.resume_from)) == (2, "01.safetensors")


def test_a_path_function_is_known_by_its_name_wherever_it_stands(tmp_path):
    def made(lines):
        space = {"folder": tmp_path}
        exec("\n" * lines + "def path(epoch):\n    return folder / str(epoch)\n", space)
        return fp.checkpoints(space["path"])

    fit(trainer(made(0)), 2)
    assert fit(trainer(made(3)), 2, resume="latest").start_epoch == 2


def test_two_lambdas_in_a_folder_are_two_policies_wherever_they_stand(tmp_path):
    one, same, other = (
        fp.checkpoints(path)
        for path in (
            lambda epoch: f"{tmp_path}/a-{epoch}",
            lambda epoch: f"{tmp_path}/a-{epoch}",
            lambda epoch: f"{tmp_path}/b-{epoch}",
        )
    )
    fit(trainer(one), 2)
    fit(trainer(other), 3)
    assert fit(trainer(same), 3, resume="latest").resume_from == str(tmp_path / "a-1.safetensors")
    assert fit(trainer(other), 3, resume="latest").resume_from == str(tmp_path / "b-2.safetensors")


@pytest.mark.parametrize("metadata", [{}, {"epoch": "x", "monitor_value": None}, {"epoch": None, "monitor_value": 0.5}])
def test_metadata_that_say_nothing_of_a_path_are_of_no_policy(metadata, tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch:03}")(trainer()).policy
    assert not policy.owns(tmp_path / "001.safetensors", metadata)


def test_weights_of_another_making_do_not_keep_a_first_run_from_starting(tmp_path, caplog):
    mx.save_safetensors(str(tmp_path / "pretrained.safetensors"), {"weight": mx.ones((2,))})
    with caplog.at_level(logging.WARNING, logger="mlx_fp.loop"):
        report = fit(trainer(fp.checkpoints(tmp_path / "{epoch}")), 1, resume="latest")
    assert (report.start_epoch, report.epochs_completed) == (0, 1)
    assert "there is no checkpoint in" in caplog.text


def test_a_path_that_is_one_for_several_steps_is_refused_where_several_are_kept(tmp_path):
    with pytest.raises(ValueError, match=r"keep_last keeps several files, and '\{epoch\}' names one: put \{step\} in"):
        fp.checkpoints(tmp_path / "{epoch}", every_steps=2, keep_last=3)


def test_a_row_no_longer_names_a_file_that_holds_another_epoch(tmp_path):
    report = fit(trainer(fp.checkpoints(tmp_path / "last", best=True)), 3)
    assert (report.best_epoch, report.best_checkpoint) == (1, None)
    assert [row.checkpoint for row in report.rows] == [None, None, str(tmp_path / "last.safetensors")]
    assert [row["checkpoint"] for row in fp.load(tmp_path / "last").metadata["rows"]] == [
        None,
        None,
        report.rows[2].checkpoint,
    ]


# what a loaded checkpoint holds


def test_a_loaded_checkpoint_may_be_gone_on_from_several_times(tmp_path):
    seen = fp.fold("after_epoch", [], lambda m, e: (m.append(e.epoch) or m, fp.Stop("six") if len(m) >= 6 else None))
    target = trainer(fp.with_hooks(seen), fp.checkpoints(tmp_path / "{epoch}"))
    fit(target, 2)
    held = fp.load(tmp_path / "1")
    reports = [fit(replace(target, policy=None), 4, resume=held) for _ in range(3)]
    assert [(len(report.rows), report.stop_reason) for report in reports] == [(4, None)] * 3


# a validation that a hook asked for


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.usual("3")
def test_a_validation_that_a_signal_cuts_is_done_when_the_run_goes_on(at, tmp_path):
    def halve(event):
        return fp.Replace(opt_state=optim.scale_rates(0.5)(event.state.opt_state))

    def verbs(interrupt):
        ask = fp.on("after_step", lambda e: fp.Validate() if e.batch == at else None)
        return ask, fp.on("after_validation", halve), fp.on("after_validation_batch", interrupt)

    def stop(event):
        if event.epoch == 1 and not came:
            came.append(signal.raise_signal(signal.SIGTERM))

    came = []
    alone = fit(trainer(*verbs(lambda e: None)), 3, validation=BATCHES)
    policy = fp.checkpoints(tmp_path / "{step}-{next_epoch}", every=9)
    cut = fit(trainer(*verbs(stop), policy), 3, validation=BATCHES)
    assert cut.stop_reason == "SIGTERM"
    whole = fit(trainer(*verbs(stop), policy), 3, validation=BATCHES, resume="latest")
    assert (
        optim.reading("learning_rate")(whole.opt_state).item() == optim.reading("learning_rate")(alone.opt_state).item()
    )
    assert whole.losses == pytest.approx(alone.losses, rel=1e-6)  # MLX's own BLAS sums as its arrays lie in memory
    assert mx.allclose(whole.params["weight"], alone.params["weight"], rtol=1e-6)


@pytest.mark.parametrize(("factor", "rate"), [(2.0, 1.0), (1.0, 0.5), (0.5, 0.25), (0.01, 0.1)])
def test_rates_are_scaled_up_and_down(factor, rate):
    state = optim.sgd(0.5).init({"w": mx.array(1.0)})
    assert optim.scale_rates(factor, least=0.1)(state)["learning_rate"].item() == pytest.approx(rate)
    with pytest.raises(ValueError, match="factor of scale_rates is a finite number above 0; got 0"):
        optim.scale_rates(0)
