"""The rules of the house, read off its files: floors, docstrings, lengths, and what an import costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mlx_fp"

FLOORS = (
    ("core",),
    ("tree",),
    ("compile",),
    ("nn", "optim", "data", "store"),
    ("task",),
    ("step",),
    ("checkpointing", "loop"),
    ("experiments", "testing"),
    ("show", "cli"),
)
"""DESIGN.md section 3, the lowest first; a name is a module or a package of mlx_fp."""

FLOOR = {name: number for number, names in enumerate(FLOORS, 1) for name in names}
APART = {"nn", "optim", "data"}
"""Packages of one floor that may not import each other."""

BESIDE = "cpu"
"""The package that stands beside the floors: it may import any of them, and any of them may import it."""

LONGEST = 260


def files():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree, module, is_package):
    """Yield `(line, full name)` of everything that a file imports from mlx_fp, wherever in the file."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "mlx_fp")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            if full[:1] == ["mlx_fp"]:
                yield from ((node.lineno, ".".join([*full, alias.name])) for alias in node.names)


def home(name):
    """The module or package of mlx_fp that a full name is in."""
    return name.split(".")[1] if "." in name else ""


def faults(module, text, is_package=False):
    """What is wrong with a file's imports, one line each."""
    mine = home(module)
    if mine in ("", BESIDE):  # the face of the house, free to show all of it, and what stands beside it
        return []
    if mine not in FLOOR:
        return [f"{module}: {mine!r} has no floor: give it one in DESIGN.md section 3 and in FLOORS"]
    found = []
    for line, name in imported(ast.parse(text), module, is_package):
        theirs = home(name)
        if theirs in (mine, BESIDE) or (theirs.startswith("__") and theirs.endswith("__")):
            continue
        if theirs not in FLOOR:
            found.append(f"{module}:{line} imports {name}, which has no floor")
        elif FLOOR[theirs] > FLOOR[mine]:
            found.append(f"{module}:{line} imports {name}, from floor {FLOOR[mine]} up to floor {FLOOR[theirs]}")
        elif {theirs, mine} <= APART:
            found.append(f"{module}:{line} imports {name}: {mine} and {theirs} stand apart")
    return found


def test_nobody_imports_upward():
    found = [
        fault
        for path in files()
        for fault in faults(module_of(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "text", "wrong"),
    [
        ("mlx_fp.tree._paths", "from ..nn._layer import layer", True),
        ("mlx_fp.tree._paths", "from .. import step", True),
        ("mlx_fp.tree._paths", "import mlx_fp.step._train", True),
        ("mlx_fp.tree._paths", "from mlx_fp import nn", True),
        ("mlx_fp.core._signature", "def f():\n    from ..tree._paths import paths", True),
        ("mlx_fp.core._signature", "if TYPE_CHECKING:\n    from ..tree._paths import paths", True),
        ("mlx_fp.nn._layer", "from ..optim import sgd", True),
        ("mlx_fp.nn._layer", "from .. import data", True),
        ("mlx_fp.optim._wrap", "from ..nn._layer import Layer", True),
        ("mlx_fp.nonsense", "import ast", True),
        ("mlx_fp.tree._paths", "from .. import nonsense", True),
        ("mlx_fp.tree._paths", "from ..core import _mlx\nfrom ._select import select\nimport numpy", False),
        ("mlx_fp.nn._layer", "from ..compile import rng\nfrom ._lift import lift\nfrom . import losses", False),
        ("mlx_fp.nn._layer", "from ..cpu._composed import attention", False),
        ("mlx_fp.step._train", "from ..nn._layer import Layer\nfrom ..task._folds import Metric", False),
        ("mlx_fp.cpu._grouping", "from ..tree._paths import flat", False),
        ("mlx_fp.cli", "from . import __version__", False),
        ("mlx_fp", "from . import cli", False),
    ],
)
def test_the_reader_of_imports_sees_an_upward_one(module, text, wrong):
    assert bool(faults(module, text)) == wrong


def test_a_package_reads_its_own_relative_imports():
    assert faults("mlx_fp.nn", "from ..optim import sgd", True)
    assert not faults("mlx_fp.nn", "from ._layer import Layer\nfrom ..core import _mlx", True)


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_file_is_not_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{module_of(path)} has {lines} lines: one idea each, {LONGEST} at most"


def public():
    """Yield `(full name, object)` of every public module, name and method, of importable modules."""
    for path in files():
        name = module_of(path)
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            if (error.name or "").startswith(("mlx_fp", "mlx")):
                raise
            continue  # a module for an extra that is not installed
        yield name, module
        if name == "mlx_fp":
            continue  # the face shows what others have
        for public_name in getattr(module, "__all__", ()):
            value = getattr(module, public_name)
            yield f"{name}.{public_name}", value
            if inspect.isclass(value) and value.__module__.startswith("mlx_fp"):
                yield from ((f"{name}.{public_name}.{m}", v) for m, v in vars(value).items() if _method(m, v))


def _method(name, value):
    if name == "__call__":
        return True
    return not name.startswith("_") and (callable(value) or isinstance(value, (property, classmethod, staticmethod)))


def documented(full, value):
    if inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, property):
        return bool(inspect.getdoc(value)) and not _made_by_dataclass(value)
    return (bool(getattr(value, "__doc__", None)) and value.__doc__ != type(value).__doc__) or _has_text_below(full)


