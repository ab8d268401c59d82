"""Trackers: their calls in a run, failures, resumed runs, and the errors of `track`."""

import logging
import pickle
import sys

import pytest
from tracked_runs import BATCHES, fit, tracked

import mlx_fp as fp
from mlx_fp import show
from mlx_fp.loop._hook import opened_hooks


class Lines:
    """A tracker that lists its calls, and fails in those that are named."""

    def __init__(self, *fails):
        self.calls, self.fails = [], fails

    def _note(self, name, *args):
        self.calls.append((name, *args))
        if name in self.fails:
            raise OSError(f"no {name}")

    def start(self, run):
        self._note("start", run)
        return "seven" if run.id is None else run.id

    def log(self, step, figures):
        self._note("log", step, figures)

    def artifact(self, path):
        self._note("artifact", path)

    def finish(self, reason):
        self._note("finish", reason)

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


def test_a_tracker_gets_settings_figures_and_the_end():
    lines = Lines()
    report = fit(tracked(lines))
    (run,), *_ = lines.named("start")
    assert (run.id, run.step, run.folder) == (None, 0, None)
    assert {"epochs": 2, "seed": 0, "optimizer": "adamw(learning_rate=0.001)"}.items() <= run.settings.items()
    logged = lines.named("log")
    assert [step for step, _ in logged] == [3, 4, 4, 6, 8, 8]
    assert logged[0][1]["loss"] == report.losses[2]
    assert logged[0][1].keys() >= {"learning_rate", "grad_norm", "rows_per_second", "peak_memory"}
    assert logged[1][1] == report.evaluations[0].figures()
    assert logged[-1][1]["epoch_loss"] == report.rows[-1].loss
    assert logged[-1][1]["epoch_accuracy"] == report.rows[-1].accuracy
    assert all(type(value) in (int, float) for _, figures in logged for value in figures.values())
    assert lines.named("finish") == [(None,)]


def test_a_function_of_figures_is_a_tracker():
    logged = []
    report = fit(tracked(lambda figures, step: logged.append((step, figures))))
    assert logged[-1][0] == 8
    assert logged[-1][1]["epoch_loss"] == report.rows[-1].loss


@pytest.mark.parametrize("tracker", [3, Lines, object()])
def test_a_tracker_is_a_name_an_object_or_a_function(tracker):
    with pytest.raises(TypeError, match="track takes the name of a tracker, an object"):
        show.track(tracker)


