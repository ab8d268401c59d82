"""The folders of the trials of a sweep: a file in each folder holds the settings of its trial, by which it is found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from itertools import count
from math import isfinite
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, cast

from ..across._errors import from_first
from ..across._world import ALONE, World
from ..core._files import make_folder, write_whole
from ._experiment import Experiment, settings

__all__ = ["Folders", "identity"]

FILE = "settings.json"
"""The name of the file with the settings of a trial."""

_LENGTH = ("epochs", "steps")
"""The settings for the length of a run; a trial with another length is the same trial, and may go on for longer."""

_MAX_FILE_BYTES = 1 << 20
"""The maximum size of a file of settings that is read, in bytes."""

_MAX_DEPTH = 20
"""The maximum depth of containers in a setting that is described."""

_Plain = None | bool | int | float | str | list["_Plain"] | dict[str, "_Plain"]
"""A value that JSON can hold."""


class Folders:
    """The folder of each trial: an existing folder with its settings, or else a new one; no two trials share one."""

    def __init__(self, world: World = ALONE) -> None:
        self._world = world
        self._names_by_settings: dict[Path, dict[str, list[str]]] = {}
        self._names: dict[int, str] = {}

    def name(self, root: Path, number: int, trial_identity: str) -> str:
        """Return the name of the folder of a trial in the folder of the sweep, `root`.

        `number` is the number of the trial in the sweep, and `trial_identity` is the JSON that `identity` returns.
        """
        if number not in self._names:
            self._names[number] = from_first(self._world, partial(self._find, root, number, trial_identity))
        return self._names[number]

    def _find(self, root: Path, number: int, trial_identity: str) -> str:
        """Return the name of the folder with these settings. Make one where there is none."""
        if root not in self._names_by_settings:
            self._names_by_settings[root] = _existing_folders(root)
        names = self._names_by_settings[root].get(trial_identity)
        return names.pop(0) if names else _make_trial_folder(root, number, trial_identity)


def identity(variant: Experiment, case: Mapping[str, object]) -> str:
    """Return the settings of a trial as JSON, by which its folder is found.

    The length of the run and the settings of `artifacts` do not count, unless the sweep changes them in `case`.

    >>> from mlx_fp import nn
    >>> from mlx_fp.experiments._experiment import experiment
    >>> plain = experiment("e", model=lambda width=2: nn.linear(width, 1), loss=lambda m, x: m(x).mean(), data=[])
    >>> identity(plain, {"seed": 0}) == identity(plain, {"seed": 0, "model.width": 2})
    True
    """
    values = {path: value for path, value in settings(variant).items() if path.partition(".")[0] != "artifacts"}
    described = {path: value for path, value in values.items() if path not in _LENGTH} | dict(case)
    content = {"experiment": variant.name, "settings": _describe_value(described, ())}
    return json.dumps(content, indent=2, sort_keys=True)


def _existing_folders(root: Path) -> dict[str, list[str]]:
    """Return the names of the existing folders of trials in order, by the settings in them."""
    names: dict[str, list[str]] = {}
    files = [file for file in root.glob(f"trial-*/{FILE}") if file.is_file() and file.stat().st_size < _MAX_FILE_BYTES]
    for file in sorted(files, key=lambda file: (len(file.parent.name), file.parent.name)):
        names.setdefault(file.read_text(errors="replace"), []).append(file.parent.name)
    return names


def _make_trial_folder(root: Path, number: int, trial_identity: str) -> str:
    """Make the first free folder, from the number of the trial on, and write the settings into it."""
    make_folder(root)
    for folder_number in count(number):
        folder = root / f"trial-{folder_number}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        write_whole(folder / FILE, trial_identity.encode())
        return folder.name
    raise AssertionError


def _describe_value(value: object, above: tuple[int, ...]) -> _Plain:
    """Describe a setting as a plain value, the same in every process; functions are described by name and code.

    `above` holds the ids of the containers around the value, so that a container in itself ends the description.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else repr(value)
    if id(value) in above or len(above) > _MAX_DEPTH:
        return "..."
    describe_part: Callable[[object], _Plain] = partial(_describe_value, above=(*above, id(value)))
    if isinstance(value, Mapping):
        return {str(key): describe_part(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe_part(part) for part in value]
    if hasattr(value, "tolist"):
        array = cast(Any, value)
        return _describe_array(array) if array.shape else describe_part(array.tolist())
    if isinstance(value, partial):
        return [describe_part(part) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, FunctionType):
        parts = map(describe_part, _values_of_function(value))
        return [value.__qualname__, _short_digest(_describe_code(value.__code__)), *parts]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    has_repr = type(value).__repr__ is not object.__repr__
    state = _repr_without_address(value) if has_repr else describe_part(getattr(value, "__dict__", {}))
    return [type(value).__qualname__, state]


def _describe_array(array: Any) -> str:
    return f"{array.dtype} {tuple(array.shape)} {_short_digest(repr(array.tolist()))}"


def _values_of_function(fn: FunctionType) -> list[object]:
    """Return the defaults of a function, and the values of its closure."""
    closure: list[object] = []
    for cell in fn.__closure__ or ():
        try:
            closure.append(cell.cell_contents)
        except ValueError:  # the variable has no value yet
            closure.append(None)
    return [fn.__defaults__, fn.__kwdefaults__, *closure]


def _describe_code(code: CodeType) -> str:
    """Describe the code of a function without its position in a file."""
    constants = [_describe_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, constants))


def _repr_without_address(value: object) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _short_digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
