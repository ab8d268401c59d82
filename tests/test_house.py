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
    ("compile", "across"),
    ("data", "nn", "optim", "store", "page"),
    ("task",),
    ("step",),
    ("checkpointing", "exporting"),
    ("loop",),
    ("experiments", "lm"),
    ("show", "testing"),
    ("command",),
)
"""The floors of ARCHITECTURE.md, the lowest first. Folders of one floor do not import each other."""

FLOOR = {name: number for number, names in enumerate(FLOORS, 1) for name in names}
BESIDE = {"cpu": 3}
"""Folders beside the floors, which nobody imports, and the highest floor that they may import."""

LONGEST_FILE = 260
LONGEST_FUNCTION = 40
MOST_PUBLIC_NAMES = 280
OF_MLX = ("nn._mlx_layers", "nn._mlx_activations", "nn.losses", "nn.initializers", "optim._mlx_optimizers")


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


def folder(name):
    """The folder, or the file on the top level, that a full name is in."""
    return name.split(".")[1] if "." in name else ""


def faults(module, text, is_package=False):
    """What is wrong with a file's imports, one line each."""
    mine = folder(module)
    if mine in ("", "__main__"):  # the face and the door of the house, free to show all of it
        return []
    if mine not in FLOOR and mine not in BESIDE:
        return [f"{module}: {mine!r} has no floor: give it one in ARCHITECTURE.md and in FLOORS"]
    found = []
    for line, name in imported(ast.parse(text), module, is_package):
        theirs = folder(name)
        if theirs == mine or (theirs.startswith("__") and theirs.endswith("__")):
            continue
        here = f"{module}:{line} imports {name}"
        if theirs in BESIDE:
            found.append(f"{here}: only core/_mlx.py enters {theirs}/, when MLX is first used")
        elif theirs not in FLOOR:
            found.append(f"{here}, which has no floor")
        elif mine in BESIDE and FLOOR[theirs] > BESIDE[mine]:
            found.append(f"{here}: {mine} stands on floor {BESIDE[mine]}")
        elif mine in FLOOR and FLOOR[theirs] >= FLOOR[mine]:
            found.append(f"{here}, from floor {FLOOR[mine]} to floor {FLOOR[theirs]}")
    return found


