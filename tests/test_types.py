"""Type checkers find no error in README's page and in the examples, and find each of the usual mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MISTAKES = ROOT / "tests" / "types" / "mistakes.py"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
UNTYPED = ["datasets.*", "sklearn.*", "toolz.*"]
"""Packages without types, which the examples import."""


def errors_of_mypy(paths, folder):
    pytest.importorskip("mypy")
    settings = folder / "mypy.ini"
    settings.write_text(f"[mypy]\n[mypy-{','.join(UNTYPED)}]\nignore_missing_imports = true\n")
    command = [sys.executable, "-m", "mypy", f"--config-file={settings}", "--no-error-summary", *map(str, paths)]
    output = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300).stdout
    lines = re.findall(r"^(.*):(\d+): error: (.*)", output, re.MULTILINE)
    return {(Path(file).name, int(number)): message for file, number, message in lines}


def errors_of_pyright(paths, folder):
    pytest.importorskip("basedpyright")
    settings = folder / "pyrightconfig.json"
    options = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    settings.write_text(json.dumps({**options, "include": list(map(str, paths))}))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error", "-p", str(settings)]
    command += ["--pythonpath", sys.executable]
    output = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300).stdout
    diagnostics = json.loads(output)["generalDiagnostics"]
    return {(Path(d["file"]).name, d["range"]["start"]["line"] + 1): d["message"] for d in diagnostics}


def errors(checker, paths, folder):
    """Return (file name, line) -> message."""
    return (errors_of_mypy if checker == "mypy" else errors_of_pyright)(paths, folder)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_mistakes_are_found_and_nothing_else(checker, tmp_path):
    lines = enumerate(MISTAKES.read_text().splitlines(), 1)
    marked = {(MISTAKES.name, number) for number, line in lines if line.endswith("# wrong")}
    assert marked
    assert errors(checker, [MISTAKES], tmp_path).keys() == marked


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_page_of_the_readme_has_no_error(checker, tmp_path):
    page = tmp_path / "page.py"
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    page.write_text("\n\n".join(blocks))
    assert errors(checker, [page], tmp_path) == {}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_examples_have_no_error(checker, tmp_path):
    assert len(EXAMPLES) > 10
    assert errors(checker, EXAMPLES, tmp_path) == {}
