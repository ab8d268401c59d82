"""Without MLX all that needs no array works, and the first use of one says which extra to install.

Each test runs a process of its own, from which MLX is hidden; so they run where it is not installed, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.without_mlx

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "mlx_fp").rglob("*.py"))
]

HIDDEN = """
import sys
sys.modules["mlx"] = None
import mlx_fp as fp
from toolz import pipe
"""

TRAINER = """
optimizer = fp.optim.Optimizer(lambda params: {}, lambda grads, state, params: (params, state), "none")
trainer = fp.trainer(lambda x: x, lambda model, x: model(x), optimizer=optimizer)
"""

ROWS = """
from mlx_fp.loop._rows import Evaluation, Row

def evaluation(epoch, loss, stale=0):
    return Evaluation(epoch, 4 * epoch + 4, loss, {"accuracy": 0.5}, 2, loss, stale == 0, stale)

def row(epoch, loss):
    return Row(epoch, 4, 64, 4 * epoch + 4, loss, {"accuracy": 0.75}, loss, {"accuracy": 0.5}, 2, 1.0, loss, True)
"""


def ran(code, *before, folder=None):
    """Run code, after other code, in a process without MLX; return what it printed."""
    code = "\n".join([HIDDEN, *before, code])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=folder, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def faults():
    """The error of each module that cannot be imported, each import beginning anew."""
    code = f"""
import importlib
for name in {MODULES}:
    for loaded in [one for one in sys.modules if one.partition(".")[0] == "mlx_fp"]:
        del sys.modules[loaded]
    try:
        part = importlib.import_module(name)
        [getattr(part, public) for public in getattr(part, '__all__', ()) if (name, public) != ("mlx_fp", "cpu")]
    except Exception as error:
        print(name, repr(error), sep="\\t")
"""
    return dict(line.split("\t") for line in ran(code).splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_with_all_of_its_names(name, faults):
    assert name not in faults, faults[name]


def test_hooks_fold_events_and_ask():
    code = """
seen = []
hooks = trainer.hooks
states = fp.hook_states(hooks)
for epoch in range(4):
    states, _, asked = fp.emit(hooks, states, fp.event("before_epoch", {}, {}, epoch=epoch))
    seen.append([type(one).__name__ for one in asked])
print(states[0].memory, seen)
"""
    hooks = """
count = fp.fold("before_epoch", 0, lambda count, event: (count + 1, fp.Stop("third") if count == 2 else None))
trainer = pipe(
    trainer,
    fp.with_hooks(count),
    fp.on("before_epoch", lambda event: fp.Save(), every=2, when=lambda event: event.epoch > 0),
)
"""
    assert ran(code, TRAINER, hooks) == "4 [[], [], ['Stop', 'Save'], []]"


def test_the_monitor_judges_and_early_stopping_stops():
    code = """
from mlx_fp.loop._monitor import BestSoFar, update_best
trainer = pipe(trainer, fp.monitor("val_loss", min_delta=0.01), fp.early_stop(patience=2), fp.plateau(patience=2))
standing, stops = BestSoFar(), []
hooks = [hook for hook in trainer.hooks if "early_stop" in repr(hook)]
states = fp.hook_states(hooks)
for epoch, loss in enumerate([1.0, 0.5, 0.6, 0.495, 0.2]):
    value = trainer.monitor.value(row(epoch, loss))
    standing, improved = update_best(trainer.monitor, standing, value, epoch, 4 * epoch + 4)
    event = fp.event("after_evaluation", {}, {}, row=evaluation(epoch, loss, standing.stale))
    states, _, asked = fp.emit(hooks, states, event)
    stops.append(len(asked))
print(standing.best_value, standing.best_epoch, stops)
"""
    assert ran(code, TRAINER, ROWS) == "0.2 4 [0, 0, 0, 1, 0]"


def test_the_policy_of_checkpoints_names_files_and_says_which_are_due():
    code = """
policy = pipe(trainer, fp.checkpoints("runs/ep-{epoch:03}", best=True, every=2, keep_last=3)).policy
values = {"epoch": 7, "step": 32, "monitor_value": 0.5, "epoch_loss": 0.5}
print(policy.of(values), [policy.due(epoch, epoch == 2) for epoch in range(4)], policy.owns(policy.of(values), values))
try:
    fp.checkpoints("runs/ep-{epohc}")
except ValueError as error:
    print("did you mean 'epoch'" in str(error))
"""
    due = "[False, True, True, True]"
    assert ran(code, TRAINER).splitlines() == [f"runs{os.sep}ep-007.safetensors {due} True", "True"]


def test_registries_presets_and_options():
    code = """
presets = fp.Registry("preset").add("short", fp.with_options(epochs=3)).add("slow", fp.early_stop(2), extends="short")
made = pipe(trainer, fp.with_named(presets, "slow"))
print(dict(made.options), made.hooks)
for wrong in (lambda: presets["slwo"], lambda: fp.with_options(epoch=3)):
    try:
        wrong()
    except (KeyError, TypeError) as error:
        print("did you mean" in str(error))
"""
    hooks = "(on('after_evaluation', early_stop(2)),)"
    assert ran(code, TRAINER).splitlines() == [f"{{'epochs': 3}} {hooks}", "True", "True"]


def test_pipelines_of_rows():
    code = """
from mlx_fp import data
rows = pipe(
    data.source(range(12)), data.skip(2), data.filter(lambda n: n % 2), data.map(lambda n: n * n), data.take(3),
    data.prefetch(2),
)
print(list(rows), list(rows.open(data.Cursor(0, 2))))
print(list(pipe(data.source("abcd"), data.sample([0, 1, 0, 1], seed=3), data.map(str.upper))))
"""
    first, second = ran(code).splitlines()
    assert first == "[9, 25, 49] [49]"
    assert set(second) <= set("[]', BD")


def test_tasks_metrics_and_schedules_can_be_described():
    code = """
