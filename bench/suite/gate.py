"""Decide if a run is slower than the committed run, by ratios to the reference of the same run, never by times."""

from __future__ import annotations

from dataclasses import dataclass

from .results import by_key
from .variants import CONTROL, REFERENCE

TOLERANCE = 0.05
"""The tolerated increase of the median ratio, before the spread of both runs is taken into account."""

MOST_DRIFT = 0.10
"""The largest drift of the control that is tolerated."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a row: `ok`, `faster`, `slower`, `missing` from the run, or `new` in it.

    Ratios are quartiles, or None; `limit` is the upper limit of the current lower quartile.
    """

    case: str
    mode: str
    variant: str
    before: tuple[float, float, float] | None
    now: tuple[float, float, float] | None
    limit: float | None
    verdict: str
    reason: str = ""

    @property
    def failed(self):
        """Whether the row fails the gate."""
        return self.verdict in ("slower", "missing")


def compare(baseline, now, tolerance=TOLERANCE):
    """Return the verdict on every row of a run, except the reference and its control; both runs are dicts.

    A row is slower when three quarters of its turns have a ratio above the limit: the larger of the baseline's median
    plus the tolerance and the baseline's upper quartile, and that times one plus the drift of the run's own control.
    """
    before, after = by_key(baseline), by_key(now)
    return [
        _verdict(key, before.get(key), row, drift(after, key), tolerance) for key, row in after.items() if _judged(key)
    ]


def drift(rows, key):
    """Return the distance of the control's ratio from 1, at most `MOST_DRIFT`; 0 without a control."""
    control = rows.get((*key[:2], CONTROL), {}).get("ratio")
    return min(MOST_DRIFT, abs(control[1] - 1)) if control else 0.0


def _judged(key):
    return key[2] not in (REFERENCE, CONTROL)


def _verdict(key, before, row, drift, tolerance):
    old, new = (before or {}).get("ratio"), row.get("ratio")
    if old is None:
        return Verdict(*key, None, new, None, "new", row.get("reason", ""))
    lower, median, upper = old
    limit, floor = (
        max(median * (1 + tolerance), upper) * (1 + drift),
        min(median * (1 - tolerance), lower) * (1 - drift),
    )
    if new is None:
        return Verdict(*key, old, None, limit, "missing", row.get("reason", ""))
    verdict = "slower" if new[0] > limit else "faster" if new[2] < floor else "ok"
    return Verdict(*key, old, new, limit, verdict)
