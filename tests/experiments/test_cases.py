"""The cases of a sweep: listed settings, and random ones, which a seed gives again."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim

X = mx.random.normal((8, 3), key=mx.random.key(0))
PLAIN = fp.experiment(
    "sums",
    model=nn.linear(3, 1),
    task=fp.regression(),
    optimizer=partial(optim.sgd, 0.1),
    data=[(X, X.sum(axis=1))] * 2,
)
RANDOM = {
    "optimizer.learning_rate": fp.log_uniform(1e-4, 1e-1),
    "optimizer.momentum": fp.uniform(0.0, 0.9),
    "seed": fp.choices(1, 2, 3),
    "optimizer.nesterov": [False],
}


def settings_of(grid, target=PLAIN, **options):
    return [dict(trial.settings) for trial in fp.sweep(grid, quiet=True, compile=False, **options)(target).trials]


def test_a_list_has_the_settings_of_each_trial_and_defaults_for_the_rest():
    found = settings_of([{"optimizer.learning_rate": 0.2}, {"seed": 5, "epochs": 2}])
    assert found == [
        {"optimizer.learning_rate": 0.2, "seed": 0, "epochs": 1},
        {"optimizer.learning_rate": 0.1, "seed": 5, "epochs": 2},
    ]


def test_a_random_sweep_draws_within_its_ranges_and_again_by_its_seed():
    found = settings_of(RANDOM, samples=8)
    assert found == settings_of(RANDOM, samples=8) != settings_of(RANDOM, samples=8, seed=1)
    rates, momenta = ([case[name] for case in found] for name in list(RANDOM)[:2])
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 1e-2 for rate in rates) > 2
    assert all(0 <= momentum <= 0.9 for momentum in momenta)
    assert {case["seed"] for case in found} <= {1, 2, 3}


def test_more_samples_begin_with_the_same_trials_and_a_further_path_changes_no_other():
    few, more = settings_of(RANDOM, samples=2), settings_of({**RANDOM, "epochs": fp.choices(1)}, samples=4)
    assert [{**case, "epochs": 1} for case in few] == more[:2]


def test_the_seed_of_a_random_sweep_is_that_of_its_trials_unless_the_grid_has_one():
    def trial(grid):
        return fp.sweep(grid, samples=1, seed=4, quiet=True, compile=False)(PLAIN).trials[0]

    def losses(seed):
        return fp.run(quiet=True, seed=seed, compile=False)(PLAIN).losses

    assert trial({"epochs": [1]}).report.losses == losses(4)
    assert trial({"seed": [9]}).report.losses == losses(9)


def test_a_sweep_that_is_complete_in_its_folder_does_not_train_again(tmp_path):
    steps = []
    target = fp.experiment(
        "sums",
        fp.on("after_step", lambda e: steps.append(e.step)),
        model=nn.linear(3, 1),
        task=fp.regression(),
        optimizer=partial(optim.sgd, 0.1),
        data=[(X, X.sum(axis=1))] * 2,
    )
    options = {"out": tmp_path / "grid", "resume": "latest", "quiet": True, "compile": False}
    grid = {"optimizer.learning_rate": fp.log_uniform(1e-3, 1e-1)}
    first = fp.sweep(grid, samples=2, **options)(target)
    assert len(steps) == 4
    second = fp.sweep(grid, samples=3, **options)(target)
    assert len(steps) == 6
    values = [[trial.report.best_value for trial in found.trials] for found in (first, second)]
    assert values[1][:2] == values[0]


def test_a_table_is_sorted_by_the_monitor_or_by_a_setting():
    found = fp.sweep({"optimizer.learning_rate": [0.001, 0.1, 0.01]}, quiet=True, compile=False)(PLAIN)
    assert rates(found.table()) == rates(str(found)) == ["0.001", "0.1", "0.01"]
    assert rates(found.table(sort="best")) == ["0.1", "0.01", "0.001"]
    assert rates(found.table(sort="optimizer.learning_rate")) == ["0.001", "0.01", "0.1"]
    assert found.table(sort="best").splitlines()[1].endswith("best")
    with pytest.raises(KeyError, match="unknown path to sort by 'optimizer.lr'"):
        found.table(sort="optimizer.lr")


def rates(text):
    return [line.split()[0] for line in text.splitlines()[1:]]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: fp.sweep({"seed": fp.choices(1, 2)}), ValueError, "seed: values are drawn.*samples=n"),
        (lambda: fp.sweep({"seed": [1]}, samples=0), ValueError, "samples is a number of trials"),
        (lambda: fp.sweep([{"seed": 1}], samples=2), ValueError, "samples draws from a dict"),
        (lambda: fp.sweep(["seed"]), TypeError, "a list with the settings of each trial; got list"),
        (lambda: fp.choices(), ValueError, "one value or more"),
        (lambda: fp.uniform(1, 0), ValueError, "from low to high; got 1 and 0"),
        (lambda: fp.uniform("a", 0), TypeError, "low of uniform"),
        (lambda: fp.log_uniform(0, 1), ValueError, "low of log_uniform is a finite number above 0; got 0"),
        (lambda: fp.sweep({"seed": [1]}, samples=1, seed=mx.random.key(0))(PLAIN), TypeError, "random sweep is an int"),
    ],
)
def test_wrong_grids(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
