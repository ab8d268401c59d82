"""The folders of the trials of a sweep: each knows its trial by the settings, which are in a file in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from itertools import count
from math import isfinite
from pathlib import Path
from types import FunctionType
from typing import Any

from ..checkpointing._policy import Policy
from ..store._files import make_folder, write_whole
from ._experiment import Experiment, settings

__all__ = ["Folders", "identity"]

FILE = "settings.json"
"""What the file with the settings of a trial is called."""

_LENGTH = ("epochs", "steps")
"""How long a run is: the same trial may go on for longer."""

_LIMIT = 1 << 20
"""Bytes of the largest file of settings that is read."""


_DEEPEST = 20
"""How many containers, one within the other, a setting is described through."""


class Folders:
    """Gives each trial the folder that has its settings, or a new one, `trial-1` and so on; no two the same."""

    def __init__(self) -> None:
        self._found: dict[Path, dict[str, list[str]]] = {}
        self._given: dict[int, str] = {}

    def inside(self, policy: Policy, number: int, known: str) -> Policy:
        """Return the policy with its files in the folder of a trial, by its number in the sweep and its identity."""
        if number not in self._given:
            root = policy.inside("trial").folder.parent
            if root not in self._found:
                self._found[root] = _found(root)
            names = self._found[root].get(known)
            self._given[number] = names.pop(0) if names else _new(root, number, known)
        return policy.inside(self._given[number])


def identity(variant: Experiment, case: Mapping[str, Any]) -> str:
    """Tell a trial from others, as JSON: its settings, but not how long it runs or where it writes, unless swept.

    >>> from mlx_fp import nn
    >>> from mlx_fp.experiments._experiment import experiment
    >>> plain = experiment("e", model=lambda width=2: nn.linear(width, 1), loss=lambda m, x: m(x).mean(), data=[])
    >>> identity(plain, {"seed": 0}) == identity(plain, {"seed": 0, "model.width": 2})
    True
    """
    rest = {path: value for path, value in settings(variant).items() if path.partition(".")[0] != "artifacts"}
    told = {path: value for path, value in rest.items() if path not in _LENGTH} | dict(case)
    return json.dumps({"experiment": variant.name, "settings": _told(told, ())}, indent=2, sort_keys=True)


def _found(root: Path) -> dict[str, list[str]]:
    """Return the names of the folders of trials that there are, by the settings in them, in order."""
    found: dict[str, list[str]] = {}
    files = [file for file in root.glob(f"trial-*/{FILE}") if file.is_file() and file.stat().st_size < _LIMIT]
    for file in sorted(files, key=lambda file: (len(file.parent.name), file.parent.name)):
        found.setdefault(file.read_text(errors="replace"), []).append(file.parent.name)
    return found


def _new(root: Path, number: int, known: str) -> str:
    """Make the first folder that is not there, from that of the trial's number on, and put the settings in it."""
    make_folder(root)
    for at in count(number):
        folder = root / f"trial-{at}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        write_whole(folder / FILE, known.encode())
        return folder.name
    raise AssertionError


def _told(value: Any, above: tuple[int, ...]) -> Any:
    """Say what a setting is, the same in every process: numbers and texts as they are, functions by name and code."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if id(value) in above or len(above) > _DEEPEST:
        return "..."
    into: Callable[[Any], Any] = partial(_told, above=(*above, id(value)))
    if isinstance(value, Mapping):
        return {str(key): into(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [into(one) for one in value]
    if hasattr(value, "tolist"):
        return into(value.tolist()) if not value.shape else _array(value)
    if isinstance(value, partial):
        return [into(value.func), into(value.args), into(value.keywords)]
    if isinstance(value, FunctionType):
        return [value.__qualname__, _digest(_code(value.__code__)), *map(into, _held(value))]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    kind: Any = type(value)
    plain = kind.__repr__ is not object.__repr__
    return [kind.__qualname__, _unplaced(value) if plain else into(getattr(value, "__dict__", {}))]


def _array(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)} {_digest(repr(value.tolist()))}"


def _held(fn: FunctionType) -> list[Any]:
    """List the values that a function holds: its defaults, and what it takes from the functions around it."""
    cells = []
    for cell in fn.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            cells.append(None)
    return [fn.__defaults__, fn.__kwdefaults__, *cells]


def _code(code: Any) -> str:
    """Say what a function does, but not where it stands in its file."""
    consts = [_code(one) if hasattr(one, "co_code") else repr(one) for one in code.co_consts]
    return repr((code.co_code, code.co_names, consts))


def _unplaced(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