def _made_by_dataclass(value):
    """Whether a record's docstring is only the signature that `dataclass` writes."""
    return inspect.isclass(value) and (value.__doc__ or "").startswith(f"{value.__name__}(")


def _has_text_below(full):
    """Whether a constant, a name for a type, or a wrapped function has its text in the file that defines it."""
    module, _, name = full.rpartition(".")
    source = importlib.import_module(module)
    body = ast.parse(Path(source.__file__).read_text(encoding="utf-8")).body
    for node, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) is not None
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return isinstance(following, ast.Expr) and isinstance(getattr(following.value, "value", None), str)
    return any(_imported_from(node, name, full) for node in body)


def _imported_from(node, name, full):
    """A name that is only passed on is documented where it is made."""
    if not isinstance(node, ast.ImportFrom) or name not in [a.name for a in node.names]:
        return False
    module = importlib.import_module(full.rpartition(".")[0])
    package = module.__name__ if hasattr(module, "__path__") else module.__package__
    source = importlib.import_module("." * node.level + (node.module or ""), package)
    return _has_text_below(f"{source.__name__}.{name}")


EXEMPT = {"mlx_fp.core._types.Array", "mlx_fp.core._mlx.mx", "mlx_fp.core._mlx.utils"}
"""What is mlx's own."""


def test_every_public_name_says_what_it_is():
    bare = [full for full, value in public() if full not in EXEMPT and not documented(full, value)]
    assert not bare, "no docstring: " + ", ".join(bare)


def test_the_reader_of_docstrings_misses_nothing():
    found = dict(public())
    named = ("step._train.Step.init", "compile._compiled.Compiled.__call__", "nn.linear", "tree._select.nothing")
    for name in named:
        assert f"mlx_fp.{name}" in found
    assert not documented("mlx_fp.step._train.nobody", lambda: 0)
    assert not documented("mlx_fp.compile._compiled._MANY_", 5)


def test_every_module_says_what_is_public_and_has_it():
    for path in files():
        text = path.read_text(encoding="utf-8")
        if path.stem in ("__init__", "__main__") and not ast.parse(text).body[1:]:
            continue
        names = [
            target.id
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        assert "__all__" in names or path.stem == "__main__", f"{module_of(path)} has no __all__"


def test_the_face_agrees_with_what_type_checkers_read():
    import mlx_fp

    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    block = next(n for n in body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    read = {
        alias.asname or alias.name: (f"mlx_fp.{node.module}" if node.module else "mlx_fp", alias.name)
        for node in imports
        for alias in node.names
    }
    for node in block.body:
        if isinstance(node, ast.Assign):  # a module under another name
            read[node.targets[0].id] = read.pop(node.value.id)
    assert sorted(read) == sorted(mlx_fp.__all__)
    for node in imports:
        same = all(alias.asname == alias.name or alias.name.startswith("_") for alias in node.names)
        assert same, f"line {node.lineno}: export as the same name"
    for name, (home_of, own) in read.items():
        value = getattr(mlx_fp, name)
        module = inspect.ismodule(value)
        assert value is (
            importlib.import_module(f"{home_of}.{own}") if module else getattr(importlib.import_module(home_of), own)
        )
    assert set(mlx_fp.__all__) < set(dir(mlx_fp))


def test_an_unknown_name_comes_back_with_candidates():
    import mlx_fp

    with pytest.raises(AttributeError, match="unknown name in mlx_fp 'freez': did you mean 'freeze'"):
        mlx_fp.freez


def ran(code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_costs_neither_mlx_nor_numpy():
    heavy = ("mlx", "mlx.core", "numpy", "matplotlib", "rich")
    assert ran(f"import mlx_fp, sys; print(*(m for m in {heavy} if m in sys.modules))") == []


BLOCKED = "import sys\nfor name in ('mlx', 'mlx.core', 'mlx.nn', 'mlx.utils'): sys.modules[name] = None\n"


LIGHT = [
    "core._errors",
    "core._registry",
    "core._signature",
    "core._text",
    "core._types",
    "data",
    "loop._event",
    "loop._hook",
    "loop._monitor",
    "loop._progress",
    "loop._report",
    "store._bundle",
    "store._files",
    "tree._select",
]


@pytest.mark.parametrize("name", LIGHT)
def test_without_mlx_the_first_floor_data_hooks_and_reports_load(name):
    code = (
        f"import importlib\npart = importlib.import_module('mlx_fp.{name}')\n"
        "for n in part.__all__: getattr(part, n)\nprint(len(part.__all__) > 0)"
    )
    assert ran(BLOCKED + code) == ["True"]


@pytest.mark.parametrize("use", ["mlx_fp.nn", "mlx_fp.optim", "mlx_fp.train_step", "mlx_fp.norm", "mlx_fp.rng"])
def test_without_mlx_the_first_use_of_an_array_says_what_to_install(use):
    code = f"""
import mlx_fp
try:
    {use}
except ImportError as error:
    print("mlx-fp[cpu]" in str(error), "mlx-fp[cuda12]" in str(error), error.__cause__ is not None)
"""
    assert ran(BLOCKED + code) == ["True", "True", "True"]
