"""README, the pages of docs/ and the examples run as they are printed."""

import math
import os
import re
import runpy
import subprocess
import sys

import pytest
from helpers import CPU_PAGES, PAGES, ROOT, child_env, run_snippets

PROSE = {"ARCHITECTURE.md", "blas.md", "CHANGELOG.md", "CONTRIBUTING.md"}
"""Pages without snippets."""

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROMISES = {
    "mlp": lambda report: report.rows[-1].accuracy > 0.99,
    "step": lambda loss: loss < 0.2,
    "groups": lambda moved: {p for p, did in moved.items() if not did} == FROZEN,
    "lifted": lambda module: type(module).__name__ == "Autoencoder",
    "streaming": lambda report: report.rows[-1].val_accuracy > 0.9 and {row.batches for row in report.rows} == {22},
    "collates": lambda losses: max(losses.values()) < 0.25 and same(losses, "xy", "selectors", "function", "bind"),
    "mnist": lambda report: report.rows[-1].val_accuracy > 0.9,
    "tables": lambda accuracies: min(accuracies.values()) > 0.8 and same(accuracies, "csv", "npz", "npy"),
    "text": lambda losses: math.exp(losses[0]) > 200 and math.exp(losses[1]) < 16,
    "hooks": lambda same: same,
    "monitoring": lambda report: report.best_value > 0.85 and "no improvement" in report.stop_reason,
    "driving": lambda ended: ended[0] == 100 and ended[1] < 0.4,
    "controls": lambda reports: len({report.rows[-1].accuracy for report in reports.values()}) <= 2,
    "checkpoints": lambda told: len(told) == 4 and all(told.values()),
    "long_run": lambda run: run[0] < 32 and run[1][-1]["steps"] == 20_000,
    "experiments": lambda found: found.best.report.best_value > 0.85 and len(found.trials) == 4,
    "gpt": lambda ended: ended[0] < 16 and len(ended[1]) > 100,
    "distillation": lambda accuracies: min(accuracies.values()) > 0.85,
    "contrastive": lambda accuracies: accuracies[0] < accuracies[1] and accuracies[1] > 0.25,
    "dpo": lambda ended: ended[0] > 0.9 and ended[1] > 0.3 and ended[2] > 0.9,
    "lora": lambda ended: ended[0] < 3 and "41 42 43" in ended[1],
    "gan": lambda ended: ended[0] == 8 and ended[1] > 0.6,
    "dqn": lambda ended: ended[0] == 8 and ended[1] > 0.8,
    "across": lambda figures: figures["accuracy"] > 0.85,
    "tensor_parallel": lambda apart: apart < 1e-6,
    "hugging_face": lambda report: report.rows[-1].val_accuracy > 0.9,
}
FROZEN = {"embed.weight", "body.layers.0.layers.0.weight", "body.layers.0.layers.0.bias"}


def same(values, *names):
    """Whether several ways came to one number, as far as the order of sums lets them."""
    return max(values[n] for n in names) - min(values[n] for n in names) < 1e-6


def a_language_model_and_rows(folder):
    """Make the files that docs/language_models.md reads."""
    from language_models import jsonl, model_folder

    model_folder(folder / "models" / "base")
    completions = [" ".join(f"w{(i + k) % 50}" for k in range(i % 30 + 1)) for i in range(400)]
    jsonl(folder / "train.jsonl", [{"prompt": "w3", "completion": completion} for completion in completions])


NEEDS = {"export.md": "onnx"}
"""The packages beside those of the library that the snippets of a page import."""

FILES = dict.fromkeys(("language_models.md", "mlx_lm.md"), a_language_model_and_rows)
"""Functions that make the files that the snippets of a page read."""


LONG = {"README.md", "export.md", "language_models.md", "loop.md", "mixed_precision.md", "mlx_lm.md", "reports.md"}
"""The pages whose snippets take long."""

SHORT = {"across", "driving", "groups", "hooks", "lifted", "mlp", "step", "tensor_parallel"}
"""The examples that run by default."""


def cases(paths, slow, name):
    """Return the cases of a test of files, of which some are slow."""
    return [pytest.param(path, marks=[pytest.mark.slow] if path.name in slow else [], id=name(path)) for path in paths]


@pytest.mark.parametrize(
    "page", cases([page for page in PAGES if page not in CPU_PAGES], LONG, lambda p: str(p.relative_to(ROOT)))
)
def test_every_snippet_of_a_page_runs(page, tmp_path, monkeypatch):
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    FILES.get(page.name, lambda folder: None)(tmp_path)
    assert run_snippets(page) or page.name in PROSE, f"{page.name} shows no code"


@pytest.mark.parametrize(
    "script",
    cases(
        [p for p in EXAMPLES if p.stem != "digits"], {p.name for p in EXAMPLES if p.stem not in SHORT}, lambda p: p.name
    ),
)
def test_example_gives_what_it_promises(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = runpy.run_path(str(script))["main"]()
    assert PROMISES[script.stem](result)
    assert capsys.readouterr().out.strip()


@pytest.mark.usual("as it is")
@pytest.mark.parametrize("programs", [None, "/nowhere"], ids=["as it is", "without g++"])
def test_the_page_of_the_readme_learns_and_prints_its_table(programs, tmp_path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    head = re.search(r"^epoch +loss .*$", page, re.MULTILINE)[0]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "page.py", tmp_path / "curves.png"],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=child_env(PATH=programs or os.environ["PATH"]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = done.stdout.partition(head)[2].strip().splitlines()
    assert float(rows[-2].split()[head.split().index("val_accuracy")]) > 0.9
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "](docs/curves.png)" in page


@pytest.mark.slow
def test_digits_reaches_097_and_writes_report_and_picture(tmp_path):
    import json

    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "digits.py", tmp_path / "digits"],
        capture_output=True, text=True, timeout=600, cwd=tmp_path, env=child_env(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "digits" / "report.json").read_text())
    assert report["rows"][-1]["val_accuracy"] >= 0.97
    assert len(report["rows"]) == report["epochs_target"]
    assert (tmp_path / "digits" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "UCI digits" in (tmp_path / "digits" / "report.html").read_text(encoding="utf-8")
    assert "predicted:" in done.stdout
    assert "epoch 0 of 20" in done.stdout  # plain lines where there is no terminal
