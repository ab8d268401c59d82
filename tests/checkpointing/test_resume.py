"""A run that is cut anywhere and resumed ends with the bits, rows and losses of one left alone."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from helpers import assert_same_bits, assert_same_run, bits, child_env, fail_read, run_python
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store._folder_lock import Lock

X = mx.random.normal((40, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(16))  # batches of 16, 16 and 8
HELD = pipe(data.arrays(x=X[:20], y=Y[:20]), data.batch(8))
MODEL = nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))
OPTIMIZER = pipe(optim.adamw(optim.cosine_decay(1e-2, 20)), optim.clip_norm(1.0), optim.ema(0.9))
EPOCHS = 3


def count(memory, event):
    return {"steps": memory["steps"] + 1, "sum": memory["sum"] + event.loss}, None


def trainer(*verbs):
    return pipe(
        fp.trainer(MODEL, fp.classification()),
        fp.with_optimizer(OPTIMIZER),
        fp.monitor("val_loss", min_delta=1e-3),
        fp.early_stop(5),
        fp.with_hooks(fp.fold("after_step", {"steps": 0, "sum": mx.array(0.0)}, count)),
        *verbs,
    )


def fit(target, **options):
    return pipe(target, fp.fit(TRAIN, validation=HELD, epochs=EPOCHS, seed=9, quiet=True, **options))


@pytest.fixture(scope="module")
def alone():
    """A run left alone, without checkpoints."""
    return fit(trainer())


@pytest.mark.slow
def test_saving_changes_nothing(alone, tmp_path):
    assert_same_run(fit(trainer(fp.checkpoints(tmp_path / "s-{step}", every_steps=1))), alone)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 9), ({"accumulate": 2}, 6), ({"validate_every": 2}, 9), ({"accumulate": 2, "validate_every": 2}, 6)],
    ids=["plain", "accumulate", "validate_every", "both"],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.usual(".safetensors-plain")
def test_from_every_step_and_epoch_a_run_goes_on_to_the_same_end(alone, tmp_path, suffix, options, steps):
    whole = fit(trainer(), **options) if options else alone
    assert whole.rows[-1].steps == steps
    fit(trainer(fp.checkpoints(tmp_path / ("s-{step}-{next_epoch}" + suffix), every_steps=1)), **options)
    files = sorted(tmp_path.glob(f"*{suffix}"))
    assert len(files) == steps + 3  # every step, and every end of an epoch
    for file in files:
        assert_same_run(fit(trainer(), resume=file, **options), whole)


def test_the_clock_of_a_resumed_epoch_counts_only_what_this_process_did(tmp_path):
    fit(trainer(fp.checkpoints(tmp_path / "s-{step}", every_steps=1)))
    row = fit(trainer(), resume=tmp_path / "s-5").rows[1]
    left = 40 - 2 * 16
    assert (row.timed, row.examples_per_second) == (left, left / row.seconds)


def test_hook_memory_counts_and_schedule_go_on(tmp_path):
    seen = []

    def keep(memory, event):
        seen.append((memory, event.step))
        return memory + 1, None

    hooks = fp.with_hooks(fp.fold("after_step", 0, keep, every=2))
    once = fp.on("after_step", lambda e: seen.append("once"), once=True)
    target = trainer(hooks, once, fp.checkpoints(tmp_path / "s-{step}", every_steps=4, every=None))
    fit(target)
    whole, seen[:] = list(seen), []
    fit(target, resume=tmp_path / "s-4")
    assert seen == [entry for entry in whole if entry != "once" and entry[1] >= 4]


def test_an_interrupt_saves_within_the_epoch_and_the_next_process_goes_on(alone, tmp_path):
    cut = fp.on("after_step", lambda e: signal.raise_signal(signal.SIGTERM) if e.step == 4 else None)
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    report = fit(trainer(cut, policy))
    assert report.stop_reason == "SIGTERM"
    again = fit(trainer(policy), resume="latest")
    assert again.resume_from == str(tmp_path / "ep-1.safetensors")
    assert (again.start_epoch, again.resumed_from_epoch, again.epochs_ran) == (1, 1, 2)
    assert_same_run(again, alone)


def test_a_finished_run_resumed_does_nothing_more(alone, tmp_path):
    target = trainer(fp.checkpoints(tmp_path / "ep-{epoch}"))
    fit(target)
    again = fit(target, resume="latest")
    assert again.epochs_ran == 0
    assert_same_run(again, alone)


def test_more_epochs_go_on_from_the_last(tmp_path):
    target = trainer(fp.checkpoints(tmp_path / "ep-{epoch}"))
    short = pipe(target, fp.fit(TRAIN, validation=HELD, epochs=2, seed=9, quiet=True))
    whole = fit(target, resume="latest")
    assert short.epochs_completed == 2
    assert_same_run(whole, fit(trainer()))


def saving(folder):
    """A trainer that saves each epoch in a folder."""
    return trainer(fp.checkpoints(folder / "ep-{epoch}", best=True))


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The folder of a run that has ended after two of three epochs, with a bundle of its last file."""
    folder = tmp_path_factory.mktemp("half")
    first = pipe(saving(folder), fp.fit(TRAIN, validation=HELD, epochs=2, seed=9, quiet=True))
    assert first.checkpoints == (str(folder / "ep-0.safetensors"), str(folder / "ep-1.safetensors"))
    fp.save_bundle(folder / "run.json", checkpoint=first.checkpoints[-1])(first)
    return folder