def graph():
    """Which files each file imports, by module name; imports within functions and for type checkers count."""
    modules = {module_of(path): path for path in files()}
    arrows = {}
    for module, path in modules.items():
        names = imported(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py")
        targets = (name if name in modules else name.rpartition(".")[0] for _, name in names)
        arrows[module] = {target for target in targets if target in modules and target != module}
    return arrows


def derived_floors(arrows):
    """The floor of each file, one above the highest that it imports, and the files that stand in a circle."""
    floors = {}
    while True:
        ready = [m for m, targets in arrows.items() if m not in floors and targets <= floors.keys()]
        if not ready:
            return floors, sorted(arrows.keys() - floors.keys())
        floors |= {m: 1 + max((floors[t] for t in arrows[m]), default=0) for m in ready}


def test_nobody_imports_upward():
    found = [
        fault
        for path in files()
        for fault in faults(module_of(path), path.read_text(encoding="utf-8"), path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_no_file_stands_in_a_circle():
    arrows = graph()
    arrows.pop("mlx_fp")
    floors, circles = derived_floors({m: targets - {"mlx_fp"} for m, targets in arrows.items()})
    assert not circles, "files in a circle, or above one: " + ", ".join(circles)
    assert len(floors) == len(arrows)


def test_the_reader_of_circles_finds_one_within_a_folder():
    floors, circles = derived_floors({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()})
    assert (floors, circles) == ({"d": 1}, ["a", "b", "c"])


def test_every_folder_has_a_floor_and_every_floor_its_folders():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__", *BESIDE} == FLOOR.keys()


def test_the_plan_on_the_wall_has_every_folder():
    plan = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [name for name in (*FLOOR, *BESIDE) if f"`{name}" not in plan] == []


@pytest.mark.parametrize(
    ("module", "text", "wrong"),
    [
        ("mlx_fp.tree._paths", "from ..nn import linear", True),
        ("mlx_fp.tree._paths", "from .. import step", True),
        ("mlx_fp.tree._paths", "import mlx_fp.step", True),
        ("mlx_fp.tree._paths", "from mlx_fp import nn", True),
        ("mlx_fp.core._text", "def f():\n    from ..tree._paths import paths", True),
        ("mlx_fp.core._text", "if TYPE_CHECKING:\n    from ..tree._paths import paths", True),
        ("mlx_fp.nn._layer", "from ..optim import sgd", True),
        ("mlx_fp.nn._layer", "from .. import data", True),
        ("mlx_fp.optim._wrap", "from ..cpu import tuned", True),
        ("mlx_fp.cpu._backend", "from ..nn import linear", True),
        ("mlx_fp.nonsense", "import ast", True),
        ("mlx_fp.tree", "from . import nonsense", True),
        ("mlx_fp.tree._paths", "from ..core._mlx import mx\nfrom ._select import select\nimport numpy", False),
        ("mlx_fp.nn._layer", "from ..compile import rng\nfrom ._lift import lift\nfrom . import losses", False),
        ("mlx_fp.step._train", "from ..nn._layer import Layer\nfrom ..task._folds import Metric", False),
        ("mlx_fp.cpu._backend", "from ..core.backend import Backend\nfrom ..compile import rng", False),
        ("mlx_fp.testing", "from . import __version__", False),
        ("mlx_fp", "from . import show", False),
    ],
)
def test_the_reader_of_imports_sees_an_upward_one(module, text, wrong):
    assert bool(faults(module, text)) == wrong


def test_a_package_reads_its_own_relative_imports():
    assert faults("mlx_fp.nn", "from ..optim import sgd", True)
    assert not faults("mlx_fp.nn", "from ._layer import Layer\nfrom ..core import _mlx", True)


def test_without_the_folder_for_cpus_nothing_else_names_it():
    """The fence: deleted, the rest works; the door alone says its name."""
    named = [
        module_of(path)
        for path in files()
        if path.parent.name != "cpu" and any(word in path.read_text(encoding="utf-8") for word in ("cpu._", '"cpu"'))
    ]
    assert set(named) <= {"mlx_fp", "mlx_fp.core._mlx"}


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_a_file_is_not_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{module_of(path)} has {lines} lines: one idea each, {LONGEST_FILE} at most"


def code_lines(function):
    """How many lines of a function hold code: docstrings, comments and blank lines do not count."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return len(ast.unparse(body).splitlines()) + 1


def test_no_function_is_long():
    long = [
        f"{module_of(path)}.{node.name}: {code_lines(node)}"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and code_lines(node) > LONGEST_FUNCTION
    ]
    assert not long, ", ".join(long)


def public_modules():
    """The modules that a user may import: no part of their names begins with an underscore."""
    inside = {
        "core",
        "tree",
        "compile",
        "across",
        "task",
        "step",
        "checkpointing",
        "exporting",
        "loop",
        "experiments",
        "store",
        "page",
        "command",
    }
    names = [module_of(path) for path in files() if not path.stem.startswith("_") or path.name == "__init__.py"]
    return [name for name in names if folder(name) not in inside or "." in name.partition(".")[2]]


def test_the_public_names_are_few():
    of_mlx = {name for module in OF_MLX for name in importlib.import_module(f"mlx_fp.{module}").__all__}
    names = {name: set(importlib.import_module(name).__all__) - of_mlx for name in public_modules()}
    assert sum(map(len, names.values())) <= MOST_PUBLIC_NAMES, {name: len(each) for name, each in names.items()}


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


DOOR = ("mlx_nn", "mlx_optimizers", "mx", "utils")
EXEMPT = {"mlx_fp.core._types.Array", *(f"mlx_fp.core._mlx.{name}" for name in DOOR)}
"""What is mlx's own."""


def test_every_public_name_says_what_it_is():
    bare = [full for full, value in public() if full not in EXEMPT and not documented(full, value)]
    assert not bare, "no docstring: " + ", ".join(bare)


def test_the_reader_of_docstrings_misses_nothing():
    found = dict(public())
    for name in (
        "mlx_fp.step._train_step.TrainStep.init",
        "mlx_fp.compile._compiled.Compiled.__call__",
        "mlx_fp.nn.linear",
        "mlx_fp.tree._select.nothing",
    ):
        assert name in found
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
    read = {
        alias.asname: f"mlx_fp.{node.module}" if node.module else f"mlx_fp.{alias.name}"
        for node in block.body
        for alias in node.names
    }
    assert sorted(read) == sorted(mlx_fp.__all__)
    for node in block.body:
        assert all(alias.asname == alias.name for alias in node.names), f"line {node.lineno}: export as the same name"
    missing = {name for name in BESIDE if not (PACKAGE / name).is_dir()}
    for name, module in read.items():
        if name in missing:  # the library works without the folders beside the floors
            continue
        value, source = getattr(mlx_fp, name), importlib.import_module(module)
        assert value is (source if module == f"mlx_fp.{name}" and inspect.ismodule(value) else getattr(source, name))
    assert set(mlx_fp.__all__) < set(dir(mlx_fp))


@pytest.mark.parametrize("name", ["data", "nn", "optim"])
def test_the_late_names_of_a_package_agree_with_what_type_checkers_read(name):
    package = importlib.import_module(f"mlx_fp.{name}")
    body = ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8")).body
    block = next(n for n in body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    read = {f".{node.module or ''}": set() for node in block.body}
    for node in block.body:
        assert all(alias.asname in (alias.name, None) for alias in node.names), f"line {node.lineno}"
        read[f".{node.module or ''}"] |= {alias.name for alias in node.names}
    modules = read.pop(".", set())
    for module, names in package._NAMES.items():
        found = importlib.import_module(module, package.__name__)
        assert read.pop(module) in (set(names), {"*"})
        assert "*" not in names
        assert set(names) <= set(found.__all__)
    assert read == {}
    late = {each for names in package._NAMES.values() for each in names} | modules
    assert late <= set(package.__all__)
    assert all(getattr(package, each) is not None for each in package.__all__)


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
