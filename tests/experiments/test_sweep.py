"""A sweep runs each variant of an experiment once, and puts them in one table."""

from __future__ import annotations

import gc
import signal
import weakref
from functools import partial

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((8, 3), key=mx.random.key(0))
PAIR = (X, X.sum(axis=1))


def made(*verbs, **parts):
    usual = {
        "model": nn.linear(3, 1),
        "task": fp.regression(),
        "optimizer": partial(optim.sgd, 0.1),
        "data": [PAIR] * 4,
    }
    return fp.experiment("sums", *verbs, **{**usual, **parts})


def sweep(grid, target, **options):
    return fp.sweep(grid, quiet=True, **options)(target)


def counted(runs):
    """A verb that counts the runs which begin."""
    return fp.on("before_fit", lambda e: runs.append(e.epochs_target))


def test_every_combination_runs_once_in_order():
    runs = []
    found = sweep({"optimizer.learning_rate": [0.1, 0.2], "epochs": [1, 2]}, made(counted(runs)))
    assert [tuple(trial.settings.values()) for trial in found.trials] == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]
    assert runs == [1, 2, 1, 2]


def test_a_trial_is_what_the_variant_gives_alone():
    found = sweep({"optimizer.learning_rate": [0.01, 0.1]}, made())
    for trial in found.trials:
        alone = fp.run(quiet=True)(fp.override(trial.settings)(made()))
        assert trial.report.losses == pytest.approx(alone.losses, rel=1e-6)


def test_the_best_is_by_the_monitor_and_keeps_its_parameters():
    found = sweep({"optimizer.learning_rate": [0.001, 0.1, 0.01]}, made())
    values = [trial.report.best_value for trial in found.trials]
    assert found.best.settings == {"optimizer.learning_rate": 0.1}
    assert found.best.report.best_value == min(values)
    alone = fp.run(quiet=True)(fp.override(found.best.settings)(made()))
    assert mx.allclose(found.best.report.params["weight"], alone.params["weight"], rtol=1e-6)
    assert [trial.report.params for trial in found.trials] == [{}, {}, {}]


def test_the_best_by_mode_max_has_the_most():
    watch = fp.monitor("r2", mode="max")
    assert sweep({"optimizer.learning_rate": [0.001, 0.1]}, made(watch)).best.settings["optimizer.learning_rate"] == 0.1


def test_a_trial_that_is_lost_is_never_the_best():
    found = sweep({"optimizer.learning_rate": [1e30, 0.1]}, made())
    assert found.best.settings == {"optimizer.learning_rate": 0.1}
    assert found.trials[0].report.best_value is None


def test_a_trial_that_diverges_is_never_the_best_by_accuracy():
    x = mx.random.normal((64, 3), key=mx.random.key(0))
    rare = (x, (x[:, 0] > 1.3).astype(mx.int32))
    target = made(
        model=nn.linear(3, 2), task=fp.classification(), data=data.splits(train=[rare] * 4, validation=[rare])
    )
    found = sweep({"optimizer.learning_rate": [0.01, lambda step: mx.where(step > 0, mx.inf, 0.1)]}, target)
    assert found.best.settings == {"optimizer.learning_rate": 0.01}
    assert found.trials[1].report.best_value is None


def test_the_table_has_a_line_per_trial_and_marks_the_best():
    found = sweep({"optimizer.learning_rate": [0.001, 0.1]}, made())
    lines = str(found).splitlines()
    heads = ["optimizer.learning_rate", "best", "loss", "epoch", "ran", "seconds", "stopped"]
    assert lines[0].split() == heads
    assert [line.split()[0] for line in lines[1:]] == ["0.001", "0.1"]
    assert [line.endswith("best") for line in lines[1:]] == [False, True]
    assert repr(found) == "Sweep('sums', 2 trials)"


def test_plain_values_have_a_row_per_trial():
    found = sweep({"epochs": [1, 2]}, made()).to_dict()
    assert found["name"] == "sums"
    assert [(row["epochs"], row["epoch"]) for row in found["trials"]] == [(1, 0), (2, 1)]
    assert found["trials"][0]["best loss"] > found["trials"][1]["best loss"]


