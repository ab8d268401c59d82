"""Which checkpoints are written, where, and which of them stay."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import assert_same_bits, visible
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.checkpointing import _retention as retention
from mlx_fp.store import _checkpoint as checkpoint

BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 2
MODEL = nn.linear(3, 2)


def fit(*verbs, epochs=5, **options):
    target = pipe(fp.trainer(MODEL, fp.classification()), fp.with_optimizer(optim.sgd(0.1)), *verbs)
    return pipe(target, fp.fit(BATCHES, epochs=epochs, quiet=True, **options))


def watched(values):
    """A monitor whose values are given, one an epoch."""
    return fp.monitor("given", metric=lambda row: values[row.epoch])


def test_a_report_knows_the_checkpoint_of_its_best_epoch(tmp_path):
    x = mx.random.normal((32, 3), key=mx.random.key(0))
    pair = (x, x.sum(axis=1))
    worse = {"weight": mx.full((1, 3), 9.0), "bias": mx.ones((1,))}
    hook = fp.on("before_epoch", lambda e: fp.Replace(params=worse) if e.epoch == 2 else None)
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression()), fp.with_optimizer(optim.sgd(0.01)), hook, policy)
    report = fp.fit([pair] * 3, validation=[pair], epochs=3, quiet=True)(target)
    assert (report.best_epoch, report.best_checkpoint) == (1, str(tmp_path / "ep-1.safetensors"))
    assert fp.load(report.best_checkpoint).metadata["step"] == 6
    assert fp.fit([pair], quiet=True)(replace(target, policy=None, hooks=())).best_checkpoint is None


def test_the_best_within_an_epoch_is_the_only_one_that_is_written_for_being_the_best(tmp_path):
    pair = BATCHES[0]
    best = fp.monitor("given", metric=lambda row: abs(row.steps - 4))  # evaluated after 2, 4, 6, 8 and 10 steps
    for name, files in (("{step}", ["10", "2", "4"]), ("ep-{epoch}", ["ep-0", "ep-1"])):  # and at the end
        folder = tmp_path / str(len(files))
        target = pipe(
            fp.trainer(MODEL, fp.classification()), best, fp.checkpoints(folder / name, every=None, best=True)
        )
        report = fp.fit([pair] * 5, validation=[pair], validate_every=2, epochs=2, quiet=True)(target)
        assert visible(folder) == [f"{file}.safetensors" for file in files]
        assert report.best_step == fp.load(report.best_checkpoint).metadata["step"] == 4


def test_files_are_named_by_the_template_and_by_a_function(tmp_path):
    report = fit(fp.checkpoints(tmp_path / "a" / "{monitor_name}-{epoch:03}-{step}-{epoch_loss:.2f}"), epochs=2)
    assert [name.startswith(f"accuracy-00{i}-{2 * i + 2}-0.") for i, name in enumerate(visible(tmp_path / "a"))] == [
        True
    ] * 2
    assert [row.checkpoint for row in report.rows] == list(report.checkpoints)
    fit(fp.checkpoints(lambda next_epoch, improved: f"{tmp_path}/b/{next_epoch}-{improved}.npz"), epochs=1)
    assert visible(tmp_path / "b") == ["1-True.npz"]


def test_every_counts_epochs_and_best_adds_those_that_improve(tmp_path):
    fit(fp.checkpoints(tmp_path / "{epoch}", every=2))
    assert visible(tmp_path) == ["1.safetensors", "3.safetensors", "4.safetensors"]  # the last is the end
    given = watched([3.0, 4.0, 2.0, 5.0, float("nan")])
    fit(given, fp.checkpoints(tmp_path / "best" / "{epoch}", every=None, best=True))
    assert visible(tmp_path / "best") == ["0.safetensors", "2.safetensors", "4.safetensors"]


def test_retention_keeps_the_last_the_best_and_the_one_resumed_from(tmp_path):
    policy = fp.checkpoints(tmp_path / "{epoch}", best=True, keep_last=2)
    given = watched([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0])
    fit(given, policy)
    assert visible(tmp_path) == ["1.safetensors", "3.safetensors", "4.safetensors"]
    fit(given, policy, epochs=7, resume=tmp_path / "3")  # another process would find the same in the folder
    assert visible(tmp_path) == ["1.safetensors", "3.safetensors", "5.safetensors", "6.safetensors"]


def test_what_killed_runs_have_left_too_many_goes_before_the_first_file_is_written(tmp_path, monkeypatch):
    values = [5.0, 4.0, 6.0, 7.0, 8.0, 9.0]
    fit(watched(values), fp.checkpoints(tmp_path / "{epoch}"))

    def full(path, content, **options):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        fit(watched(values), fp.checkpoints(tmp_path / "{epoch}", keep_last=2), epochs=6, resume=tmp_path / "4")
    assert visible(tmp_path) == ["1.safetensors", "3.safetensors", "4.safetensors"]


def test_retention_lists_the_folder_once_and_reads_no_header_of_its_own(tmp_path, monkeypatch):
    listed, read = [], []
    monkeypatch.setattr(retention, "_matching", lambda *a: listed.append(a) or iter(tmp_path.glob("*.safetensors")))
    monkeypatch.setattr(retention, "peek", lambda path: read.append(path.stem) or checkpoint.peek(path))
    policy = fp.checkpoints(tmp_path / "{epoch}", keep_last=2)
    fit(watched([3.0, 1.0, 2.0, 4.0, 5.0, 6.0]), policy, epochs=6)
    assert (len(listed), read) == (2, [])  # before the run, and with its first file
    assert visible(tmp_path) == ["1.safetensors", "4.safetensors", "5.safetensors"]
    listed.clear()
    fit(watched([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0]), policy, epochs=8, resume="latest")
    assert len(listed) <= 4
    assert sorted(read) == ["1", "4", "5"]


def test_a_file_that_another_has_taken_the_place_of_is_not_deleted(tmp_path):
    values = [5.0, 4.0, 3.0, 2.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    other = tmp_path / "other"
    fit(watched(values), fp.checkpoints(other / "{epoch}", every=1), epochs=2)

    def replaced(event):
        if event.epoch == 6:
            os.replace(other / "1.safetensors", tmp_path / "5.safetensors")

    fit(watched(values), fp.checkpoints(tmp_path / "{epoch}", keep_last=3), fp.on("after_epoch", replaced), epochs=9)
    kept = ["3", "5", "6", "7", "8"]  # the best, the one that is of another run now, and the last three of this run
    assert visible(tmp_path) == [*(f"{name}.safetensors" for name in kept), "other"]


def test_a_best_file_that_somebody_deleted_is_not_counted(tmp_path):
    values = [2.0, 1.0, 3.0, 4.0, 5.0, 6.0]

    def without_best(event):
        if event.epoch == 2:
            (tmp_path / "1.safetensors").unlink()

    policy = fp.checkpoints(tmp_path / "{epoch}", keep_last=2, keep_best=2)
    fit(watched(values), policy, fp.on("after_checkpoint", without_best), epochs=6)
    assert visible(tmp_path) == [f"{name}.safetensors" for name in "0245"]


def test_only_folders_that_the_template_may_name_are_looked_into(tmp_path, monkeypatch):
    opened, matching = [], retention._matching
    for name in ("logs/deep/er", "run-x/state", "run-1/data"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(retention, "_matching", lambda folder, names: opened.append(folder) or matching(folder, names))
    nested = fp.checkpoints(tmp_path / "run-{epoch}" / "state" / "last")
    fit(nested, epochs=1)
    policy = nested(fp.trainer(MODEL, fp.classification())).policy
    assert retention.owned(policy) == [tmp_path / "run-0" / "state" / "last.safetensors"]
    seen = {path.relative_to(tmp_path).as_posix() for path in opened}
    assert seen == {".", "run-x", "run-1", "run-0", "run-x/state", "run-0/state"}


def test_what_killed_writers_left_half_written_goes_from_every_folder_that_a_run_writes_to(tmp_path):
    inner = tmp_path / "accuracy"
    inner.mkdir()
    left = [folder / f".{name}.safetensors.0123abcd.mlx_fp-tmp" for folder in (tmp_path, inner) for name in ("0", "9")]
    for one in left:
        one.mkdir()
    fit(fp.checkpoints(tmp_path / "{monitor_name}" / "{epoch}"), epochs=2)
    assert not any(one.exists() for one in left)


def test_retention_leaves_files_of_others_alone(tmp_path):
    fp.save(tmp_path / "weights")({"a": mx.array(1)})
    (tmp_path / "notes.safetensors").write_text("mine")
    fit(fp.checkpoints(tmp_path / "other-{epoch}", keep_last=1), watched([1.0, 2.0, 3.0, 4.0, 5.0]))
    theirs = visible(tmp_path)
    assert theirs == ["notes.safetensors", "other-0.safetensors", "other-4.safetensors", "weights.safetensors"]
    fit(fp.checkpoints(tmp_path / "{epoch}", keep_last=1), watched([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert visible(tmp_path) == ["0.safetensors", "4.safetensors", *theirs]


def test_keep_best_keeps_so_many(tmp_path):
    given = watched([3.0, 1.0, 2.0, 4.0, 5.0])
    fit(given, fp.checkpoints(tmp_path / "{epoch}", keep_last=1, keep_best=2))
    assert visible(tmp_path) == ["1.safetensors", "2.safetensors", "4.safetensors"]


def test_after_checkpoint_tells_of_it_after_all_other_hooks(tmp_path):
    told = []
    fit(
        fp.on("after_checkpoint", lambda e: told.append((e.path, e.epoch, e.step, e.improved, e.deleted))),
        fp.on("after_epoch", lambda e: told.append("hook"), priority=10**9),
        fp.checkpoints(tmp_path / "{epoch}", keep_last=1, best=True),
        watched([2.0, 3.0, 4.0]),
        epochs=3,
    )
    paths = [str(tmp_path / f"{i}.safetensors") for i in range(3)]
    first, second, third = (paths[0], 0, 2, True, ()), (paths[1], 1, 4, False, ()), (paths[2], 2, 6, False, (paths[1],))
    assert told == ["hook", first, "hook", second, "hook", third]


@pytest.mark.parametrize("background", [False, True])
def test_rows_name_no_file_that_is_deleted(tmp_path, background):
    """Epochs 0 and 1 go as later ones come; 2 is the best."""
    deleted = []
    given = watched([3.0, 2.0, 1.0, 4.0, 5.0, 6.0])
    report = fit(
        given,
        fp.checkpoints(tmp_path / "{epoch}", keep_last=2, background=background),
        fp.on("after_checkpoint", lambda e: deleted.extend(e.deleted)),
        epochs=6,
    )
    there = {str(path) for path in tmp_path.glob("*.safetensors")}
    assert [row.checkpoint and Path(row.checkpoint).stem for row in report.rows] == [None, None, "2", None, "4", "5"]
    assert {each.checkpoint for each in report.evaluations} == there | {None}
    assert set(report.checkpoints) == there
    assert report.best_checkpoint == str(tmp_path / "2.safetensors")
    assert len(deleted) == 3


def test_rows_of_a_resumed_run_name_no_file_that_is_gone(tmp_path):
    given = watched([3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0])
    policy = fp.checkpoints(tmp_path / "{epoch}", keep_last=2)
    fit(given, policy, epochs=5)
    report = fit(given, policy, epochs=6, resume="latest")
    named = [row.checkpoint and Path(row.checkpoint).stem for row in report.rows]
    assert named == [None, None, "2", None, "4", "5"]
    (tmp_path / "2.safetensors").unlink()
    assert fit(given, policy, epochs=7, resume="latest").rows[2].checkpoint is None


def test_a_hook_may_ask_for_a_checkpoint(tmp_path):
    ask = fp.on("after_step", lambda e: fp.Save() if e.step == 2 else None)
    fit(ask, fp.checkpoints(tmp_path / "{step}", every=100))
    assert visible(tmp_path) == ["10.safetensors", "3.safetensors"]  # and the end
    assert fp.load(tmp_path / "3").metadata["cursor"] == {"epoch": 1, "index": 1}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a/{epohc}", "unknown field 'epohc': did you mean 'epoch'"),
        ("a/{epoch.__class__}", "unknown field 'epoch.__class__'"),
        ("a/{epoch[0]}", r"unknown field 'epoch\[0\]'"),
        ("a/{}", "unknown field ''"),
        ("a/{epoch:999999999}", "too wide"),
        ("a/{monitor:.{step}f}", "too wide, or contains other fields"),
        ("", "is a text"),
        ("a/ep-{epoch}.bin", r"ends in .safetensors or .npz; got 'ep-1.bin'"),
        (
            lambda epoch: f"a/{epoch}.pt",
            r"the function '<lambda>' gives the path of a checkpoint: .*; it gave 'a/1.pt'",
        ),
    ],
)
def test_a_bad_template_is_refused_when_it_is_given(path, words):
    with pytest.raises(ValueError, match=words):
        fp.checkpoints(path)


def test_bad_options_are_refused_when_they_are_given(tmp_path):
    for options in ({"every": 0}, {"keep_last": 0}, {"keep_last": True}, {"every_steps": 1.5}, {"every": None}):
        with pytest.raises(ValueError, match="count|no option requests"):
            fp.checkpoints(tmp_path / "{epoch}", **options)
    with pytest.raises(ValueError, match=r"names one: put {epoch} or {step} in"):
        fp.checkpoints(tmp_path / "model", keep_last=2)
    with pytest.raises(TypeError, match="requires 'loss'"):
        fp.checkpoints(lambda loss: "a")
    with pytest.raises(TypeError, match="it gave 3"):
        fp.checkpoints(lambda: 3)


def test_a_path_function_that_comes_to_another_suffix_is_named(tmp_path):
    late = fp.checkpoints(lambda epoch: f"{tmp_path}/{epoch}" + (".bin" if epoch == 2 else ""))
    with pytest.raises(ValueError, match=r"the function '<lambda>' gives .* ends in .safetensors or .npz; it gave"):
        fit(late)
    assert visible(tmp_path) == ["0.safetensors", "1.safetensors"]


def test_paths_that_begin_with_a_tilde_are_in_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = fit(fp.checkpoints("~/a/{epoch}", keep_last=1), epochs=2)
    assert report.checkpoints[-1] == str(tmp_path / "a" / "1.safetensors")
    assert fit(fp.checkpoints(lambda epoch: f"~/b/{epoch}"), epochs=1).checkpoints == (
        str(tmp_path / "b/0.safetensors"),
    )
    fp.save_bundle("~/a/run.json", checkpoint="~/a/1.safetensors")(report)
    for source in ("~/a/1", "~/a/1.safetensors", "~/a/run.json", "latest"):
        again = fit(fp.checkpoints("~/a/{epoch}"), resume=source, epochs=2)
        assert (again.start_epoch, again.resume_from) == (2, str(tmp_path / "a" / "1.safetensors"))
    assert visible(tmp_path / "elsewhere") == []


def test_no_file_leaves_the_folder(tmp_path):
    where = ["a/1", "a/2"]
    policy = fp.checkpoints(lambda: f"{tmp_path}/{where[0]}")
    where[0] = "../elsewhere"
    with pytest.raises(ValueError, match="is outside of"):
        fit(policy)
    assert not (tmp_path.parent / "elsewhere.safetensors").exists()
    escape = fp.monitor("../../x", metric=lambda row: 1.0)
    fit(escape, fp.checkpoints(tmp_path / "{monitor_name}-{epoch}"), epochs=1)
    assert visible(tmp_path) == [".._.._x-0.safetensors"] or visible(tmp_path) == []


def test_what_is_not_finite_is_not_written(tmp_path, caplog):
    spoil = fp.on("after_step", lambda e: fp.Replace(params={"weight": mx.full((2, 3), mx.nan), "bias": mx.zeros(2)}))
    fit(spoil, fp.checkpoints(tmp_path / "{epoch}"), nonfinite="keep", epochs=1)
    assert visible(tmp_path) == []
    assert "not finite after step 2: no checkpoint is made of that" in caplog.text
    late = fp.on("after_epoch", lambda e: fp.Replace(params={"weight": mx.full((2, 3), mx.nan), "bias": mx.zeros(2)}))
    with pytest.raises(FloatingPointError, match="not finite after step 2"):
        fit(late, fp.checkpoints(tmp_path / "{epoch}"))
    assert visible(tmp_path) == []


def test_a_second_run_in_the_folder_fails_at_its_start_and_says_who_holds_it(tmp_path):
    policy, tried = fp.checkpoints(tmp_path / "{epoch}"), []

    def other(event):
        with pytest.raises(BlockingIOError, match=f"another run writes here: process {os.getpid()} on"):
            fit(policy)
        tried.append(True)

    fit(policy, fp.on("after_epoch", other, once=True))
    fit(policy)
    assert tried == [True]


def test_the_lock_of_a_killed_run_does_not_stay(tmp_path):
    code = f"""
