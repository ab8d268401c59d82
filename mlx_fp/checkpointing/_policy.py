"""When a run writes checkpoints, under which names, and which of them it keeps."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..core._errors import is_count, located, unknown
from ..core._frozen import freeze_field
from ..core._options import FLAG, check_options
from ..core._pickling import Picklable
from ..core._plain import check_plain
from ..core._signature import name_of, with_context
from ..core._user_path import user_path
from ..store._checkpoint_path import OTHER_SUFFIXES, suffixed

__all__ = ["FIELDS", "Policy", "as_template"]

FIELDS = ("epoch", "next_epoch", "step", "monitor", "monitor_name", "epoch_loss", "improved")
"""What the path of a checkpoint may be made of."""

_SAMPLE = {
    "epoch": 1,
    "next_epoch": 2,
    "step": 3,
    "monitor": 0.5,
    "monitor_name": "m",
    "epoch_loss": 0.5,
    "improved": True,
}
_FLAGS = dict.fromkeys(("best", "latest", "background", "trainable_only", "bundle"), FLAG)

_OTHER = {
    "epoch": 4,
    "next_epoch": 5,
    "step": 6,
    "monitor": 7.5,
    "monitor_name": "n",
    "epoch_loss": 8.5,
    "improved": False,
}


@dataclass(frozen=True, slots=True)
class Policy(Picklable):
    """Where checkpoints are written, when, and which of them stay; the verb `checkpoints` makes one.

    A file belongs to a policy where the policy, given what the file's metadata say, names that very file.

    Raises:
        ValueError: an option is no count, nothing is ever due, or a path names one file for several that are to stay.
    """

    path: str | Callable[..., Any]
    best: bool = False
    every: int | None = 1
    every_steps: int | None = None
    keep_last: int | None = None
    keep_best: int = 1
    background: bool = False
    trainable_only: bool = False
    latest: bool = False
    bundle: bool = False
    user: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_options("checkpoints", {name: getattr(self, name) for name in _FLAGS}, _FLAGS)
        for name in ("every", "every_steps", "keep_last", "keep_best"):
            count = getattr(self, name)
            if count is not None and not is_count(count, least=1):
                raise ValueError(f"{name} is a count, 1 or more, or None; got {count!r}")
        if self.every is None and self.every_steps is None and not self.best:
            raise ValueError(
                "checkpoints are written after epochs, after steps, or for the best; none of them is asked for"
            )
        _ = self.folder
        suffixed(_render(self.path, _SAMPLE))
        if self.keep_last is not None:
            _check_several(self)
        for values in (_SAMPLE, _OTHER):
            self._check_latest(suffixed(_render(self.path, values)))
        if self.user is not None and not isinstance(self.user, Mapping):
            raise TypeError(f"user is a dict of values that each file is to hold; got {self.user!r}")
        check_plain(self.user, "user")
        object.__setattr__(self, "user", None if self.user is None else deepcopy(dict(self.user)))
        freeze_field(self, "user")

    @property
    def folder(self) -> Path:
        """The folder under which all files of the policy are; no file is written outside it."""
        return Path(os.path.commonpath([_render(self.path, _SAMPLE).parent, _render(self.path, _OTHER).parent]) or ".")

    @property
    def latest_path(self) -> Path | None:
        """The file that holds the newest state at any time; None without `latest`."""
        return self.folder / f"latest{suffixed(_render(self.path, _SAMPLE)).suffix}" if self.latest else None

    @property
    def bundle_path(self) -> Path | None:
        """The file of the run bundle; None without `bundle`."""
        return self.folder / "bundle.json" if self.bundle else None

    def of(self, metadata: Mapping[str, Any]) -> Path:
        """Return the file for a state of which the metadata tell. ValueError for a path outside the folder."""
        path = suffixed(self.file(_fields(metadata)))
        self._check_latest(path)
        return path

    def name_of(self, path: Path) -> str:
        """Return what the metadata of a file of the policy call it: its path from the folder."""
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def owns(self, path: Path, metadata: Mapping[str, Any]) -> bool:
        """Tell whether a file with such metadata is of this policy.

        >>> state = {"epoch": 3, "step": 12, "monitor_value": None}
        >>> [Policy("runs/ep-{epoch}").owns(Path(f"runs/{name}.npz"), state) for name in ("ep-3", "ep-4")]
        [False, False]
        >>> Policy("runs/ep-{epoch}").owns(Path("./runs/ep-3.safetensors"), state)
        True
        """
        try:
            own = suffixed(_render(self.path, _fields(metadata)))
        except Exception:  # a function of the user gets metadata that may hold anything
            return False
        if self.latest_path is not None and _is_same(path, self.latest_path):
            return metadata.get("file") == self.name_of(own)
        return _is_same(path, own)

    def file(self, values: Mapping[str, Any]) -> Path:
        """Return the path for what `FIELDS` name. ValueError for one outside the folder."""
        made, folder = _render(self.path, values), self.folder
        inside = Path(os.path.abspath(made)).is_relative_to(os.path.abspath(folder))
        if not inside or ".." in made.parts:
            raise ValueError(f"the checkpoint path {os.fspath(made)!r} is outside of {os.fspath(folder)!r}")
        return made

    def inside(self, name: str) -> Policy:
        """Return the policy with its files in a folder of that name; ValueError for a path that is a function.

        >>> Policy("runs/{monitor_name}/ep-{epoch}").inside("trial-1").path
        'runs/trial-1/{monitor_name}/ep-{epoch}'
        """
        if not isinstance(self.path, str):
            raise ValueError("trials would write to the same files: give checkpoints a template, not a function")
        parts, above = Path(self.path).parts, len(self.folder.parts)
        return replace(self, path=str(Path(*parts[:above], name, *parts[above:])))

    def due(self, epoch: int, improved: bool) -> bool:
        """Whether the end of an epoch is to be kept."""
        return (self.best and improved) or (self.every is not None and (epoch + 1) % self.every == 0)

    def due_at(self, step: int, taken: int = 1) -> bool:
        """Whether the state after so many steps, the last of them taken at once, is to be kept."""
        return self.every_steps is not None and step // self.every_steps > (step - taken) // self.every_steps

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        files = {"latest": self.latest_path, "bundle": self.bundle_path}
        named = {name: None if path is None else str(path) for name, path in files.items()}
        return {**plain, **named, "path": self.path if isinstance(self.path, str) else name_of(self.path)}

    def _check_latest(self, path: Path) -> None:
        """Refuse a path that cannot have the newest state beside it under another name."""
        latest = self.latest_path
        if latest is not None and (_is_same(path, latest) or path.suffix != latest.suffix):
            fault = f"{os.fspath(path)!r} is to have another name, and the same suffix"
            raise ValueError(f"latest=True keeps the newest state in {os.fspath(latest)!r}: {fault}")


def _is_same(path: Path, other: Path) -> bool:
    return os.path.abspath(path) == os.path.abspath(other)


def _check_several(policy: Policy) -> None:
    """Refuse a path that is one for checkpoints that are all to be kept."""
    later = {"step": 6} if policy.every_steps else {"epoch": 4, "next_epoch": 5, "step": 6}
    if policy.file(_SAMPLE) == policy.file({**_SAMPLE, **later}):
        what = "{step}" if policy.every_steps else "{epoch} or {step}"
        raise ValueError(f"keep_last keeps several files, and {_spelled(policy)!r} names one: put {what} in")


def as_template(path: Any) -> str:
    """Check a template: known names only, no attributes or items, and no widths that would fill the memory.

    >>> as_template("runs/ep-{epohc}")
    Traceback (most recent call last):
    ValueError: unknown field 'epohc': did you mean 'epoch'? known: epoch, next_epoch, step, monitor, ...
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the path of checkpoints is a text or a function; got {path!r}")
    given = os.fspath(path)
    if not isinstance(given, str) or not given:
        raise ValueError(f"the path of checkpoints is a text; got {given!r}")
    text = os.fspath(user_path(given)) if given.startswith("~") else given
    for _, field, spec, _ in string.Formatter().parse(text):
        if field is None:
            continue
        if field not in FIELDS:
            raise ValueError(unknown("field", field, FIELDS))
        digits = "".join(c if c.isdigit() else " " for c in spec or "").split()
        if "{" in (spec or "") or any(int(number) > 99 for number in digits):
            raise ValueError(f"the format {spec!r} of {field!r} is too wide, or made of other fields")
    return text


