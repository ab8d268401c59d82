"""The words of the command line: help without MLX, and the nearest right word for a wrong one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import called, refused
from helpers import child_env, python_process

from mlx_fp.command._main import _MODULES
from mlx_fp.command._parser import parse, parser


def test_the_help_lists_every_subcommand():
    ended = called("--help")
    assert ended.status == 0
    assert [line.split()[0] for line in ended.lines if line.startswith("    ") and line[4] != " "] == [
        *("run", "settings", "check", "sweep", "bench", "runs", "compare", "report", "show", "new")
    ]


def test_every_subcommand_has_a_function_and_a_help():
    for name in _MODULES:
        ended = called(name, "--help")
        assert (ended.status, ended.lines[0].split()[:3]) == (0, ["usage:", "mlx-fp", name])
    assert set(_MODULES) == set(parser()._subparsers._group_actions[0].choices)


def test_the_help_imports_neither_mlx_nor_numpy():
    heavy = ("mlx", "numpy", "toolz", "safetensors", "rich", "matplotlib")
    done = python_process(
        "import sys\nfrom mlx_fp.command._main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
        f"    print('loaded', *(m for m in {heavy} if m in sys.modules))"
    )
    assert done.stdout.splitlines()[-1] == "loaded"


def test_the_module_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "mlx_fp", "--version"], env=child_env(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "mlx-fp")


def test_without_a_word_the_help_comes_with_status_2():
    ended = called()
    assert (ended.status, ended.lines[0].split()[0]) == (2, "usage:")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["rnu", "train.py"], "unknown command 'rnu': did you mean 'run'?"),
        (
            ["run", "train.py", "--resum", "latest"],
            "unknown option of `mlx-fp run` '--resum': did you mean '--resume'?",
        ),
        (["settings", "train.py", "--quiet"], "unknown option of `mlx-fp settings` '--quiet'"),
        (["run"], "the following arguments are required: FILE[:NAME]; see `mlx-fp run --help`"),
        (["run", "train.py", "--ranks", "two"], "argument --ranks: a count, 1 or more, is expected; got 'two'"),
        (["run", "train.py", "--ranks", "0"], "argument --ranks: a count, 1 or more, is expected; got '0'"),
        (["bench", "train.py", "--seconds", "-1"], "argument --seconds: a number of seconds above 0 is expected"),
        (["run", "train.py", "--out"], "argument -o/--out: expected one argument"),
        (["runs", "a", "b"], "`mlx-fp runs` takes no further word; got 'b'"),
        (["--verison"], "unrecognized arguments: --verison"),
    ],
)
def test_a_wrong_word_is_one_line_with_the_nearest_right_one(words, text):
    assert refused(*words).startswith(text)


def test_options_may_stand_anywhere_among_the_words():
    parsed = parse(["run", "-q", "train.py", "epochs=3", "--out", "there", "seed=-1"])
    assert (parsed.target, parsed.changes, str(parsed.out), parsed.quiet) == (
        *("train.py", ["epochs=3", "seed=-1"], "there"),
        True,
    )


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shtab_makes_the_completion_of_a_shell(shell):
    shtab = pytest.importorskip("shtab")
    script = shtab.complete(parser(), shell)
    for word in ("mlx-fp", "compare", "--resume", "_shtab_compgen_files" if shell == "bash" else "_files"):
        assert word in script
