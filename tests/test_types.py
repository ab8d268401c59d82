"""Type checkers see a user's program as it is: README's page has no error, and each usual mistake is found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MISTAKES = ROOT / "tests" / "types" / "mistakes.py"
SETTINGS = {"typeCheckingMode": "standard", "pythonVersion": "3.11"}


def lines_of_mypy(path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--no-error-summary", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300).stdout
    return {int(number): text for number, text in re.findall(rf"{re.escape(path.name)}:(\d+): error: (.*)", found)}


def lines_of_pyright(path, folder):
    pytest.importorskip("basedpyright")
    settings = folder / "pyrightconfig.json"
    settings.write_text(json.dumps({**SETTINGS, "include": [str(path)], "extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error", "-p", str(settings)]
    command += ["--pythonpath", sys.executable]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300).stdout)
    return {each["range"]["start"]["line"] + 1: each["message"] for each in found["generalDiagnostics"]}


def errors(checker, path, folder):
    return lines_of_mypy(path) if checker == "mypy" else lines_of_pyright(path, folder)


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_mistakes_are_found_and_nothing_else(checker, tmp_path):
    marked = {number for number, line in enumerate(MISTAKES.read_text().splitlines(), 1) if line.endswith("# wrong")}
    assert marked
    assert errors(checker, MISTAKES, tmp_path).keys() == marked


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_the_page_of_the_readme_has_no_error(checker, tmp_path):
    page = tmp_path / "page.py"
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    page.write_text("\n\n".join(blocks))
    assert errors(checker, page, tmp_path) == {}