def _spelled(policy: Policy) -> str:
    return os.path.relpath(policy.path, policy.folder) if isinstance(policy.path, str) else name_of(policy.path)


def _fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what metadata say for a path: values of `FIELDS`."""
    values = {**metadata, "epoch": max(metadata["epoch"], 0), "monitor": metadata["monitor_value"]}
    return {name: _shown(values.get(name)) for name in FIELDS}


def _shown(value: Any) -> Any:
    return float("nan") if value is None else value.replace(os.sep, "_") if isinstance(value, str) else value


def _render(path: str | Callable[..., Any], values: Mapping[str, Any]) -> Path:
    if isinstance(path, str):
        return Path(path.format(**values))
    with located(path_function=name_of(path)):
        made = with_context(path, offers=FIELDS, values=0, what="checkpoint path")(**values)
    if not isinstance(made, (str, os.PathLike)) or not os.fspath(made):
        raise TypeError(f"the function {name_of(path)!r} gives the path of a checkpoint, a text; it gave {made!r}")
    if user_path(made).suffix in OTHER_SUFFIXES:
        told = "a checkpoint ends in .safetensors or .npz"
        raise ValueError(f"the function {name_of(path)!r} gives the path of a checkpoint: {told}; it gave {made!r}")
    return user_path(made)
