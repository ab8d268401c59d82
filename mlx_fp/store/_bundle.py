"""Store a run in one JSON file: its report, its settings, its environment, and a reference to its checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core._bounded import Limits, check_size
from ..core._files import file_sha256, write_whole
from ..core._regular import reading
from ..core._signature import name_of
from ..core._user_path import user_path
from ._environment import environment

__all__ = ["SCHEMA", "bundle", "is_bundle", "read_bundle", "save_bundle"]

SCHEMA = "mlx_fp.bundle/2"
"""The kind and version of new files."""

OLDER = "mlx_fp.bundle/1"
"""The schema without `setup` in its reports."""

LIMITS = Limits(characters=400_000_000, parts=2_000_000, values=20_000_000)
"""The limits for a bundle, which lists the loss of each step."""

PARTS = {"report": dict, "settings": dict, "environment": dict, "user": dict}

_ORDER = "save_bundle(path)(report): the path comes first, and the report last, in a second call"

_NON_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def bundle(
    report: Any, *, settings: Mapping[str, object] | None = None, user: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Return a run as one dict of plain values: report, settings, environment and values of the user.

    Args:
        report: A Report, or its dict.
        settings: The settings of the run. Functions are stored by name. Default: those of the experiment, if it is one.
        user: Plain values of your own.

    Returns:
        A dict with the keys "schema", "report", "settings", "checkpoint", "environment" and "user".

    >>> from mlx_fp.loop._report import Report
    >>> sorted(bundle({"rows": []}, settings={"seed": 0}))
    ['checkpoint', 'environment', 'report', 'schema', 'settings', 'user']
    """
    plain_report = report if isinstance(report, Mapping) else report.to_dict()
    if settings is None:
        settings = (plain_report.get("setup") or {}).get("settings")
    return {
        "schema": SCHEMA,
        "report": dict(plain_report),
        "settings": {name: _function_name(value) for name, value in (settings or {}).items()},
        "checkpoint": None,
        "environment": environment(),
        "user": dict(user or {}),
    }


def save_bundle(
    path: str | os.PathLike[str],
    *misplaced: object,
    checkpoint: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
    user: Mapping[str, object] | None = None,
) -> Callable[[Any], Path]:
    """Write the bundle of a run to a JSON file; the call is `save_bundle(path)(report)`.

    Missing folders are created. Infinities and NaN are stored too.

    Args:
        path: The file. `~` is the home folder of the user.
        checkpoint: The checkpoint of the run. The bundle holds its relative path and its SHA-256. Default: none.
        settings: The settings of the run. Functions are stored by name. Default: those of the experiment, if it is one.
        user: Plain values of your own.

    Returns:
        A function `report -> path`, which writes the file and returns its path. The report is a Report or its dict.

    Raises:
        TypeError: JSON cannot hold a value, and the message names its place. Or path and report are swapped.
        ValueError: The bundle is larger than the limits.

    >>> import tempfile
    >>> path = save_bundle(Path(tempfile.mkdtemp()) / "run.json")({"rows": [], "best_value": float("inf")})
    >>> read_bundle(path)["report"]
    {'rows': [], 'best_value': inf}
    """
    if misplaced or not isinstance(path, (str, os.PathLike)):
        got = "two values" if misplaced else type(path).__name__
        raise TypeError(f"{_ORDER}; got {got} in its first call")
    target = user_path(path)

    def saved(report: Any) -> Path:
        if not isinstance(report, Mapping) and not hasattr(report, "to_dict"):
            raise TypeError(f"{_ORDER}; got {report!r:.80} in its second call")
        parts = bundle(report, settings=settings, user=user)
        if checkpoint is not None:
            file = user_path(checkpoint)
            parts["checkpoint"] = {"path": _relative(file, target), "sha256": file_sha256(file)}
        content = json.dumps(_encode(parts, "bundle"), indent=2, allow_nan=False).encode()
        check_size(content, LIMITS)
        return write_whole(target, content)

    return saved