import os
from pathlib import Path
from mlx_fp.store._folder_lock import Lock
Lock(Path({str(tmp_path)!r})).take()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    (tmp_path / ".0.safetensors.abc.mlx_fp-tmp").write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"mine")
    fit(fp.checkpoints(tmp_path / "{epoch}"), epochs=1)
    assert visible(tmp_path) == ["0.safetensors"]
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".mine.tmp", ".mlx_fp.lock"]


def test_a_write_that_fails_keeps_the_checkpoint_before_and_the_report_the_parameters(tmp_path, monkeypatch):
    reports = []
    fit(fp.checkpoints(tmp_path / "{epoch}"), epochs=1)
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left on device") as caught:
        fit(
            fp.checkpoints(tmp_path / "{epoch}"),
            fp.on("after_fit", lambda e: reports.append(e.report)),
            resume="latest",
        )
    assert caught.value.filename == str(tmp_path / "1.safetensors")
    assert visible(tmp_path) == ["0.safetensors"]
    assert set(reports[0].params) == {"weight", "bias"}
    assert "No space left" in reports[0].stop_reason


def test_files_have_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        fit(fp.checkpoints(tmp_path / "{epoch}"), epochs=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "0.safetensors").stat().st_mode) == 0o640


def gated(monkeypatch, full=False):
    """Let checkpoints be written only while a gate is open; returns the gate and what was begun."""
    gate, begun, write = threading.Event(), [], checkpoint.write_whole

    def slow(path, content, **options):
        begun.append(path.name)
        assert gate.wait(60)
        if full:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content, **options)

    monkeypatch.setattr(checkpoint, "write_whole", slow)
    return gate, begun


