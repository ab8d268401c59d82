"""Trackers: their calls in a run, failures, resumed runs, and the errors of `track`."""

import logging

import pytest
from tracked_runs import fit, tracked

from mlx_fp import show


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
