"""The policy of the checkpoints of a run: when to write them, under which paths, and which to keep."""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..core._context import with_context
from ..core._errors import is_count, located, unknown
from ..core._frozen import freeze_field
from ..core._options import FLAG, check_options
from ..core._pickling import Picklable
from ..core._plain import check_plain
from ..core._signature import name_of
from ..core._user_path import user_path
from ..store._checkpoint import Metadata
from ..store._checkpoint_path import OTHER_SUFFIXES, suffixed

__all__ = ["BUNDLE", "FIELDS", "Policy", "as_template"]

PathFunction: TypeAlias = Callable[..., str | os.PathLike[str]]
"""A function of some of `FIELDS`, which returns the path of a checkpoint."""

BUNDLE = "bundle.json"
"""The name of the file of the run bundle."""

FIELDS = ("epoch", "next_epoch", "step", "monitor", "monitor_name", "epoch_loss", "improved")
"""The fields of a path template."""

_SAMPLES: tuple[dict[str, object], ...] = (
    dict(zip(FIELDS, (1, 2, 3, 0.5, "m", 0.5, True), strict=True)),
    dict(zip(FIELDS, (4, 5, 6, 7.5, "n", 8.5, False), strict=True)),
)
"""Two samples of fields, to see which parts of a path depend on them."""

_FLAG_RULES = dict.fromkeys(("best", "latest", "background", "trainable_only", "bundle"), FLAG)


@dataclass(frozen=True, slots=True)
class Policy(Picklable):
    """Hold the options of `checkpoints`: where and when to write checkpoints, and which to keep.

    A file belongs to a policy if the policy computes the path of the file from the metadata of the file. For example,
    `runs/ep-3.safetensors` with `epoch=3` belongs to `Policy("runs/ep-{epoch}")`.

    Args:
        path: A template of `FIELDS`, or a function of some of them.
        best: Whether to write a checkpoint after each epoch that improves the monitor.
        every: The number of epochs between two checkpoints. None: no checkpoints after epochs.
        every_steps: The number of steps between two checkpoints. None: no checkpoints within epochs.
        keep_last: The number of newest checkpoints to keep. None: all.
        keep_best: The number of best checkpoints to keep.
        background: Whether a thread writes the files.
        trainable_only: Whether the files leave frozen weights out.
        latest: Whether to keep the newest checkpoint also under a fixed name.
        bundle: Whether to write the run bundle at the end.
        user: Plain values for the metadata of each file.

    Raises:
        ValueError: An option is no count, no checkpoint would be written, or several checkpoints to keep would have the
            same path.
        TypeError: An option has the wrong type.
    """

    path: str | PathFunction
    best: bool = False
    every: int | None = 1
    every_steps: int | None = None
    keep_last: int | None = None
    keep_best: int = 1
    background: bool = False
    trainable_only: bool = False
    latest: bool = False
    bundle: bool = False
    user: Metadata | None = None

    def __post_init__(self) -> None:
        check_options("checkpoints", {name: getattr(self, name) for name in _FLAG_RULES}, _FLAG_RULES)
        for name in ("every", "every_steps", "keep_last", "keep_best"):
            count = getattr(self, name)
            if count is not None and not is_count(count, least=1):
                raise ValueError(f"{name} is a count, 1 or more, or None; got {count!r}")
        if self.every is None and self.every_steps is None and not self.best:
            raise ValueError(
                "checkpoints are written after epochs, after steps, or for the best; no option requests any of them"
            )
        _ = self.folder
        suffixed(_render(self.path, _SAMPLES[0]))
        if self.keep_last is not None:
            _check_distinct(self)
        for values in _SAMPLES:
            self._check_latest(suffixed(_render(self.path, values)))
        if self.user is not None and not isinstance(self.user, Mapping):
            raise TypeError(f"user is a dict of plain values for each file; got {self.user!r}")
        check_plain(self.user, "user")
        object.__setattr__(self, "user", None if self.user is None else deepcopy(dict(self.user)))
        freeze_field(self, "user")

    @property
    def folder(self) -> Path:
        """The folder that contains all files of the policy."""
        return Path(os.path.commonpath([_render(self.path, values).parent for values in _SAMPLES]) or ".")

    @property
    def latest_path(self) -> Path | None:
        """The file with the newest state. None without `latest`."""
        return self.folder / f"latest{suffixed(_render(self.path, _SAMPLES[0])).suffix}" if self.latest else None

    @property
    def bundle_path(self) -> Path | None:
        """The file of the run bundle. None without `bundle`."""
        return self.folder / BUNDLE if self.bundle else None

    def of(self, metadata: Metadata) -> Path:
        """Return the file for a state with these metadata. A path outside the folder raises ValueError."""
        path = suffixed(self.file(_path_fields(metadata)))
        self._check_latest(path)
        return path

    def name_of(self, path: Path) -> str:
        """Return the path of a file relative to the folder. The metadata of the file contain it."""
        return Path(os.path.relpath(path, self.folder)).as_posix()

    def owns(self, path: Path, metadata: Metadata) -> bool:
        """Tell whether a file with these metadata belongs to this policy.

        >>> state = {"epoch": 3, "step": 12, "monitor_value": None}
        >>> [Policy("runs/ep-{epoch}").owns(Path(f"runs/{name}.npz"), state) for name in ("ep-3", "ep-4")]
        [False, False]
        >>> Policy("runs/ep-{epoch}").owns(Path("./runs/ep-3.safetensors"), state)
        True
        """
        try:
            expected = suffixed(_render(self.path, _path_fields(metadata)))
        except Exception:  # a path function of the user may fail for the metadata of any file
            return False
        if self.latest_path is not None and _is_same(path, self.latest_path):
            return metadata.get("file") == self.name_of(expected)
        return _is_same(path, expected)

    def file(self, values: Metadata) -> Path:
        """Return the path for values of `FIELDS`. A path outside the folder raises ValueError."""
        path, folder = _render(self.path, values), self.folder
        is_inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
        if not is_inside or ".." in path.parts:
            raise ValueError(f"the checkpoint path {os.fspath(path)!r} is outside of {os.fspath(folder)!r}")
        return path

    def inside(self, name: str) -> Policy:
        """Return the policy with its files in a subfolder. A path function raises ValueError.

        >>> Policy("runs/{monitor_name}/ep-{epoch}").inside("trial-1").path
        'runs/trial-1/{monitor_name}/ep-{epoch}'
        """
        if not isinstance(self.path, str):
            raise ValueError("trials would write to the same files: give checkpoints a template, not a function")
        parts, above = Path(self.path).parts, len(self.folder.parts)
        return replace(self, path=str(Path(*parts[:above], name, *parts[above:])))

    def due(self, epoch: int, improved: bool) -> bool:
        """Tell whether to write a checkpoint at the end of an epoch."""
        return (self.best and improved) or (self.every is not None and (epoch + 1) % self.every == 0)

    def due_at(self, step: int, taken: int = 1) -> bool:
        """Tell whether to write a checkpoint after `step` steps. The last call computed `taken` of them.

        For example, with `every_steps=100` and three steps in each call, a checkpoint is due at step 102.
        """
        return self.every_steps is not None and step // self.every_steps > (step - taken) // self.every_steps

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        files = {"latest": self.latest_path, "bundle": self.bundle_path}
        paths = {name: None if path is None else str(path) for name, path in files.items()}
        return {**plain, **paths, "path": self.path if isinstance(self.path, str) else name_of(self.path)}

    def _check_latest(self, path: Path) -> None:
        """Raise ValueError for a path with the name of the latest file, or with another suffix."""
        latest = self.latest_path
        if latest is not None and (_is_same(path, latest) or path.suffix != latest.suffix):
            rule = f"{os.fspath(path)!r} must have another name, and the same suffix"
            raise ValueError(f"latest=True keeps the newest state in {os.fspath(latest)!r}: {rule}")