def latest_for_both(trainer, monitor):
    return "latest" if monitor == "val_loss" and trainer.policy else None


SOURCES = {
    "path": lambda last: str(last),
    "Path": lambda last: last,
    "without suffix": lambda last: str(last.with_suffix("")),
    "latest": lambda last: "latest",
    "checkpoint": fp.load,
    "bundle path": lambda last: last.with_name("run.json"),
    "function": lambda last: lambda: str(last),
    "function of both": lambda last: latest_for_both,
    "function of nothing to resume": lambda last: lambda: None,
    "nothing": lambda last: None,
}
"""What `resume=` takes, made for the last file of a run."""


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_restores_everything(name, alone, half, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(half, folder)
    last = folder / "ep-1.safetensors"
    again = fit(saving(folder), resume=SOURCES[name](last))
    resumed = "nothing" not in name
    assert (again.start_epoch, again.epochs_ran) == ((2, 1) if resumed else (0, 3))
    assert again.resume_from == (str(last) if resumed else None)
    assert_same_run(again, alone)


def test_best_is_found_in_the_folder_by_another_process(tmp_path):
    policy = fp.checkpoints(tmp_path / "ep-{epoch}", best=True, keep_last=1)
    report = fit(trainer(policy))
    best = tmp_path / f"ep-{report.best_epoch}.safetensors"
    assert best.exists()
    assert fit(trainer(policy), resume="best").resume_from == str(best)


def test_a_file_without_a_header_is_warned_of_though_it_is_as_old_as_the_one_that_is_used(tmp_path, caplog):
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    (tmp_path / "ep-2.safetensors").write_bytes(b"\0" * 100)
    for path in tmp_path.glob("ep-*"):
        os.utime(path, ns=(10**18, 10**18))
    report = fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")), resume="latest")
    assert report.resume_from == str(tmp_path / "ep-1.safetensors")
    assert "ep-2.safetensors is no checkpoint" in caplog.text


def test_a_damaged_newest_file_is_passed_over_with_a_warning_and_all_damaged_is_an_error(tmp_path, caplog):
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    fit(trainer(policy))
    newest = tmp_path / "ep-2.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert fit(trainer(policy), resume="latest").resume_from == str(tmp_path / "ep-1.safetensors")
    assert caplog.text.count("ep-2.safetensors") == 1
    newest.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ep-2.safetensors.*damaged"):
        fit(trainer(policy), resume=newest)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="no latest checkpoint in .* can be read"):
        fit(trainer(policy), resume="latest")


def test_where_no_evaluation_has_judged_a_file_there_is_no_best_yet_and_the_error_names_the_way_on(tmp_path):
    cut = fp.on("after_step", lambda e: fp.Stop("enough", final=False) if e.step == 1 else None)
    policy = fp.checkpoints(tmp_path / "s-{step}", every_steps=1)
    fit(trainer(cut, policy))
    assert [path.stem for path in tmp_path.glob("*.safetensors")] != []
    words = r"no best checkpoint in .* yet: .*resume='latest' resumes from the newest, .*s-2\.safetensors"
    with pytest.raises(CheckpointError, match=words):
        fit(trainer(policy), resume="best")
    assert fit(trainer(policy), resume="latest").epochs_completed == EPOCHS
    assert fit(trainer(policy), resume="best").resume_from is not None


