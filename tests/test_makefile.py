"""The Makefile: a Python that is too old is one sentence, and a .venv of another Python is made anew."""

import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

PYTHON = """#!/bin/sh
# A Python of the version {version} that makes environments of a shell script.
case "$1" in
-V) echo "Python {version}" ;;
-c) exec {real} -c "import sys; sys.version_info = ({tuple}); exec(sys.argv[1])" "$2" ;;
-m) mkdir -p .venv/bin && touch .venv/bin/python && chmod +x .venv/bin/python && echo made >> made ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)

    def run(version):
        python = tmp_path / f"python-{version}"
        numbers = version.replace(".", ", ")
        python.write_text(PYTHON.format(version=version, tuple=numbers, real=sys.executable))
        python.chmod(0o755)
        command = ["make", "--silent", f"PYTHON={python}", ".venv/.python"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    run.made = lambda: (tmp_path / "made").read_text().count("made") if (tmp_path / "made").exists() else 0
    return run


def test_a_python_that_is_too_old_is_one_sentence(make):
    done = make("3.10.13")
    assert done.returncode != 0
    assert "mlx_fp needs Python 3.11 or later, and " in done.stderr
    assert "is 3.10: make PYTHON=python3.12" in done.stderr
    assert make.made() == 0


def test_an_environment_is_made_once_for_each_python(make):
    for version, made in (("3.11.7", 1), ("3.11.7", 1), ("3.12.1", 2), ("3.12.1", 2)):
        assert make(version).returncode == 0
        assert make.made() == made
