"""The run bundle that the policy of a trainer writes at the end of a run."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import assert_same_run
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.checkpointing import _writer as writer
from mlx_fp.store._checkpoint import prepare_save

BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 2


def fit(path, *verbs, epochs=2, resume=None, **options):
    policy = fp.checkpoints(path, **{"bundle": True, **options})
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.with_optimizer(optim.adam(0.1)), policy, *verbs)
    return pipe(target, fp.fit(BATCHES, epochs=epochs, quiet=True, resume=resume))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.usual("True")
def test_the_bundle_is_there_before_hooks_hear_of_the_end(tmp_path, background):
    seen = []
    look = fp.on("after_fit", lambda e: seen.append((fp.read_bundle(e.report.policy["bundle"]), e.report.to_dict())))
    report = fit(tmp_path / "{epoch}", look, user={"note": "first"}, keep_last=1, background=background)
    ((bundle, told),) = seen
    assert report.policy["bundle"] == str(tmp_path / "bundle.json")
    assert bundle["report"] == told == report.to_dict()
    assert (bundle["checkpoint"]["path"], bundle["user"]) == ("1.safetensors", {"note": "first"})


def test_a_run_goes_on_from_its_bundle_and_writes_it_again(tmp_path):
    alone = fit(tmp_path / "alone" / "{epoch}", epochs=4)
    fit(tmp_path / "a" / "{epoch}")
    again = fit(tmp_path / "a" / "{epoch}", epochs=4, resume=tmp_path / "a" / "bundle.json")
    assert_same_run(again, alone)
    assert fp.read_bundle(tmp_path / "a" / "bundle.json")["checkpoint"]["path"] == "3.safetensors"
    fit(tmp_path / "a" / "{epoch}", epochs=4, resume="latest")  # it is finished, and writes nothing else
    assert fp.read_bundle(tmp_path / "a" / "bundle.json")["checkpoint"]["path"] == "3.safetensors"


@pytest.mark.parametrize("background", [False, True])
def test_a_run_that_an_error_ends_leaves_one_that_says_so(tmp_path, background):
    with pytest.raises(KeyError):
        fit(tmp_path / "{epoch}", fp.on("after_epoch", lambda e: {0: None}[e.epoch]), epochs=3, background=background)
    bundle = fp.read_bundle(tmp_path / "bundle.json")
    assert (bundle["report"]["stop_reason"], bundle["report"]["stopped_early"]) == ("KeyError: 1", True)
    assert bundle["checkpoint"]["path"] == "0.safetensors"


def test_a_run_that_an_error_ends_as_a_thread_writes_names_the_file_that_is_written(tmp_path, monkeypatch):
    raising = threading.Event()

    def slowly(path, *args, **options):
        write = prepare_save(path, *args, **options)

        def late():
            if path.stem == "1":
                raising.wait(10)
                time.sleep(0.1)
            return write()

        return late

    def fail(event):
        if event.step == 4:
            raising.set()
            raise KeyError("fails")

    monkeypatch.setattr(writer, "prepare_save", slowly)
    with pytest.raises(KeyError):
        fit(tmp_path / "{epoch}", fp.on("after_step", fail), epochs=3, background=True, keep_last=1)
    assert fp.read_bundle(tmp_path / "bundle.json")["checkpoint"]["path"] == "1.safetensors"


def test_a_checkpoint_that_somebody_has_deleted_is_not_named(tmp_path):
    first = fit(tmp_path / "{epoch}")
    gone = fp.on("before_fit", lambda e: Path(first.checkpoints[-1]).unlink())
    fit(tmp_path / "{epoch}", gone, resume="latest")
    assert fp.read_bundle(tmp_path / "bundle.json")["checkpoint"] is None


def test_a_run_without_a_checkpoint_has_a_bundle_without_one(tmp_path):
    spoil = fp.on("after_step", lambda e: fp.Replace(params={"weight": mx.full((2, 3), mx.nan), "bias": mx.zeros(2)}))
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), spoil, fp.checkpoints(tmp_path / "a", bundle=True))
    fp.fit(BATCHES, nonfinite="keep", quiet=True)(target)
    assert fp.read_bundle(tmp_path / "bundle.json")["checkpoint"] is None


def test_one_that_cannot_be_written_is_an_error_and_hooks_hear_of_the_end(tmp_path):
    (tmp_path / "bundle.json").mkdir()
    seen = []
    with pytest.raises(OSError, match="bundle.json") as raised:
        fit(tmp_path / "{epoch}", fp.on("after_fit", lambda e: seen.append(e.report.epochs_completed)))
    assert (raised.value.errno, seen) == (errno.EISDIR, [2])
    assert fp.load(tmp_path / "1").metadata["step"] == 4
    assert fit(tmp_path / "{epoch}", bundle=False, resume="latest").start_epoch == 2


def test_one_that_cannot_be_written_after_an_error_is_a_note_of_that(tmp_path, monkeypatch):
    def full(path, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writer, "save_bundle", full)
    with pytest.raises(KeyError) as raised:
        fit(tmp_path / "{epoch}", fp.on("after_epoch", lambda e: {}[e.epoch]))
    assert any("after_fit failed, too: OSError: " in note for note in raised.value.__notes__)


def test_without_the_option_there_is_none(tmp_path):
    report = fit(tmp_path / "{epoch}", bundle=False)
    assert (report.policy["bundle"], list(tmp_path.glob("*.json"))) == (None, [])


def test_trials_have_bundles_of_their_own(tmp_path):
    target = fp.experiment(
        "e",
        model=nn.linear(3, 2),
        task=fp.classification(),
        data=BATCHES,
        artifacts=fp.checkpoints(str(tmp_path / "{epoch}"), bundle=True, latest=True),
    )
    found = fp.sweep({"seed": [1, 2]}, quiet=True)(target)
    seeds = [trial.report.setup.options["seed"] for trial in found.trials]
    assert seeds == [1, 2]
    for trial in found.trials:
        path = Path(trial.report.policy["bundle"])
        assert fp.read_bundle(path)["report"]["setup"]["options"]["seed"] == trial.report.setup.options["seed"]
        assert fp.load(path.parent / "latest").metadata["seed"] == trial.report.setup.options["seed"]
    assert len(list(tmp_path.rglob("bundle.json"))) == 2


# the values of a user


USER = {"note": "first", "rates": [0.1, float("inf")], "deep": {"none": None, "flag": True, "pair": (1, 2)}}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.usual("True-.safetensors")
def test_each_file_gives_back_the_values_of_the_user(tmp_path, suffix, background):
    fit(tmp_path / ("{epoch}" + suffix), user=USER, background=background, latest=True)
    assert [fp.load(tmp_path / name).metadata["user"] for name in ("0", "1", "latest")] == [USER] * 3
    fit(tmp_path / ("{epoch}" + suffix), user={"note": "second"}, epochs=3, resume="latest")
    assert fp.load(tmp_path / "2").metadata["user"] == {"note": "second"}
    fit(tmp_path / "none" / "{epoch}")
    assert fp.load(tmp_path / "none" / "1").metadata["user"] is None


def test_the_policy_has_copies_of_the_values_and_the_report_says_them(tmp_path):
    user = {"tags": ["a"], "deep": {"n": 1}}
    verb = fp.checkpoints(tmp_path / "{epoch}", user=user)
    user["tags"].append("b")
    user["deep"]["n"] = 2
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), verb)
    report = fp.fit(BATCHES, quiet=True)(target)
    assert fp.load(report.checkpoints[0]).metadata["user"] == {"tags": ["a"], "deep": {"n": 1}}
    assert report.policy["user"] == {"tags": ["a"], "deep": {"n": 1}}


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"a": {"b": [1, print]}}, r"user\.a\.b\.1 is builtin_function_or_method; give a number, a text, None"),
        ({"a": mx.array(1)}, r"user\.a is array"),
        ({"a": {1: 2}}, r"a key of user\.a is 1; keys are texts"),
        ({"a": Path("b")}, r"user\.a is .*Path"),
        (["a"], "user is a dict of plain values for each file"),
    ],
)
def test_values_that_are_not_plain_are_refused_when_they_are_given(user, words):
    with pytest.raises(TypeError, match=words):
        fp.checkpoints("a/{epoch}", user=user)
