"""The experiments of a Python file: chosen by name, imported as a program imports them, refused with a remedy."""

from __future__ import annotations

import pickle
import sys

import pytest
from commands import called, refused, write_experiment

from mlx_fp.command._loading import loaded_experiment


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


def test_a_file_with_one_experiment_needs_no_name():
    with loaded_experiment("train.py") as target:
        assert target.name == "sums"


def test_the_imports_of_the_process_stay_as_they_were(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 5")
    write_experiment(tmp_path, "imports.py", more="from beside import WIDTH\nfp.settings(sums)\n")
    path, modules = list(sys.path), set(sys.modules)
    with loaded_experiment("imports.py") as target:
        assert sys.path[0] == str(tmp_path)
        assert pickle.loads(pickle.dumps(target.model)) is target.model
    assert sys.path == path
    assert "imports" not in set(sys.modules) - modules


def test_a_file_that_is_called_as_a_module_is_its_own_module(tmp_path):
    write_experiment(tmp_path, "json.py")
    with loaded_experiment("json.py") as target:
        assert target.name == "sums"
    import json

    assert json.loads("1") == 1


SEVERAL = """
small = fp.override({"model.width": 2})(sums)
again = small
"""


def test_one_of_several_experiments_is_chosen_by_its_variable(tmp_path):
    write_experiment(tmp_path, "several.py", more=SEVERAL)
    assert refused("settings", "several.py") == (
        "'several.py' defines 2 experiments: choose one of several.py:sums, several.py:small"
    )
    assert called("settings", "several.py:small").row("model.width") == ["model.width", "2", "int"]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("trian.py", "there is no file 'trian.py': did you mean 'train.py'?"),
        ("nothing/train.py", "there is no file 'nothing/train.py': there is no folder 'nothing' either"),
        ("train.py:summs", "unknown experiment of 'train.py' 'summs': did you mean 'sums'? known: sums"),
        (".", "'.' is a folder, and a Python file is expected; it has train.py"),
        ("notes.txt", "'notes.txt' is no Python file"),
        ("empty.py", "'empty.py' defines no experiment: assign fp.experiment(…) to a variable of the module"),
    ],
)
def test_a_wrong_file_is_one_line_with_the_nearest_right_one(tmp_path, target, text):
    for name in ("notes.txt", "empty.py") if target in ("notes.txt", "empty.py") else ():
        (tmp_path / name).write_text("")
    assert refused("run", target).startswith(text)


def test_a_file_without_mlx_is_told_what_to_install(tmp_path):
    write_experiment(tmp_path, "absent.py", text="raise ModuleNotFoundError(\"No module named 'mlx'\", name='mlx')\n")
    with pytest.raises(ModuleNotFoundError) as caught:
        called("settings", "absent.py")
    assert "pip install 'mlx-fp[cpu]' on a Linux CPU" in caught.value.__notes__[0]


def test_an_error_of_the_file_keeps_its_traceback(tmp_path):
    write_experiment(tmp_path, "broken.py", more="1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        called("settings", "broken.py")
    assert "broken" not in sys.modules