def test_a_new_run_without_an_evaluation_does_not_go_on_from_the_best_of_an_old_one(tmp_path):
    policy = fp.checkpoints(tmp_path / "s-{step}", every_steps=1)
    fit(trainer(policy))
    cut = fp.on("after_step", lambda e: fp.Stop("enough", final=False) if e.step == 1 else None)
    fit(trainer(cut, policy))
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        fit(trainer(policy), resume="best")


def test_nothing_there_yet_starts_anew_for_latest_and_is_an_error_for_a_path(alone, tmp_path, caplog):
    assert_same_run(fit(trainer(fp.checkpoints(tmp_path / "a" / "ep-{epoch}")), resume="latest"), alone)
    assert "the run starts anew" in caplog.text
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        fit(trainer(), resume=tmp_path / "none")
    with pytest.raises(ValueError, match="needs a trainer with checkpoints"):
        fit(trainer(), resume="latest")


def test_another_architecture_is_listed_side_by_side(tmp_path):
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    other = pipe(trainer(), lambda t: dataclasses.replace(t, model=nn.sequential(nn.linear(4, 9), nn.linear(9, 2))))
    with pytest.raises(CheckpointError, match=r"layers.0.weight: here .*\(9, 4\), there .*\(8, 4\)"):
        fit(other, resume=tmp_path / "ep-0")
    sgd = fp.with_optimizer(optim.sgd(0.1))(trainer())
    with pytest.raises(CheckpointError, match="other optimiser state"):
        fit(sgd, resume=tmp_path / "ep-0")


def test_another_monitor_is_an_error_before_training(tmp_path):
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    with pytest.raises(CheckpointError, match=r"watches val_loss \(min\), and this run val_accuracy \(max\)"):
        fit(trainer(fp.monitor("val_accuracy", mode="max")), resume=tmp_path / "ep-0")


def test_a_file_of_other_versions_goes_on_with_one_warning(alone, tmp_path, caplog, monkeypatch):
    from mlx_fp.loop import _record as snapshot

    here = snapshot.environment()
    monkeypatch.setattr(snapshot, "environment", lambda: {**here, "mlx": "0.0.1"})
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    monkeypatch.undo()
    assert_same_run(fit(trainer(), resume=tmp_path / "ep-1"), alone)
    assert len(caplog.records) == 1
    assert f"goes on inexactly, so that bits may differ: mlx was 0.0.1, is {here['mlx']}" in caplog.text


@pytest.mark.parametrize("name", ["processor", "kernels"])
@pytest.mark.usual("kernels")
def test_a_file_of_another_processor_or_other_kernels_says_that_bits_may_differ(name, tmp_path, caplog, monkeypatch):
    from mlx_fp.loop import _record as snapshot

    here = snapshot.environment()
    assert name in here
    monkeypatch.setattr(snapshot, "environment", lambda: {**here, name: "others"})
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    monkeypatch.undo()
    fit(trainer(), resume=tmp_path / "ep-1")
    assert f"so that bits may differ: {name} was others, is {here[name] or 'none'}" in caplog.text
    monkeypatch.setattr(snapshot, "environment", lambda: {key: here[key] for key in here if key != name})
    fit(trainer(fp.checkpoints(tmp_path / "old" / "ep-{epoch}")))  # as a file of before that was told
    monkeypatch.undo()
    caplog.clear()
    fit(trainer(), resume=tmp_path / "old" / "ep-1")
    assert caplog.text == ""


def test_a_further_hook_without_memory_is_no_other_run(alone, tmp_path, caplog):
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    again = fit(trainer(fp.on("after_epoch", lambda event: None)), resume=tmp_path / "ep-1")
    assert_same_run(again, alone)
    assert caplog.text == ""


def sgd(rate, norm=1.0, **options):
    return fp.with_optimizer(optim.clip_norm(norm)(optim.sgd(rate, **options)))(trainer())