def test_a_trial_that_stopped_says_why():
    stop = fp.on("after_step", lambda e: fp.Stop("enough"))
    assert sweep({"seed": [1]}, made(stop)).to_dict()["trials"][0]["stopped"] == "enough"


@pytest.mark.parametrize(
    ("grid", "error", "words"),
    [
        ({"seed": [1, 2], "optimizer.learning_rte": [0.1]}, KeyError, "did you mean 'optimizer.learning_rate'"),
        ({"epochs": [1, -1]}, ValueError, "epochs of a run is a count"),
        ({"optimizer.max_norm": [1.0, -1.0]}, ValueError, "max_norm"),
        ({"data.size": [8, 0]}, ValueError, "size 0"),
    ],
)
def test_every_variant_is_tried_out_before_the_first_runs(grid, error, words):
    def batches(size=8):
        if size < 1:
            raise ValueError(f"size {size}")
        return data.batch(size)(data.arrays(x=PAIR[0], y=PAIR[1]))

    def clipped(learning_rate=0.1, max_norm=1.0):
        return optim.clip_norm(max_norm)(optim.sgd(learning_rate))

    runs = []
    target = made(counted(runs), optimizer=clipped, data=batches)
    with pytest.raises(error, match=words):
        sweep(grid, target)
    assert runs == []


def test_options_reach_every_run_and_are_checked_before_the_first():
    assert [t.report.losses for t in sweep({"seed": [1, 2]}, made(), keep_losses=False).trials] == [(), ()]
    runs = []
    with pytest.raises(TypeError, match="unknown option 'epoch'"):
        sweep({"seed": [1, 2]}, made(counted(runs)), epoch=3)
    assert runs == []


def test_a_sweep_of_no_values_has_no_trials():
    found = sweep({"seed": []}, made())
    assert (found.trials, found.best) == ((), None)
    assert str(found).strip() == ""


def test_trials_are_told_unless_it_is_quiet(capsys):
    fp.sweep({"seed": [1, 2]})(made())
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("trial")]
    assert told == ["trial 1/2: seed=1", "trial 2/2: seed=2"]
    sweep({"seed": [1]}, made())
    assert capsys.readouterr().out == ""


def failing(*numbers):
    """Verbs whose trials of these numbers, from 1, end with an error."""
    runs = []

    def fail(e):
        if len(runs) in numbers:
            raise OSError(f"run {len(runs)} has no data")

    return counted(runs), fp.on("after_step", fail)


def test_an_error_in_a_later_trial_ends_that_trial_alone():
    with pytest.warns(RuntimeWarning, match="trial 2 ended with OSError: run 2 has no data"):
        found = sweep({"optimizer.learning_rate": [0.001, 0.01, 0.1]}, made(*failing(2)))
    where = "at hook=on('after_step', fail); at split=train, epoch=0, batch=0, stage=after_step"
    told = f"OSError: run 2 has no data; {where}"
    assert [trial.error for trial in found.trials] == ["", told, ""]
    assert [trial.report is None for trial in found.trials] == [False, True, False]
    assert found.best.settings == {"optimizer.learning_rate": 0.1}
    lines = str(found).splitlines()
    assert lines[2].split() == ["0.01", *told.split()]
    assert lines[3].endswith("best")
    assert found.to_dict()["trials"][1] == {"optimizer.learning_rate": 0.01, "stopped": told}


def test_an_error_in_the_first_trial_comes_out_as_itself():
    with pytest.raises(OSError, match="run 1 has no data"):
        sweep({"seed": [1, 2]}, made(*failing(1)))


