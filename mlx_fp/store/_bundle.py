"""A run in one JSON file: its report, its settings, where it ran, and which checkpoint belongs to it."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..core._signature import name_of
from ..core._user_path import user_path
from ._bounded import Limits, check_size
from ._files import digest, write_whole
from ._regular import reading

__all__ = ["SCHEMA", "bundle", "is_bundle", "read_bundle", "save_bundle"]

SCHEMA = "mlx_fp.bundle/2"
"""The kind and version of the files that are written now."""

OLDER = "mlx_fp.bundle/1"
"""The schema whose reports do not say how the run was set up."""

LIMITS = Limits(characters=400_000_000, parts=2_000_000, values=20_000_000)
"""Of a bundle, which lists the loss of each step."""

PARTS = {"report": dict, "settings": dict, "environment": dict, "user": dict}

_ORDER = "save_bundle(path)(report): the path comes first, and the report last, in a call of its own"

_VECTORS = re.compile(r"\b(?:avx|fma|f16c|amx|asimd|sve)\w*")

_ODD = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def bundle(report: Any, *, settings: Mapping[str, Any] | None = None, user: Mapping[str, Any] | None = None) -> Any:
    """Return a report, settings and a user's own values as one dict of plain values, with the environment.

    >>> from mlx_fp.loop._report import Report
    >>> sorted(bundle({"rows": []}, settings={"seed": 0}))
    ['checkpoint', 'environment', 'report', 'schema', 'settings', 'user']
    """
    told = report if isinstance(report, Mapping) else report.to_dict()
    return {
        "schema": SCHEMA,
        "report": dict(told),
        "settings": {name: _named(value) for name, value in (settings or {}).items()},
        "checkpoint": None,
        "environment": environment(),
        "user": dict(user or {}),
    }


def save_bundle(
    path: str | os.PathLike[str],
    *misplaced: Any,
    checkpoint: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    user: Mapping[str, Any] | None = None,
) -> Callable[[Any], Path]:
    """Say where and with what a report is bundled; `save_bundle(path)(report)` writes the file, and returns where.

    Folders are made. Numbers that are not finite survive.

    Args:
        path: where to write; `~` is the home of the user.
        checkpoint: is referred to by its path from there and its SHA-256.
        settings: what the run was made of, such as `fp.settings(experiment)`.
        user: plain values of your own.

    Raises:
        TypeError: a value is one that JSON has no form for, the error names the place; or path and report are swapped.
        ValueError: there is more than a bundle has room for.

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
        made = bundle(report, settings=settings, user=user)
        if checkpoint is not None:
            file = user_path(checkpoint)
            made["checkpoint"] = {"path": _relative(file, target), "sha256": digest(file)}
        content = json.dumps(_plain(made, "bundle"), indent=2, allow_nan=False).encode()
        check_size(content, LIMITS)
        return write_whole(target, content)

    return saved


def read_bundle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a bundle. ValueError, naming the file and the fault, for one that is none or of a newer schema."""
    source = user_path(path)
    try:
        with reading(source) as file:
            content = file.read(LIMITS.characters + 1)
        check_size(content, LIMITS)
        read = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} is no run bundle: {error}") from None
    if not isinstance(read, dict) or read.get("schema") not in (SCHEMA, OLDER):
        found = read.get("schema") if isinstance(read, dict) else type(read).__name__
        raise ValueError(f"{os.fspath(path)} is no run bundle of schema {SCHEMA!r}; its schema is {found!r}")
    for part, kind in PARTS.items():
        if not isinstance(read.get(part), kind):
            raise ValueError(f"{os.fspath(path)} is a run bundle without a proper {part!r}")
    checkpoint = read.get("checkpoint")
    if checkpoint is not None and not (
        isinstance(checkpoint, dict) and all(isinstance(checkpoint.get(key), str) for key in ("path", "sha256"))
    ):
        raise ValueError(f"{os.fspath(path)} is a run bundle whose checkpoint has no path and SHA-256")
    return {"checkpoint": None, **_migrated(_numbers(read)), "folder": str(source.parent)}


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is there and begins as JSON does, whatever its name; what is wrong with it `read_bundle` says.

    >>> import tempfile
    >>> is_bundle(save_bundle(Path(tempfile.mkdtemp()) / "run.bundle")({"rows": []})), is_bundle("gone.json")
    (True, False)
    """
    source = user_path(path)
    if not source.is_file():
        return False
    with reading(source) as file:
        start = file.read(64)
    return start.lstrip().startswith(b"{") and b"\0" not in start  # a container may begin so, and has zeros there


def environment() -> dict[str, str | None]:
    """Say where this runs: versions, Python, platform, processor, and the libraries that compute.

    >>> environment()["python"] == platform.python_version()
    True
    """
    packages = {name.replace("-", "_"): _version(name) for name in ("mlx-fp", "mlx")}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "processor": _processor()}
    return {**packages, **machine, **_device()}


def _migrated(read: dict[str, Any]) -> dict[str, Any]:
    """Return a bundle of an older schema as one of this: its report has a setup, of which nothing is known.

    >>> _migrated({"schema": OLDER, "report": {"rows": []}})
    {'schema': 'mlx_fp.bundle/2', 'report': {'rows': [], 'setup': None}}
    """
    return {**read, "schema": SCHEMA, "report": {**read["report"], "setup": None}} if read["schema"] == OLDER else read


def _relative(file: Path, beside: Path) -> str:
    """Return a file's path from another's folder; links are followed first, as the system does before it goes up."""
    real = Path(os.path.realpath(file.parent)) / file.name
    return Path(os.path.relpath(real, os.path.realpath(beside.parent))).as_posix()


def _named(value: Any) -> Any:
    """Give a function among settings, a schedule say, by its name."""
    return name_of(value) if callable(value) else value


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> dict[str, str | None]:
    """Name the device, and the libraries that compute on it."""
    from ..core._mlx import mx
    from ..core.backend import device_backend

    try:
        device = str(mx.default_device().type).removeprefix("DeviceType.")
    except ImportError:  # MLX is not installed
        return {"device": None, "blas": None, "kernels": None}
    return {"device": device, "blas": None, "kernels": None, **device_backend().facts()}


@cache
def _processor() -> str:
    """Return the type of the processor, and the vector instructions that it has: bits of results depend on them."""
    said: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            said.setdefault(name.strip(), value.strip())
    arm = " ".join(said[name] for name in ("CPU implementer", "CPU part") if name in said)
    vectors = _VECTORS.findall(said.get("flags") or said.get("Features") or "")
    return " ".join([said.get("model name") or arm or platform.processor() or platform.machine(), *sorted(vectors)])


def _plain(value: Any, at: str) -> Any:
    """Return what JSON has a form for; numbers that are not finite as words, and the words with = before them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one, f"{at}.{key}") for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, f"{at}.{i}") for i, one in enumerate(value)]
    if isinstance(value, float) and (value != value or value in (_ODD["inf"], _ODD["-inf"])):
        return str(value)
    if isinstance(value, str):
        return f"={value}" if value.lstrip("=") in _ODD else value
    if value is None or isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"{at} is {type(value).__name__}, which JSON has no form for; give a number, a text, a list or a dict"
    )


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    if isinstance(value, str) and value.lstrip("=") in _ODD:
        return _ODD.get(value, value[1:])
    return value