def test_other_options_of_the_optimiser_are_warned_of_and_the_rate_of_the_file_holds(tmp_path, caplog):
    whole = fit(sgd(0.1))
    short = pipe(sgd(0.1), fp.checkpoints(tmp_path / "ep-{epoch}"), fp.fit(TRAIN, validation=HELD, seed=9, quiet=True))
    assert_same_run(fit(sgd(0.1), resume=short.checkpoints[0]), whole)
    assert caplog.text == ""
    again = fit(sgd(0.5), resume=short.checkpoints[0])
    assert_same_run(again, whole)
    told = "optimizer.inner.learning_rate started at 0.1, the code says 0.5, and the rate in the file holds"
    assert told in caplog.text
    caplog.clear()
    other = fit(sgd(0.1, 0.01), resume=short.checkpoints[0])
    assert bits(other.params) != bits(whole.params)
    assert "the optimiser was clip_norm(1)(sgd), is clip_norm(0.01)(sgd)" in caplog.text
    assert "learning_rate" not in caplog.text
    caplog.clear()
    fit(sgd(optim.cosine_decay(0.1, 9)), resume=short.checkpoints[0])
    assert caplog.text == ""


def test_rates_of_groups_are_told_apart(tmp_path, caplog):
    def adams(rate):
        rules = (fp.under("layers.0"), optim.adam(rate)), (fp.everything, optim.adam(0.1, betas=(0.8, 0.9)))
        return fp.with_optimizer(optim.groups(*rules))(trainer())

    fit(fp.checkpoints(tmp_path / "ep-{epoch}")(adams(0.1)))
    fit(adams(0.1), resume=tmp_path / "ep-1")
    assert caplog.text == ""
    fit(adams(0.2), resume=tmp_path / "ep-1")
    assert "groups.0.learning_rate started at 0.1, the code says 0.2" in caplog.text


def test_a_rate_is_changed_on_purpose_by_a_hook_before_the_run_goes_on(tmp_path):
    def rate(event):
        path = "optimizer.inner.learning_rate"
        return fp.Replace(opt_state=fp.swap(path, 0.5)(event.state.opt_state))

    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    fit(policy(sgd(0.1)))
    slow = fp.on("before_fit", rate)(sgd(0.5))
    assert fp.flat(fit(slow, resume=tmp_path / "ep-1").opt_state)["optimizer.inner.learning_rate"].item() == 0.5


def test_a_file_of_parameters_alone_is_no_run(tmp_path):
    path = fp.save(tmp_path / "weights")(nn.init(0)(MODEL))
    with pytest.raises(CheckpointError, match="give them as params="):
        fit(trainer(), resume=path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"epoch": 1}, r"resume takes a bundle, as read_bundle gives it, or the path of one; got a dict of 'epoch'"),
        ({}, "got a dict of nothing"),
        (fp.bundle({"rows": []}), r"write it with save_bundle\(path, checkpoint=…\)\(report\)"),
        (3, "resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got 3"),
    ],
)
def test_what_is_nothing_to_go_on_from_is_an_error_with_the_remedy(source, words):
    with pytest.raises((TypeError, CheckpointError), match=words):
        fit(trainer(), resume=source)


def test_a_file_of_another_kind_is_said_to_be_so(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"x\.pkl is no checkpoint: the name of one ends in"):
        fit(trainer(), resume=tmp_path / "x.pkl")