def test_a_background_save_lets_training_go_on_and_fit_waits_for_the_last(tmp_path, monkeypatch):
    gate, begun = gated(monkeypatch)
    seen, told = [], []

    def watch(event):
        seen.append((event.step, list(begun), visible(tmp_path) if tmp_path.exists() else []))
        if event.step == 3:
            gate.set()

    report = fit(
        fp.on("after_step", watch),
        fp.on("after_checkpoint", lambda e: told.append((e.epoch, visible(tmp_path)))),
        fp.checkpoints(tmp_path / "{epoch}", background=True),
        epochs=3,
    )
    assert seen[3] == (3, ["0.safetensors"], [])  # two steps further, and still not on disk
    assert visible(tmp_path) == [f"{i}.safetensors" for i in range(3)]
    assert [epoch for epoch, _ in told] == [0, 1, 2]
    assert all(f"{epoch}.safetensors" in there for epoch, there in told)
    assert len(report.checkpoints) == 3


def test_a_background_save_is_of_the_bytes_of_its_moment(tmp_path, monkeypatch):
    gate, _ = gated(monkeypatch)
    moments = {}

    def keep(event):
        moments[event.epoch] = event.state.params
        if event.epoch == 1:
            gate.set()

    fit(fp.on("after_epoch", keep), fp.checkpoints(tmp_path / "{epoch}", background=True), epochs=3)
    for epoch, params in moments.items():
        saved = fp.load(tmp_path / str(epoch)).params
        assert_same_bits(saved, params)


