"""Load an experiment from a Python file, as `FILE` or `FILE:NAME`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ..core._absent import REMEDY
from ..core._user_path import user_path
from ..experiments._experiment import Experiment
from ._usage import UsageError, missing_path, unknown_word

__all__ = ["loaded_experiment"]


@contextmanager
def loaded_experiment(target: str) -> Iterator[Experiment]:
    """Within, yield the experiment of a file. Its folder is the first of the path of imports, as with `python FILE`.

    Args:
        target: A path, and after a colon the name of a variable where the file defines several experiments.

    Raises:
        UsageError: There is no such file or variable, or the choice is open; the message has the nearest right one.
    """
    path, name = _path_and_name(target)
    with _imported(path) as module:
        yield _chosen_experiment(_experiments(module), path, name)


def _path_and_name(target: str) -> tuple[Path, str]:
    """Return the path and the name of `FILE:NAME`; the name of `FILE` is empty.

    >>> _path_and_name(f"{__file__}:large")[1], _path_and_name(__file__)[1]
    ('large', '')
    """
    before, colon, name = target.rpartition(":")
    path = user_path(before if colon else target)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder, and a Python file is expected; {_python_files(path)}")
    if not path.is_file():
        raise missing_path("file", path, "*.py")
    if path.suffix != ".py":
        raise UsageError(f"{str(path)!r} is no Python file: experiments are defined in files *.py")
    return path, name if colon else ""


def _python_files(folder: Path) -> str:
    names = sorted(str(path) for path in folder.glob("*.py"))
    return f"it has {', '.join(names[:10]) or 'none'}"


@contextmanager
def _imported(path: Path) -> Iterator[ModuleType]:
    """Within, the module of a file is imported under the name of the file, so that its functions can be pickled."""
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_mlx_fp"
    spec = spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module, folder = module_from_spec(spec), str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        with _noted_without_mlx():
            spec.loader.exec_module(module)
        yield module
    finally:
        sys.modules.pop(name, None)
        sys.path.remove(folder)


@contextmanager
def _noted_without_mlx() -> Iterator[None]:
    """Add the extra to install to the error of a file that imports MLX where MLX is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "mlx":
            error.add_note(REMEDY)
        raise


def _experiments(module: ModuleType) -> dict[str, Experiment]:
    """Return the experiments of a module by the name of their variable; one with two names has the first."""
    found: dict[str, Experiment] = {}
    for name, value in vars(module).items():
        if isinstance(value, Experiment) and not any(value is other for other in found.values()):
            found[name] = value
    return found


def _chosen_experiment(found: dict[str, Experiment], path: Path, name: str) -> Experiment:
    if not found:
        raise UsageError(f"{str(path)!r} defines no experiment: assign fp.experiment(…) to a variable of the module")
    if name:
        by_name = {**{each.name: each for each in found.values()}, **found}
        if name not in by_name:
            raise unknown_word(f"experiment of {str(path)!r}", name, found)
        return by_name[name]
    if len(found) > 1:
        choices = ", ".join(f"{path}:{each}" for each in found)
        raise UsageError(f"{str(path)!r} defines {len(found)} experiments: choose one of {choices}")
    return next(iter(found.values()))
