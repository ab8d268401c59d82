"""The file that always holds the newest state: a second name of the newest checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import assert_same_run, bits, visible
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core import _files as files

BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 2


def fit(path, *verbs, epochs=3, resume=None, **options):
    """Epochs of two steps under a policy with a latest file."""
    policy = fp.checkpoints(path, **{"latest": True, **options})
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.with_optimizer(optim.adam(0.1)), policy, *verbs)
    return pipe(target, fp.fit(BATCHES, epochs=epochs, quiet=True, resume=resume))


def step_of(path):
    return fp.load(path).metadata["step"]


@pytest.fixture(params=["links", "copies"])
def system(request, monkeypatch):
    """A file system with second names, and one without."""

    def refused(*args, **options):
        raise PermissionError(1, "Operation not permitted")

    if request.param == "copies":
        monkeypatch.setattr(os, "link", refused)
    return request.param


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("suffix", ["", ".npz"])
def test_the_latest_file_holds_the_newest_checkpoint_when_hooks_hear_of_it(tmp_path, suffix, background):
    seen = []
    look = fp.on("after_checkpoint", lambda e: seen.append((e.step, step_of(tmp_path / "latest"))))
    report = fit(tmp_path / ("{epoch}" + suffix), look, keep_last=1, background=background)
    assert [step for step, _ in seen] == [2, 4, 6]
    assert all(held >= step for step, held in seen)  # a thread may be ahead of the hooks
    kind = suffix or ".safetensors"
    assert {f"2{kind}", f"latest{kind}"} <= set(visible(tmp_path))
    assert bits(fp.load(tmp_path / "latest").params) == bits(report.params)
    assert f"{tmp_path}/latest{kind}" == report.policy["latest"]
    assert not [name for name in report.checkpoints if os.path.basename(name).startswith("latest")]


@pytest.mark.skipif(os.name == "nt", reason="inodes")
def test_the_latest_file_takes_no_room_of_its_own(tmp_path):
    fit(tmp_path / "{epoch}")
    assert (tmp_path / "latest.safetensors").samefile(tmp_path / "2.safetensors")


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("template", ["{epoch}", "{monitor_name}-{epoch}", "{epoch}/model"])
def test_the_latest_file_is_no_checkpoint_more_for_retention(tmp_path, template):
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    given = fp.monitor("given", metric=lambda row: values[row.epoch])
    fit(tmp_path / template, given, keep_last=2, epochs=5)
    there = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors"))
    kept = [template.format(epoch=epoch, monitor_name="given") + ".safetensors" for epoch in (0, 3, 4)]
    assert there == sorted([*kept, "latest.safetensors"])


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("source", ["latest", "path", "loaded"])
@pytest.mark.usual("links-path")
def test_a_run_that_goes_on_from_it_is_the_same_run_and_goes_on_from_its_newest_file(tmp_path, source):
    alone = fit(tmp_path / "alone" / "{epoch}", epochs=5)
    here, path = tmp_path / "here", tmp_path / "here" / "latest"
    fit(here / "{epoch}", epochs=3)
    resume = {"latest": "latest", "path": path, "loaded": fp.load(path)}[source]
    again = fit(here / "{epoch}", epochs=5, resume=resume)
    assert_same_run(again, alone)
    assert again.resume_from == str(here / "2.safetensors")
    assert len({fp.load(file).metadata["run"] for file in here.glob("*.safetensors")}) == 1
    assert step_of(path) == 10


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("template", ["{epoch}", "{monitor_name}-{epoch}"])
@pytest.mark.usual("copies-{epoch}")
def test_it_stands_in_for_the_newest_file_where_that_is_gone(tmp_path, template):
    alone = fit(tmp_path / "alone" / template, epochs=5)
    here = tmp_path / "here"
    last = fit(here / template, epochs=3).checkpoints[-1]
    os.unlink(last)
    again = fit(here / template, epochs=5, resume="latest")
    assert_same_run(again, alone)
    assert again.resume_from == str(here / "latest.safetensors")
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(here / "latest.safetensors", new)  # alone on another machine
    assert fit(new / template, epochs=5, resume="best").start_epoch == 5


@pytest.mark.usefixtures("system")
def test_a_damaged_one_that_is_alone_is_an_error_and_never_a_start_from_nothing(tmp_path):
    fit(tmp_path / "{epoch}", epochs=1)
    (tmp_path / "0.safetensors").unlink()
    path = tmp_path / "latest.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no latest checkpoint in .* can be read: latest.safetensors"):
        fit(tmp_path / "{epoch}", resume="latest")


def test_a_damaged_newest_file_is_told_of_once(tmp_path, caplog):
    fit(tmp_path / "{epoch}", epochs=2)
    path = tmp_path / "1.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:  # in place: under both names
        file.write(content)
    report = fit(tmp_path / "{epoch}", resume="latest")
    assert report.resume_from == str(tmp_path / "0.safetensors")
    assert caplog.text.count("it is damaged") == 1
    assert step_of(tmp_path / "latest") == 6


def test_that_of_another_policy_in_the_folder_is_not_taken_for_ones_own(tmp_path, caplog):
    fit(tmp_path / "a-{epoch}")
    assert fit(tmp_path / "b-{epoch}", resume="latest", epochs=1).start_epoch == 0
    assert "there is no checkpoint in" in caplog.text


def test_a_run_that_was_killed_before_it_was_replaced_replaces_it_as_it_goes_on(tmp_path, monkeypatch):
    def cut(path, new):
        raise KeyboardInterrupt

    fit(tmp_path / "{epoch}", epochs=1)
    monkeypatch.setattr("mlx_fp.checkpointing._writer.link_or_copy", cut)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "{epoch}", epochs=2, resume="latest")
    assert (step_of(tmp_path / "latest"), step_of(tmp_path / "1")) == (2, 4)
    monkeypatch.setattr("mlx_fp.checkpointing._writer.link_or_copy", files.link_or_copy)
    report = fit(tmp_path / "{epoch}", epochs=2, resume="latest")
    assert (report.start_epoch, step_of(tmp_path / "latest")) == (2, 4)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_it_is_a_file_where_the_newest_is_a_link_from_elsewhere(tmp_path):
    last = Path(fit(tmp_path / "a" / "{epoch}" / "model").checkpoints[-1])
    last.rename(tmp_path / "blob.safetensors")
    last.symlink_to("../../blob.safetensors")
    latest = tmp_path / "a" / "latest.safetensors"
    latest.unlink()
    fit(tmp_path / "a" / "{epoch}" / "model", resume="latest")
    assert (step_of(latest), latest.is_symlink()) == (6, False)


def test_a_path_of_the_same_name_or_of_two_suffixes_is_refused_when_it_is_given(tmp_path):
    for path in (
        tmp_path / "latest",
        tmp_path / "latest.safetensors",
        lambda epoch: f"a/{epoch}.{'npz' * (epoch > 2)}",
    ):
        with pytest.raises(ValueError, match=r"latest=True keeps the newest state in .* must have another name"):
            fp.checkpoints(path, latest=True)
    fp.checkpoints(tmp_path / "latest")


@pytest.mark.parametrize("name", ["latest", "best", "background", "trainable_only", "bundle"])
def test_flags_are_flags(name):
    with pytest.raises(TypeError, match=f"{name} of checkpoints is True or False; got 'no'"):
        fp.checkpoints("a/{epoch}", **{name: "no"})