def test_a_background_save_that_fails_surfaces_with_its_own_class(tmp_path, monkeypatch):
    def full(path, content, **options):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write_whole", full)
    steps = []
    with pytest.raises(OSError, match="No space left") as caught:
        fit(fp.on("after_step", lambda e: steps.append(e.step)), fp.checkpoints(tmp_path / "{epoch}", background=True))
    assert caught.value.errno == 28
    assert len(steps) <= 4
    with pytest.raises(OSError, match="No space left"):
        fit(fp.checkpoints(tmp_path / "{epoch}", background=True), epochs=1)  # the last one, at the end of the run


FULL = "a checkpoint could not be written, too: OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_background_save_that_fails_is_a_note_where_another_error_ends_the_run(error, tmp_path, monkeypatch, caplog):
    gate, begun = gated(monkeypatch, full=True)

    def broken(event):
        assert begun
        gate.set()
        raise error

    after = fp.on("before_step", broken, when=lambda event: event.step == 2)
    with pytest.raises(type(error)) as caught:
        fit(after, fp.checkpoints(tmp_path / "{epoch}", background=True))
    assert any(note.startswith(FULL) for note in caught.value.__notes__)
    assert (FULL in caplog.text) == isinstance(error, SystemExit)  # nobody reads the notes of that