from mlx_fp import metrics, optim
schedule = optim.warmup_cosine(1e-3, 100, warmup=10)
print(fp.classification(metrics=[metrics.accuracy(), metrics.top_k(2)]), callable(schedule))
print(pipe(trainer, fp.with_metrics(metrics.accuracy())).task.metrics)
for wrong in (lambda: metrics.top_k(0), lambda: optim.warmup_cosine(-1.0, 100), lambda: optim.clip_norm(-1)):
    try:
        wrong()
    except ValueError:
        print("ValueError")
"""
    told = ran(code, TRAINER).splitlines()
    assert told == ["classification(accuracy, top_2) True", "(accuracy,)", *["ValueError"] * 3]


def test_reports_and_bundles_are_written_and_read(tmp_path):
    code = """
import json
from dataclasses import fields
from mlx_fp.loop._setup import Setup
values = dict.fromkeys([field.name for field in fields(fp.Report)], None) | {
    "rows": (row(0, 0.5), row(1, float("nan"))), "evaluations": (evaluation(0, 0.5),), "steps": (), "losses": (),
    "checkpoints": (), "params": {}, "opt_state": {}, "epochs_ran": 2, "monitor_name": "val_loss",
    "setup": Setup("data", {}, "sgd", None, 0.0, None),
}
report = fp.Report(**values)
path = fp.save_bundle("run/bundle.json", settings={"epochs": 2})(report)
read = fp.read_bundle(path)
print(read["report"]["rows"][1]["epoch_loss"], read["settings"], read["environment"]["device"])
print(len(str(report).splitlines()), json.loads(report.to_json())["rows"][0]["val_accuracy"])
print(fp.show.track(print) is not None)
"""
    told = ran(code, ROWS, folder=tmp_path).splitlines()
    assert told == ["nan {'epochs': 2} None", "3 0.5", "True"]


USES = [
    "nn.linear(2, 2)",
    "nn.leaky_relu(negative_slope=0.5)",
    "nn.relu([1.0])",
    "nn.sequential(nn.linear(2, 2), nn.relu)",
    "nn.param(3)",
    "nn.initializers.normal()",
    "nn.losses.mse_loss([1.0], [1.0])",
    "nn.init(0)",
    "optim.adam(1e-3)",
    "optim.cosine_decay(1e-3, 10)",
    "fp.trainer(lambda x: x, lambda model, x: model(x))",
    "fp.fit([[1.0]], quiet=True)(trainer)",
    "fp.norm({'w': 1.0})",
    "fp.flat({'w': 1.0})",
    "fp.save('x.npz')({'w': 1.0})",
    "fp.rng.key(0)",
    "list(pipe(data.source(range(4)), data.shuffle(seed=0)))",
    "list(pipe(data.source(range(4)), data.batch(2)))",
]
if (ROOT / "mlx_fp" / "cpu").is_dir():  # the rest of the library works without it
    USES.append("fp.cpu.tuned().__enter__()")


def test_the_first_use_of_an_array_says_what_to_install(tmp_path):
    code = f"""
from mlx_fp import data, nn, optim
for use in {USES}:
    try:
        eval(use)
        print(use, "gave no error")
    except ImportError as error:
        if not ("mlx-fp[cpu]" in str(error) and "mlx-fp[cuda12]" in str(error) and error.__cause__):
            print(use, repr(error))
"""
    assert ran(code, TRAINER, folder=tmp_path) == ""


def test_the_door_passes_on_mlx_itself():
    mx = pytest.importorskip("mlx.core", exc_type=ImportError)
    from mlx import nn, optimizers, utils

    from mlx_fp.core import _mlx

    assert (_mlx.mx, _mlx.mlx_nn, _mlx.mlx_optimizers, _mlx.utils) == (mx, nn, optimizers, utils)
    with pytest.raises(AttributeError, match="mlx_optim"):
        _ = _mlx.mlx_optim


def inner_pytest(folder, **env):
    """Run two tests without MLX, under the project's own conftest: one file imports it, one does not."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['mlx'] = None\n")
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text(encoding="utf-8"))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = without_mlx: runs\n")
    (folder / "test_arrays.py").write_text("import mlx.core as mx\n\n\ndef test_one():\n    assert mx.array(1)\n")
    (folder / "test_wrong.py").write_text("import no_such_module\n\n\ndef test_one():\n    pass\n")
    (folder / "test_rows.py").write_text(
        "import pytest\n\n\ndef test_one():\n    assert 0\n\n\n@pytest.mark.without_mlx\ndef test_two():\n    pass\n"
    )
    paths = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--continue-on-collection-errors", "."],
        env={**os.environ, "PYTHONPATH": paths, **env}, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_suite_skips_without_mlx_and_other_faults_of_an_import_stay(tmp_path):
    status, told = inner_pytest(tmp_path, MLX_FP_REQUIRE_MLX="0")
    assert status == 1
    assert "1 passed, 2 skipped, 1 error" in told
    assert "No module named 'no_such_module'" in told


def test_the_suite_fails_at_once_where_mlx_is_required(tmp_path):
    status, told = inner_pytest(tmp_path, MLX_FP_REQUIRE_MLX="1")
    assert status == 1
    assert "MLX_FP_REQUIRE_MLX=1, and MLX is not installed: pip install 'mlx-fp[cpu]'" in told
    assert "passed" not in told
