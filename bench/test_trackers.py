"""Measure a call of each tracker, and a run that logs each step, with trackers and without one."""

import time
from importlib.util import find_spec
from statistics import median

import mlx.core as mx
import pytest
from models import cross_entropy, tiny
from paired import note, paired
from test_loop import STEPS, looped

from mlx_fp import show
from mlx_fp.show._back_ends import BACK_ENDS, back_end
from mlx_fp.show._tracker import TrackedRun

FIGURES = {"epoch": 0, "loss": 0.5, "learning_rate": 1e-3, "grad_norm": 1.5, "rows_per_second": 1e4, "peak_memory": 1e6}


def options_of(name, folder):
    """Return the options with which a tracker writes into a folder, and sends nothing."""
    options = {
        "csv": {"path": folder / "a.csv"},
        "tensorboard": {"folder": folder / "tensorboard"},
        "wandb": {"mode": "offline", "dir": folder},
        "mlflow": {"uri": f"sqlite:///{folder / 'mlflow.db'}"},
        "swanlab": {"mode": "offline", "log_dir": str(folder)},
    }
    return options.get(name, {})


@pytest.mark.parametrize("name", BACK_ENDS)
def test_a_call(benchmark, name, tmp_path, monkeypatch):
    package = BACK_ENDS[name].package
    if package is not None and find_spec(package) is None:
        pytest.skip(f"without {package}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    tracker, taken = back_end(name, options_of(name, tmp_path))(), []
    tracker.start(TrackedRun(settings={"epochs": 1}))
    for step in range(1000):
        start = time.perf_counter()
        tracker.log(step, FIGURES)
        taken.append(time.perf_counter() - start)
    start = time.perf_counter()
    tracker.finish(None)
    finish = time.perf_counter() - start
    figures = {"median_us": median(taken) * 1e6, "mean_us": sum(taken) / len(taken) * 1e6, "finish_s": finish}
    benchmark.extra_info |= {name: round(value, 2) for name, value in figures.items()}
    print(f"\n  {name}: {benchmark.extra_info}", end="")
    benchmark.pedantic(lambda: None, rounds=1)


def test_a_run(benchmark, tmp_path):
    make, batch = tiny()
    mx.eval(batch)
    case = make, cross_entropy, [batch] * STEPS
    ways = {
        "without logging": looped(*case),
        "logged": looped(*case, log_every=1),
        "logged again": looped(*case, log_every=1),
        "csv": looped(*case, show.track("csv", path=tmp_path / "a.csv"), log_every=1),
    }
    if find_spec("tensorboardX") is not None:
        ways["tensorboard"] = looped(*case, show.track("tensorboard", folder=tmp_path / "board"), log_every=1)
    taken = paired(ways, turns=40, calls=1, warm_up=2)
    note(benchmark, taken, "logged")
    for name in ways:
        each = [(a - b) / STEPS * 1e6 for a, b in zip(taken[name], taken["logged"], strict=True)]
        print(f"\n  {name} - logged: {median(each):.1f} us a step", end="")
    benchmark.pedantic(ways["csv"], rounds=3)