def read_bundle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a run bundle. A bundle of an older schema is converted to this schema.

    Args:
        path: The file. `~` is the home folder of the user.

    Returns:
        The dict of `bundle`, and its "folder".

    Raises:
        ValueError: The file is no bundle, is damaged, or has a newer schema. The message names the file and the fault.
        OSError: The system cannot read the file.
    """
    source = user_path(path)
    try:
        with reading(source) as file:
            content = file.read(LIMITS.characters + 1)
        check_size(content, LIMITS)
        parts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no run bundle: {error}") from None
    if not isinstance(parts, dict) or parts.get("schema") not in (SCHEMA, OLDER):
        schema = parts.get("schema") if isinstance(parts, dict) else type(parts).__name__
        raise ValueError(f"{os.fspath(path)} is no run bundle of schema {SCHEMA!r}; its schema is {schema!r}")
    for part, kind in PARTS.items():
        if not isinstance(parts.get(part), kind):
            raise ValueError(f"{os.fspath(path)} is a run bundle without a proper {part!r}")
    checkpoint = parts.get("checkpoint")
    if checkpoint is not None and not (
        isinstance(checkpoint, dict) and all(isinstance(checkpoint.get(key), str) for key in ("path", "sha256"))
    ):
        raise ValueError(f"{os.fspath(path)} is a run bundle whose checkpoint has no path and SHA-256")
    return {"checkpoint": None, **_add_setup(_decode(parts)), "folder": str(source.parent)}


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file exists and begins like JSON, whatever its name. `read_bundle` checks the rest.

    >>> import tempfile
    >>> is_bundle(save_bundle(Path(tempfile.mkdtemp()) / "run.bundle")({"rows": []})), is_bundle("gone.json")
    (True, False)
    """
    source = user_path(path)
    if not source.is_file():
        return False
    with reading(source) as file:
        start = file.read(64)
    return (
        start.lstrip().startswith(b"{") and b"\0" not in start
    )  # a safetensors file may begin with "{", and then has zero bytes


def _add_setup(parts: dict[str, Any]) -> dict[str, Any]:
    """Convert a bundle of the older schema: the `setup` of its report is None.

    >>> _add_setup({"schema": OLDER, "report": {"rows": []}})
    {'schema': 'mlx_fp.bundle/2', 'report': {'rows': [], 'setup': None}}
    """
    if parts["schema"] != OLDER:
        return parts
    return {**parts, "schema": SCHEMA, "report": {**parts["report"], "setup": None}}


def _relative(file: Path, beside: Path) -> str:
    """Return the path of a file relative to the folder of another file.

    Links among the folders are resolved first, because the system resolves them before it applies `..`.
    """
    real = Path(os.path.realpath(file.parent)) / file.name
    return Path(os.path.relpath(real, os.path.realpath(beside.parent))).as_posix()


def _function_name(value: object) -> object:
    """Replace a function among settings, for example a schedule, by its name."""
    return name_of(value) if callable(value) else value


def _encode(value: object, place: str) -> object:
    """Return a value that JSON can hold. NaN and infinities become texts, and these texts get a prefix "=".

    For example, the number inf becomes "inf", and the text "inf" becomes "=inf".
    """
    if isinstance(value, Mapping):
        return {str(key): _encode(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{place}.{i}") for i, item in enumerate(value)]
    if isinstance(value, float) and (value != value or value in (_NON_FINITE["inf"], _NON_FINITE["-inf"])):
        return str(value)
    if isinstance(value, str):
        return f"={value}" if value.lstrip("=") in _NON_FINITE else value
    if value is None or isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"{place} is {type(value).__name__}, which JSON has no form for; give a number, a text, a list or a dict"
    )


def _decode(value: Any) -> Any:
    """Invert `_encode`."""
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if isinstance(value, str) and value.lstrip("=") in _NON_FINITE:
        return _NON_FINITE.get(value, value[1:])
    return value