def test_a_background_save_that_fails_is_in_the_log_where_the_stream_is_closed(tmp_path, monkeypatch, caplog):
    gate, _ = gated(monkeypatch, full=True)
    target = pipe(fp.trainer(MODEL, fp.classification()), fp.checkpoints(tmp_path / "{epoch}", background=True))
    stream = pipe(target, fp.events(BATCHES, only=("before_step",), epochs=2))
    assert [next(stream).step for _ in range(3)] == [0, 1, 2]
    gate.set()
    stream.close()
    assert FULL in caplog.text


def test_background_saves_leave_no_threads(tmp_path):
    before = threading.active_count()
    for _ in range(3):
        fit(fp.checkpoints(tmp_path / "{step}", every_steps=1, background=True, keep_last=2))
    assert threading.active_count() == before
    assert len(visible(tmp_path)) <= 3


def test_a_run_with_background_saves_resumes_to_the_same_bits(tmp_path):
    alone = fit()
    fit(fp.checkpoints(tmp_path / "{step}", every_steps=3, background=True), epochs=2)
    again = fit(resume=tmp_path / "3")
    assert_same_bits(again.params, alone.params)
    assert again.losses == alone.losses


def test_validate_after_an_epoch_is_done_at_once():
    told = []
    fit(
        fp.on("after_epoch", lambda e: fp.Validate() if e.epoch == 1 else None),
        fp.on("after_validation", lambda e: told.append(e.epoch)),
        epochs=2,
        validation=BATCHES,
    )
    assert told == [0, 1, 1]