def test_what_a_failed_trial_held_is_let_go():
    runs, held = [], []

    def fail(e):
        if len(runs) == 2:
            held.append(weakref.ref(e))
            raise OSError("no data")

    with pytest.warns(RuntimeWarning, match="trial 2"):
        found = sweep({"seed": [1, 2]}, made(counted(runs), fp.on("after_step", fail)))
    gc.collect()
    assert [ref() for ref in held] == [None]
    assert len(found.trials) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_sweep_with_the_trials_so_far(number):
    runs = []
    interrupt = fp.on("after_step", lambda e: signal.raise_signal(number) if len(runs) == 2 else None)
    found = sweep({"seed": [1, 2, 3]}, made(counted(runs), interrupt))
    assert [trial.report.stop_reason for trial in found.trials] == [None, number.name]
    assert len(runs) == 2
    assert found.best is not None


def test_an_interrupt_while_a_trial_is_set_up_ends_the_sweep_too():
    made_of = []

    def batches():
        made_of.append(1)
        if len(made_of) == 4:  # each of three is tried out, the first runs, and the second is set up
            raise KeyboardInterrupt
        return [PAIR]

    found = sweep({"optimizer.learning_rate": [0.1, 0.2]}, made(data=batches))
    assert [trial.settings for trial in found.trials] == [{"optimizer.learning_rate": 0.1}]


def test_settings_that_are_arrays_are_told_apart():
    scale = [mx.array([1.0, 2.0]), mx.array([3.0, 4.0])]
    found = sweep({"model.scale": scale}, made(model=lambda scale=1.0: nn.linear(3, 1)))
    assert len(str(found).splitlines()) >= 3


