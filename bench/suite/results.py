"""A run as one JSON file: its rows, its machine, and its options."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from .measure import TOLERANCE
from .variants import REFERENCE

SCHEMA = 1
FOLDER = Path(__file__).resolve().parents[1] / "results"
BASELINE = FOLDER / "baseline.json"


def gathered(rows, options, versions, load):
    """The result of a run; `load` is the load average before it."""
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "load": load,
        "versions": {"python": platform.python_version(), **versions},
        "settings": {
            "threads": options.threads,
            "reference": REFERENCE,
            "optimizer": "AdamW, rate 3e-5, betas 0.9 and 0.999, eps 1e-8, decay 0.01, bias corrected",
            "tolerance_of_losses": TOLERANCE,
        },
        "rows": rows,
    }


def machine():
    """Describe the kind of this machine, without anything that identifies it."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
    }


def load():
    """Return the load average of the last minute, None if the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def write(path, result):
    """Write a result, its figures to four digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n  ".join(json.dumps(rounded(row)) for row in result["rows"])
    head = json.dumps({**result, "rows": []}, indent=1)
    path.write_text(head.replace('"rows": []', f'"rows": [\n  {rows}\n ]') + "\n", encoding="utf-8")


def read(path):
    """Read a result. Raise SystemExit if there is none, or it is of another schema."""
    if not Path(path).exists():
        raise SystemExit(f"{path} is not there: make bench-baseline writes it")
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise SystemExit(f"{path} has schema {found.get('schema')!r}, and this reads {SCHEMA}: measure it anew")
    return found


def rounded(value):
    """The same tree with its floats to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def by_key(result):
    """The rows of a result by (case, mode, variant)."""
    return {(row["case"], row["mode"], row["variant"]): row for row in result["rows"]}


def _processor():
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor()