def _is_same(path: Path, other: Path) -> bool:
    return os.path.abspath(path) == os.path.abspath(other)


def _check_distinct(policy: Policy) -> None:
    """Raise ValueError for a template that gives the same path to several checkpoints that the policy keeps."""
    later = {"step": 6} if policy.every_steps else {"epoch": 4, "next_epoch": 5, "step": 6}
    if policy.file(_SAMPLES[0]) == policy.file({**_SAMPLES[0], **later}):
        field = "{step}" if policy.every_steps else "{epoch} or {step}"
        raise ValueError(f"keep_last keeps several files, and {_template_text(policy)!r} names one: put {field} in")


def as_template(path: object) -> str:
    """Check a path template and return it as a text.

    A template contains only fields of `FIELDS`, without attributes or items. It has no width above 99, because a large
    width could fill the memory. A leading `~` is replaced by the home folder of the user.

    >>> as_template("runs/ep-{epohc}")
    Traceback (most recent call last):
    ValueError: unknown field 'epohc': did you mean 'epoch'? known: epoch, next_epoch, step, monitor, ...
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the path of checkpoints is a text or a function; got {path!r}")
    template = os.fspath(path)
    if not isinstance(template, str) or not template:
        raise ValueError(f"the path of checkpoints is a text; got {template!r}")
    text = os.fspath(user_path(template)) if template.startswith("~") else template
    for _, field, spec, _ in string.Formatter().parse(text):
        if field is None:
            continue
        if field not in FIELDS:
            raise ValueError(unknown("field", field, FIELDS))
        digits = "".join(c if c.isdigit() else " " for c in spec or "").split()
        if "{" in (spec or "") or any(int(number) > 99 for number in digits):
            raise ValueError(f"the format {spec!r} of {field!r} is too wide, or contains other fields")
    return text


def _template_text(policy: Policy) -> str:
    return os.path.relpath(policy.path, policy.folder) if isinstance(policy.path, str) else name_of(policy.path)


def _path_fields(metadata: Metadata) -> dict[str, object]:
    """Return the values of `FIELDS` from metadata."""
    values = {**metadata, "epoch": max(metadata["epoch"], 0), "monitor": metadata["monitor_value"]}
    return {name: _path_value(values.get(name)) for name in FIELDS}


def _path_value(value: object) -> object:
    """Return a value for a path: NaN for None, and no path separators in texts."""
    return float("nan") if value is None else value.replace(os.sep, "_") if isinstance(value, str) else value


def _render(path: str | PathFunction, values: Metadata) -> Path:
    """Return the path for values of `FIELDS`, without a suffix where the template has none."""
    if isinstance(path, str):
        return Path(path.format(**values))
    with located(path_function=name_of(path)):
        result = with_context(path, offers=FIELDS, values=0, what="checkpoint path")(**values)
    if not isinstance(result, (str, os.PathLike)) or not os.fspath(result):
        raise TypeError(f"the function {name_of(path)!r} gives the path of a checkpoint, a text; it gave {result!r}")
    if user_path(result).suffix in OTHER_SUFFIXES:
        rule = "a checkpoint ends in .safetensors or .npz"
        raise ValueError(f"the function {name_of(path)!r} gives the path of a checkpoint: {rule}; it gave {result!r}")
    return user_path(result)