@pytest.mark.parametrize("point", range(4))
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.usual(".safetensors-0", ".safetensors-1", ".safetensors-2", ".safetensors-3", ".npz-0", ".npz-2", ".npz-3")
def test_a_file_that_the_system_fails_to_read_once_is_an_error_with_its_path(tmp_path, suffix, point, monkeypatch):
    policy = fp.checkpoints(tmp_path / ("ep-{epoch}" + suffix))
    fit(trainer(policy))
    with monkeypatch.context() as patch:
        fail_read(patch, point)
        with pytest.raises(OSError, match="Input/output error") as caught:
            fit(trainer(policy), resume="latest")
    assert Path(caught.value.filename).parent == tmp_path
    assert fit(trainer(policy), resume="latest").resume_from == str(tmp_path / f"ep-2{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.usual(".npz")
def test_a_file_that_this_user_may_not_read_at_first_is_passed_over_with_a_warning(
    tmp_path, suffix, monkeypatch, caplog
):
    policy = fp.checkpoints(tmp_path / ("ep-{epoch}" + suffix))
    fit(trainer(policy))
    newest, opened, refused = str(tmp_path / f"ep-2{suffix}"), os.open, []

    def closed(path, *more, **options):
        if str(path) == newest and not refused:
            refused.append(path)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), newest)
        return opened(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        report = fit(trainer(policy), resume="latest")
    assert report.resume_from == str(tmp_path / f"ep-1{suffix}")
    assert f"{newest} is passed over" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_the_folder_is_the_runs_own_before_it_looks_for_the_newest_file(tmp_path, stream):
    refused = []

    def newest():
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
            Lock(tmp_path).take()
        refused.append(True)
        return "latest"

    target = trainer(fp.checkpoints(tmp_path / "ep-{epoch}"))
    if stream:
        next(pipe(target, fp.events(TRAIN, validation=HELD, resume=newest)))
    else:
        fit(target, resume=newest)
    assert refused == [True]


def test_a_run_that_cannot_begin_gives_the_folder_back(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")), resume=tmp_path / "gone")
    lock = Lock(tmp_path)
    lock.take()
    lock.give_back()
    assert "gone" in str(caught.value)  # its traceback has held all that the run had


def test_a_bundle_with_another_checkpoint_is_refused(tmp_path):
    report = fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    bundle = fp.save_bundle(tmp_path / "run.json", checkpoint=report.checkpoints[-1])(report)
    Path(report.checkpoints[-1]).write_bytes(Path(report.checkpoints[0]).read_bytes())
    with pytest.raises(CheckpointError, match="its SHA-256 differs"):
        fit(trainer(), resume=bundle)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from test_resume import fit, trainer
import mlx_fp as fp
policy = fp.checkpoints({folder!r} + "/s-{{step}}", every_steps=1, every=None, keep_last=2)
report = fit(trainer(policy), resume="latest")
fp.save({folder!r} + "/../end", opt_state=report.opt_state)(report.params)
"""


@pytest.mark.slow
def test_kill_9_at_random_instants_loses_nothing_and_ends_with_the_same_bits(alone, tmp_path):
    import random
    import time

    folder = tmp_path / "run"
    code = SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder))
    draw, kills = random.Random(1), 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=child_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            child.wait(draw.uniform(0.2, 0.7))
        except subprocess.TimeoutExpired:
            child.kill()
            kills += 1
        child.wait()
        if (tmp_path / "end.safetensors").exists():
            break
        time.sleep(0.01)
    run_python(code)
    end = fp.load(tmp_path / "end")
    assert_same_bits(end.params, alone.params)
    assert_same_bits(end.opt_state, alone.opt_state)
    names = [p.name for p in folder.iterdir()]
    assert len([n for n in names if n.endswith(".safetensors")]) <= 3
    assert not [n for n in names if n.endswith("tmp")]
    assert kills > 0


def cut_by(*verbs, **options):
    """A run with checkpoints that something ends, and then another that goes on from them."""
    options = {"epochs": EPOCHS, "seed": 9, "quiet": True, "validation": HELD, **options}
    return pipe(trainer(*verbs), fp.fit(TRAIN, **options))


@pytest.mark.parametrize(
    "event", ["before_validation", "after_validation_batch", "after_validation", "after_evaluation", "after_epoch"]
)
@pytest.mark.usual("before_validation", "after_validation_batch", "after_evaluation", "after_epoch")
def test_an_interrupt_outside_of_a_step_saves_too(alone, tmp_path, event):
    kill = fp.on(event, lambda e: signal.raise_signal(signal.SIGTERM), once=True, when=lambda e: e.epoch == 1)
    policy = fp.checkpoints(tmp_path / "ep-{epoch}", every=100)
    first = cut_by(kill, policy)
    assert first.stop_reason == "SIGTERM"
    again = fit(trainer(policy), resume="latest")
    assert again.resume_from == str(tmp_path / "ep-1.safetensors")
    assert_same_run(again, alone)


@pytest.mark.parametrize("step", range(9))
@pytest.mark.usual("0", "1", "2", "5", "7", "8")
def test_a_stop_within_an_epoch_goes_on_with_the_rest_of_it(alone, tmp_path, step):
    stop = fp.on("after_step", lambda e: fp.Stop("enough") if e.step == step else None)
    policy = fp.checkpoints(tmp_path / "{step}")
    cut_by(stop, policy)
    assert_same_run(fit(trainer(policy), resume="latest"), alone)


def test_a_new_run_in_the_folder_of_an_old_one_is_the_newest(tmp_path):
    policy = fp.checkpoints(tmp_path / "ep-{epoch}", keep_last=2)
    pipe(trainer(policy), fp.fit(TRAIN, epochs=6, validation=HELD, quiet=True))
    new = pipe(trainer(policy), fp.fit(TRAIN, epochs=2, validation=HELD, seed=9, quiet=True))
    assert set(new.checkpoints) == {str(tmp_path / f"ep-{i}.safetensors") for i in range(2)}
    again = pipe(trainer(policy), fp.fit(TRAIN, epochs=2, validation=HELD, seed=9, quiet=True, resume="latest"))
    assert again.resume_from == str(tmp_path / "ep-1.safetensors")
    assert again.epochs_ran == 0


def test_best_is_the_best_of_the_report_whatever_min_delta(tmp_path):
    values = [1.0, 0.95, 0.94]
    given = fp.monitor("given", metric=lambda row: values[row.epoch], min_delta=0.1)
    policy = fp.checkpoints(tmp_path / "ep-{epoch}", best=True, keep_last=1)
    report = fit(trainer(given, policy))
    assert report.best_epoch == 0
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["ep-0", "ep-2"]
    assert fit(trainer(given, policy), resume="best").resume_from == str(tmp_path / "ep-0.safetensors")


def test_other_data_and_other_hooks_are_warned_of(tmp_path, caplog):
    fit(trainer(fp.checkpoints(tmp_path / "ep-{epoch}")))
    other = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(8))
    pipe(trainer(), fp.fit(other, validation=HELD, epochs=4, quiet=True, resume=tmp_path / "ep-2"))
    assert "the data was pipe(arrays" in caplog.text
    caplog.clear()
    fit(
        trainer(fp.with_hooks(fp.fold("after_epoch", 0, lambda memory, e: (memory + 1, None)))),
        resume=tmp_path / "ep-2",
    )
    assert "after_step count 1, after_epoch <lambda> 1" in caplog.text
    caplog.clear()
    fit(trainer(fp.early_stop(patience=9), fp.checkpoints(tmp_path / "stop-{epoch}")))
    fit(trainer(fp.early_stop(patience=8)), resume=tmp_path / "stop-2")
    assert "after_evaluation early_stop(9) 1, is after_evaluation early_stop(5) 1" in caplog.text
    assert "after_evaluation early_stop(8) 1" in caplog.text


def test_other_peoples_files_are_neither_counted_nor_deleted(alone, tmp_path):
    (tmp_path / "other").mkdir()
    fp.save(tmp_path / "other" / "final")({"a": mx.array(1)})
    (tmp_path / ".draft.tmp").write_text("mine")
    policy = fp.checkpoints(tmp_path / "ep-{epoch}", keep_last=1)
    assert_same_run(fit(trainer(policy), resume="latest"), alone)
    assert (tmp_path / "other" / "final.safetensors").exists()
    assert (tmp_path / ".draft.tmp").exists()


def test_fields_may_name_folders(tmp_path):
    report = fit(trainer(fp.checkpoints(tmp_path / "{monitor_name}" / "{monitor:.2f}" / "{epoch}-{improved}")))
    assert all(Path(path).exists() for path in report.checkpoints)


def test_a_bundle_that_was_read_knows_its_folder(alone, tmp_path):
    target = trainer(fp.checkpoints(tmp_path / "a" / "ep-{epoch}"))
    first = pipe(target, fp.fit(TRAIN, validation=HELD, epochs=2, seed=9, quiet=True))
    path = fp.save_bundle(tmp_path / "b" / "run.json", checkpoint=first.checkpoints[-1])(first)
    assert_same_run(fit(target, resume=fp.read_bundle(path)), alone)