def test_an_unknown_name_has_candidates():
    with pytest.raises(ValueError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        show.track("tensorbord")


def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(caplog):
    lines = Lines("log", "finish")
    with caplog.at_level(logging.WARNING, "mlx_fp.show"):
        report = fit(tracked(lines))
    assert report.epochs_completed == 2
    assert [record.getMessage() for record in caplog.records] == [
        "the run goes on, and the tracker Lines lacks figures of step 3, and perhaps others: OSError: no log"
    ]
    assert len(lines.named("log")) == 6


def test_a_tracker_that_does_not_start_gets_nothing(caplog):
    lines = Lines("start")
    assert fit(tracked(lines)).epochs_completed == 2
    assert [name for name, *_ in lines.calls] == ["start"]
    assert "gets no figures of this run: OSError: no start" in caplog.text


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(tmp_path):
    lines = Lines()
    target = tracked(lines, fp.checkpoints(tmp_path / "{epoch}"))
    fit(target)
    assert fp.load(tmp_path / "0.safetensors").metadata["hooks"]["before_fit track(Lines) 1"]["memory"] == "seven"
    fit(target, resume=tmp_path / "0.safetensors")
    _, (second,) = lines.named("start")
    assert (second.id, second.step, second.folder) == ("seven", 4, str(tmp_path))
    assert [step for step, figures in lines.named("log") if "epoch_loss" in figures] == [4, 8, 8]


@pytest.mark.parametrize("artifacts", [(), "checkpoints", "bundle", ["checkpoints", "bundle"]])
def test_files_are_artifacts_on_request(tmp_path, artifacts):
    lines = Lines()
    report = fit(tracked(lines, fp.checkpoints(tmp_path / "{epoch}", bundle=True), artifacts=artifacts))
    wanted = {"checkpoints": list(report.checkpoints), "bundle": [str(tmp_path / "bundle.json")]}
    kinds = [artifacts] if isinstance(artifacts, str) else artifacts
    assert [path for (path,) in lines.named("artifact")] == [path for kind in kinds for path in wanted[kind]]


def test_the_reason_of_a_stop_is_the_reason_of_the_end():
    lines = Lines()
    fit(tracked(lines, fp.on("after_epoch", lambda event: fp.Stop("enough"))))
    assert lines.named("finish") == [("enough",)]


@pytest.mark.parametrize("event", ["after_step", "after_fit"])
def test_an_error_closes_the_tracker(event):
    def fail(event):
        raise ValueError("no more")

    lines = Lines()
    with pytest.raises(ValueError, match="no more"):
        fit(tracked(lines, fp.on(event, fail)))
    ((reason,),) = lines.named("finish")
    assert repr(reason) == "ValueError('no more')"


def test_a_closed_stream_closes_the_tracker():
    lines = Lines()
    stream = fp.events(BATCHES, only=("after_step",))(tracked(lines))
    next(stream)
    stream.close()
    assert lines.named("finish") == [("the stream was closed",)]


def test_each_run_of_a_trainer_opens_the_tracker_anew(tmp_path):
    target = tracked("csv", path=tmp_path / "a.csv")
    for _ in range(2):
        fit(target)
        assert len((tmp_path / "a.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(("rank", "starts"), [(0, 1), (1, 0)])
def test_one_process_of_several_calls_the_tracker(rank, starts):
    lines = Lines()
    fields = {"epochs_target": 1, "steps_target": None, "start_epoch": 0, "resumed_from_epoch": None, "batches": 4}
    begin = fp.event("before_fit", {}, {}, optimizer=None, trainable={}, world=fp.World(rank, 2), **fields)
    with opened_hooks(tracked(lines).hooks) as hooks:
        fp.emit(hooks, fp.hook_states(hooks), begin)
    assert len(lines.named("start")) == len(lines.named("finish")) == starts


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"track\('wandb'\) needs wandb: pip install 'mlx-fp\[wandb\]'"):
        show.track("wandb")


def test_wrong_options_are_errors_at_once():
    with pytest.raises(TypeError, match=r"unknown option of track\('csv'\) 'pth': did you mean 'path'"):
        show.track("csv", pth="a.csv")
    with pytest.raises(TypeError):
        show.track("csv", path=3)
    with pytest.raises(TypeError, match="track takes path for a tracker that is given by its name"):
        show.track(print, path="a.csv")
    with pytest.raises(ValueError, match="unknown kind of artifacts 'checkpoint': did you mean 'checkpoints'"):
        show.track("csv", artifacts="checkpoint")
    with pytest.raises(TypeError, match="settings of track is a dict"):
        show.track("csv", settings=3)


def test_a_trainer_with_a_tracker_goes_through_pickle(tmp_path):
    target = tracked("csv", path=tmp_path / "a.csv", settings={"mine": 7})
    again = pickle.loads(pickle.dumps(target.hooks[0]))
    assert repr(again) == "track(csv)"
    fit(fp.with_hooks(again)(tracked(print)))
    assert (tmp_path / "a.csv").exists()


def test_settings_of_the_user_stand_beside_those_of_the_run(tmp_path):
    lines = Lines()
    fit(tracked(lines, fp.checkpoints(tmp_path / "{epoch}", user={"name": "a"}), settings={"rate": {"decay": 0.5}}))
    (run,), *_ = lines.named("start")
    assert {"rate.decay": 0.5, "user.name": "a", "model": "Linear"}.items() <= run.settings.items()
