"""The fields of the record of a run and their types. Invalid metadata are refused before they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..core._errors import is_count
from ..core._mlx import mx
from ._directive import Stop
from ._monitor import BestSoFar
from ._rows import ADDED, Evaluation, Row

__all__ = ["check_record"]

Kind = Callable[[Any, str], None]
"""A function `(value, place)` that raises ValueError, with the place, for an invalid value."""


def check_record(record: Mapping[str, Any]) -> None:
    """Raise ValueError, with the name of the first invalid field, for metadata that no run has written.

    >>> check_record({"epoch": -2})
    Traceback (most recent call last):
    ValueError: 'epoch' is -2, and not a count, or -1
    """
    for name, kind in _RECORD.items():
        _field({"seed": 0, "keep_losses": True, **record}, name, kind, name)
    cursor, sums = record["cursor"], record["sums"]
    ended = record["epoch"] == record["next_epoch"] - (not cursor["index"])
    if cursor["epoch"] != record["next_epoch"] or not ended:
        raise ValueError(f"'next_epoch' is {record['next_epoch']}, after epoch {record['epoch']}, with cursor {cursor}")
    if sums["batches"] != cursor["index"] or sums["updates"] > record["step"]:
        raise ValueError(f"its sums are of {sums['updates']} steps on {sums['batches']} batches, with cursor {cursor}")
    if len(record["losses"]) > record["step"]:
        raise ValueError(f"there are {len(record['losses'])} losses of {record['step']} steps")


def _field(record: Mapping[str, object], name: str, kind: Kind, place: str) -> None:
    """Check a field that must be present."""
    if name not in record:
        raise ValueError(f"there is no {place!r}")
    kind(record[name], place)


def _of(test: Callable[[Any], bool], wanted: str) -> Kind:
    """Return the kind of values that pass a test. `wanted` describes them in the error."""

    def check(value: object, place: str) -> None:
        if not test(value):
            raise ValueError(f"{place!r} is {value!r:.60}, and not {wanted}")

    return check


def _optional(kind: Kind) -> Kind:
    """Return the kind of values of a kind, or None."""
    return lambda value, place: None if value is None else kind(value, place)


def _listed(kind: Kind, size: int | None = None) -> Kind:
    """Return the kind of lists of values of a kind, of any size or of one."""
    is_list = _of(lambda value: isinstance(value, (list, tuple)) and size in (None, len(value)), "a list of its size")

    def check(value: Any, place: str) -> None:
        is_list(value, place)
        for i, item in enumerate(value):
            kind(item, f"{place}.{i}")

    return check


def _named(kind: Kind) -> Kind:
    """Return the kind of dicts from names to values of a kind."""

    def check(value: Any, place: str) -> None:
        _DICT(value, place)
        for name, item in value.items():
            _TEXT(name, f"a name in {place}")
            kind(item, f"{place}.{name}")

    return check


def _record(kinds: Mapping[str, Kind]) -> Kind:
    """Return the kind of dicts that have these fields, and perhaps others. Fields that were added later may miss."""

    def check(value: Any, place: str) -> None:
        _DICT(value, place)
        for name, kind in kinds.items():
            if name in value or name not in ADDED:
                _field(value, name, kind, f"{place}.{name}")

    return check


def _options(kinds: Mapping[str, Kind], *needed: str) -> Kind:
    """Return the kind of dicts that have no other fields than these. The fields in `needed` must be present."""

    def check(value: Any, place: str) -> None:
        _DICT(value, place)
        for name in (*needed, *value):
            if name not in kinds:
                raise ValueError(f"{place!r} has a field {name!r:.60}, and none but {', '.join(kinds)}")
            _field(value, name, kinds[name], f"{place}.{name}")

    return check


def _kinds_of(record: type, **others: Kind) -> dict[str, Kind]:
    """Return the kinds of the fields of a dataclass, from their annotations."""
    return {field.name: others.get(field.name) or _BY_TYPE[str(field.type)] for field in fields(record)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _is_losses(value: object) -> bool:
    return isinstance(value, mx.array) and value.ndim == 1 and value.dtype == mx.float32


def _is_logs(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, mx.array) and item.size == 1 for item in value.values())


def _is_weights(value: object) -> bool:
    return isinstance(value, dict) and all(_is_number(item) or _is_logs({"": item}) for item in value.values())


def _entry(value: Any, place: str) -> None:
    """Check an update with unread logs."""
    _listed(_ANY, 4)(value, place)
    logs, weights, *numbers = value
    _of(_is_logs, "logs by name")(logs, f"{place}.0")
    _of(_is_weights, "weights by name")(weights, f"{place}.1")
    _of(lambda names: "loss" in logs and set(names) <= set(logs), "weights of logs")(weights, f"{place}.1")
    _listed(_COUNT, 2)(numbers, f"{place}.2")


_MOST = 2**62
_ANY: Kind = lambda value, place: None  # noqa: E731
_DICT = _of(lambda value: isinstance(value, Mapping), "a dict")
_COUNT = _of(lambda value: is_count(value) and value < _MOST, "a count")
_EPOCH = _of(lambda value: is_count(value, least=-1) and value < _MOST, "a count, or -1")
_NUMBER = _of(_is_number, "a number")
_FLAG = _of(lambda value: isinstance(value, bool), "True or False")
_TEXT = _of(lambda value: isinstance(value, str), "a text")
_PLAIN = _of(_is_plain, "a plain value")

_BY_TYPE: Mapping[str, Kind] = {
    "int": _COUNT,
    "int | None": _optional(_COUNT),
    "float": _NUMBER,
    "float | None": _optional(_NUMBER),
    "bool": _FLAG,
    "str": _PLAIN,
    "str | None": _optional(_TEXT),
    "Mapping[str, Any]": _named(_ANY),
}

_SUMS = {
    "batches": _COUNT,
    "updates": _COUNT,
    "examples": _COUNT,
    "figures": _named(_listed(_NUMBER, 2)),
    "total": _NUMBER,
    "last": _NUMBER,
    "counted": _optional(_listed(_NUMBER)),
    "queue": _listed(_entry),
}

_HOOK = {"memory": _ANY, "seen": _COUNT, "spent": _FLAG, "ended": _PLAIN}

_REQUESTS = {
    "stop": _optional(_options(_kinds_of(Stop), "reason")),
    **dict.fromkeys(("save", "validate", "interrupted", "diverged"), _FLAG),
}

_RECORD: Mapping[str, Kind] = {
    "epoch": _EPOCH,
    "next_epoch": _COUNT,
    "step": _COUNT,
    "cursor": _record({"epoch": _COUNT, "index": _COUNT}),
    "monitor_name": _TEXT,
    "monitor_mode": _TEXT,
    **_kinds_of(BestSoFar),
    "completed": _COUNT,
    "hooks": _named(_options(_HOOK)),
    "requests": _options(_REQUESTS),
    "rows": _listed(_record(_kinds_of(Row))),
    "evaluations": _listed(_record(_kinds_of(Evaluation))),
    "best_params": _ANY,
    "losses": _of(_is_losses, "a column of float32"),
    "sums": _record(_SUMS),
    "run": _TEXT,
    "branch": _named(_COUNT),
    "data": _TEXT,
    "seed": _of(lambda value: all(map(_is_plain, value if isinstance(value, list) else [value])), "a seed"),
    "keep_losses": _FLAG,
    "optimizer": _PLAIN,
    "rates": _named(_NUMBER),
    "versions": _named(_PLAIN),
}