def test_the_checkpoints_of_each_trial_are_in_a_folder_of_its_own(tmp_path):
    x = mx.random.normal((16, 3), key=mx.random.key(0))
    plain = fp.experiment(
        "sums",
        fp.checkpoints(tmp_path / "ep-{epoch}", keep_last=1),
        model=nn.linear(3, 1),
        task=fp.regression(),
        optimizer=partial(optim.sgd, 0.1),
        data=[(x, x.sum(axis=1))],
        epochs=2,
    )
    for resume in (None, "latest"):  # a sweep that was cut goes on trial by trial
        found = fp.sweep({"optimizer.learning_rate": [1e-4, 1e-1]}, quiet=True, resume=resume)(plain)
        assert [trial.report.epochs_completed for trial in found.trials] == [2, 2]
        assert found.best.settings == {"optimizer.learning_rate": 0.1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trial-1", "trial-2"]


def test_a_trial_that_is_lost_ends_no_sweep_with_checkpoints_either(tmp_path):
    x = mx.random.normal((16, 3), key=mx.random.key(0))
    plain = fp.experiment(
        "sums",
        fp.checkpoints(tmp_path / "ep-{epoch}"),
        model=nn.linear(3, 1),
        task=fp.regression(),
        optimizer=partial(optim.sgd, 0.1),
        data=[(x, x.sum(axis=1))] * 3,
    )
    found = fp.sweep({"optimizer.learning_rate": [1e30, 1e-2]}, quiet=True)(plain)
    assert found.best.settings == {"optimizer.learning_rate": 1e-2}


# a sweep that goes on


def kept_in(folder, **parts):
    return made(fp.checkpoints(folder / "ep-{epoch}"), epochs=2, **parts)


RATES = {"optimizer.learning_rate": [1e-4, 1e-1]}
GRIDS = {
    "another order": {"optimizer.learning_rate": [1e-1, 1e-4]},
    "other values": {"optimizer.learning_rate": [1e-2, 1e-3]},
    "one between": {"optimizer.learning_rate": [1e-4, 1e-3, 1e-1]},
    "one less": {"optimizer.learning_rate": [1e-1]},
    "another axis": {"seed": [1, 2]},
    "a further axis": {**RATES, "seed": [0, 1]},
    "a further axis first": {"optimizer.momentum": [0.9, 0.0], **RATES},
    "a further axis of length": {"epochs": [2, 3], **RATES},
    "functions": {"optimizer.learning_rate": [lambda step: 0.1 / (step + 1), lambda step: 0.2 / (step + 1)]},
    "arrays": {"optimizer.learning_rate": [mx.array(0.1), mx.array(0.2)]},
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.usual("one less")
def test_a_sweep_that_goes_on_with_another_grid_reports_each_trial_s_own_result(tmp_path, name):
    sweep(RATES, kept_in(tmp_path))
    for _ in range(2):
        found = sweep(GRIDS[name], kept_in(tmp_path), resume="latest")
        for trial in found.trials:
            alone = fp.run(quiet=True)(fp.override(trial.settings)(made(epochs=2)))
            assert trial.report.rows[-1].epoch_loss == pytest.approx(alone.rows[-1].epoch_loss, rel=1e-6)


def trained(folder, grid, **parts):
    """How many steps each trial of a sweep that goes on has taken."""
    steps = []
    count = [
        fp.on("before_fit", lambda e: steps.append(0)),
        fp.on("after_step", lambda e: steps.append(steps.pop() + 1)),
    ]
    target = made(fp.checkpoints(folder / "ep-{epoch}"), *count, **{"epochs": 2, **parts})
    sweep(grid, target, resume="latest")
    return steps


def test_a_trial_goes_on_in_its_own_folder_wherever_it_stands_in_the_grid(tmp_path):
    assert trained(tmp_path, RATES) == [8, 8]
    assert trained(tmp_path, RATES) == [0, 0]
    assert trained(tmp_path, {"optimizer.learning_rate": [1e-1, 1e-2, 1e-4]}) == [0, 8, 0]
    assert trained(tmp_path, {"optimizer.momentum": [0.0, 0.9], **RATES}) == [0, 0, 8, 8]
    assert trained(tmp_path, RATES, epochs=3) == [4, 4]  # longer, it is the same trial
    assert trained(tmp_path, RATES, optimizer=partial(optim.sgd, 0.1, weight_decay=0.5)) == [8, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"trial-{n}" for n in range(1, 8)]


def test_trials_of_like_settings_have_folders_of_their_own(tmp_path):
    assert trained(tmp_path, {"seed": [1, 1]}) == [8, 8]
    assert trained(tmp_path, {"seed": [1, 1, 1]}) == [0, 0, 8]


def test_functions_are_told_apart_by_their_code_and_what_they_hold(tmp_path):
    def constant(rate):
        return lambda step: mx.array(rate) + 0 * step

    grid = {"optimizer.learning_rate": [constant(0.1), constant(0.2), lambda step: 0 * step + 0.3]}
    assert trained(tmp_path, grid) == [8, 8, 8]
    other = {"optimizer.learning_rate": [lambda step: 0 * step + 0.4, constant(0.2), constant(0.1)]}
    assert trained(tmp_path, other)[1:] == [0, 0]


def test_a_folder_without_settings_and_one_whose_settings_are_damaged_are_left_alone(tmp_path):
    (tmp_path / "trial-1").mkdir()
    (tmp_path / "trial-2").mkdir()
    (tmp_path / "trial-2" / "settings.json").write_bytes(b"\xff{")
    sweep({"seed": [1]}, kept_in(tmp_path))
    assert (tmp_path / "trial-3" / "ep-1.safetensors").exists()
    assert not list((tmp_path / "trial-1").iterdir())


def test_the_folder_of_a_trial_is_apart_from_others_where_folders_are_in_the_template(tmp_path):
    path = tmp_path / "by-{monitor_name}" / "ep-{epoch}"
    sweep({"seed": [1, 2]}, made(fp.checkpoints(path)))
    assert sorted(str(p.relative_to(tmp_path).parent) for p in tmp_path.rglob("*.safetensors")) == [
        "trial-1/by-loss",
        "trial-2/by-loss",
    ]


def test_nothing_is_written_of_a_sweep_that_is_refused(tmp_path):
    with pytest.raises(KeyError):
        sweep({"seed": [1], "optimizer.rate": [1]}, kept_in(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_notebook_shows_the_table_of_the_trials():
    result = sweep({"optimizer.learning_rate": [0.001, 0.1]}, made(), epochs=1)
    page = result._repr_html_()
    assert page.count("<tr") == 3
    assert all(word in page for word in ("optimizer.learning_rate", "best", "2 trials"))
