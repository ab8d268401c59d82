"""When a run writes checkpoints, under which names, and which of them it keeps."""

from __future__ import annotations

import os
import re
import string
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core._errors import is_count, unknown
from ..core._signature import name_of, named
from ..loop._trainer import Trainer, Verb

__all__ = ["FIELDS", "Policy", "checkpoints"]

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
class Policy:
    """Made by `checkpoints`; `path` says where, the rest when, and what stays."""

    path: str | Callable[..., Any]
    best: bool = False
    every: int | None = 1
    every_steps: int | None = None
    keep_last: int | None = None
    keep_best: int = 1
    background: bool = False

    @property
    def folder(self) -> Path:
        """The folder under which all files of the policy are; no file is written outside it."""
        return Path(os.path.commonpath([_render(self.path, _SAMPLE).parent, _render(self.path, _OTHER).parent]) or ".")

    @property
    def label(self) -> str:
        """What files of one policy know each other by: the template within its folder, or the name of the function."""
        if isinstance(self.path, str):
            return os.path.relpath(self.path, self.folder)
        name = f"{getattr(self.path, '__module__', '')}.{getattr(self.path, '__qualname__', name_of(self.path))}"
        return name + _told_apart(self.path)

    def owns(self, label: str) -> bool:
        """Whether a file of this label is of this policy; files once had the whole template as theirs, or a line."""
        if isinstance(self.path, str):
            return label in (self.label, self.path)
        return label == self.label or re.fullmatch(re.escape(name_of(self.path)) + r" of line \d+", label) is not None

    def file(self, values: Mapping[str, Any]) -> Path:
        """Return the path for what `FIELDS` name. ValueError for one outside the folder."""
        made, folder = _render(self.path, values), self.folder
        inside = Path(os.path.abspath(made)).is_relative_to(os.path.abspath(folder))
        if not inside or ".." in made.parts:
            raise ValueError(f"the checkpoint path {os.fspath(made)!r} is outside of {os.fspath(folder)!r}")
        return made

    def inside(self, name: str) -> Policy:
        """Return the policy with its files in a folder of that name; ValueError for a path that is a function."""
        if not isinstance(self.path, str):
            raise ValueError("trials would write to the same files: give checkpoints a template, not a function")
        path = Path(self.path)
        return replace(self, path=str(path.parent / name / path.name))

    def due(self, epoch: int, improved: bool) -> bool:
        """Whether the end of an epoch is to be kept."""
        return (self.best and improved) or (self.every is not None and (epoch + 1) % self.every == 0)

    def due_at(self, step: int, taken: int = 1) -> bool:
        """Whether the state after so many steps, the last of them taken at once, is to be kept."""
        return self.every_steps is not None and step // self.every_steps > (step - taken) // self.every_steps

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {
            name: getattr(self, name)
            for name in ("best", "every", "every_steps", "keep_last", "keep_best", "background")
        }
        return {"path": self.path if isinstance(self.path, str) else self.label, **plain}


def checkpoints(
    path: str | Callable[..., Any],
    *,
    best: bool = False,
    every: int | None = 1,
    every_steps: int | None = None,
    keep_last: int | None = None,
    keep_best: int = 1,
    background: bool = False,
) -> Verb:
    """Write checkpoints: after every `every`-th epoch, every `every_steps` steps, and with `best` each best epoch.

    `path` is a template of `epoch next_epoch step monitor monitor_name epoch_loss improved` with format specs, as
    `"runs/a/ep-{epoch:03}.safetensors"`, or a function of what it names of those. Without `keep_last` all files stay;
    with it the last so many, the `keep_best` best ones by the monitor, and the one that the run was resumed from. A
    checkpoint is written after all hooks, whatever their priority. With `background` a thread writes, one at a time,
    while training goes on: a failure comes out at the next step, and `fit` returns when the last is on disk.

    Bad options, and a path that could not be made, or that would be one for checkpoints that are all to be kept, are a
    ValueError here.

    >>> from mlx_fp import classification, nn
    >>> from mlx_fp.loop._trainer import trainer
    >>> pipe(trainer(nn.linear(4, 2), classification()), checkpoints("runs/ep-{epoch}", keep_last=3)).policy.folder
    PosixPath('runs')
    >>> checkpoints("runs/ep-{epohc}")
    Traceback (most recent call last):
    ValueError: unknown field 'epohc': did you mean 'epoch'? known: epoch, next_epoch, step, monitor, ...
    """
    counts = {"every": every, "every_steps": every_steps, "keep_last": keep_last, "keep_best": keep_best}
    for name, count in counts.items():
        if count is not None and not is_count(count, least=1):
            raise ValueError(f"{name} is a count, 1 or more, or None; got {count!r}")
    if every is None and every_steps is None and not best:
        raise ValueError(
            "checkpoints are written after epochs, after steps, or for the best; none of them is asked for"
        )
    template = path if callable(path) else _template(path)
    policy = Policy(template, best, every, every_steps, keep_last, keep_best, background)
    _ = policy.folder
    if keep_last is not None:
        _check_several(policy)

    def added(target: Trainer) -> Trainer:
        return replace(target, policy=policy)

    return added


def _check_several(policy: Policy) -> None:
    """Refuse a path that is one for checkpoints that are all to be kept."""
    later = {"step": 6} if policy.every_steps else {"epoch": 4, "next_epoch": 5, "step": 6}
    if policy.file(_SAMPLE) == policy.file({**_SAMPLE, **later}):
        what = "{step}" if policy.every_steps else "{epoch} or {step}"
        raise ValueError(f"keep_last keeps several files, and {policy.label!r} names one: put {what} in")


def _template(path: Any) -> str:
    """Check a template: known names only, no attributes or items, and no widths that would fill the memory."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the path of checkpoints is a text or a function; got {path!r}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text:
        raise ValueError(f"the path of checkpoints is a text; got {text!r}")
    for _, field, spec, _ in string.Formatter().parse(text):
        if field is None:
            continue
        if field not in FIELDS:
            raise ValueError(unknown("field", field, FIELDS))
        digits = "".join(c if c.isdigit() else " " for c in spec or "").split()
        if "{" in (spec or "") or any(int(number) > 99 for number in digits):
            raise ValueError(f"the format {spec!r} of {field!r} is too wide, or made of other fields")
    return text


def _told_apart(function: Any) -> str:
    """Return a number for what a lambda computes: all have one name."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_name != "<lambda>":
        return ""
    constants = [one for one in code.co_consts if isinstance(one, (str, int, float))]
    return f" {zlib.crc32(code.co_code + repr((code.co_names, constants)).encode()):08x}"


def _render(path: str | Callable[..., Any], values: Mapping[str, Any]) -> Path:
    if isinstance(path, str):
        return Path(path.format(**values))
    made = named(path, offers=FIELDS, values=0, what="checkpoint path")(**values)
    if not isinstance(made, (str, os.PathLike)) or not os.fspath(made):
        raise TypeError(f"the function {name_of(path)!r} gives the path of a checkpoint, a text; it gave {made!r}")
    return Path(made)
