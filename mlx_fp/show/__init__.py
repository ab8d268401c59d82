"""Pictures of runs, and trackers of their figures. Pictures need the extra `show`."""

from ._curves import curves
from ._track import track
from ._tracker import Tracker

__all__ = ["Tracker", "curves", "track"]


def __dir__() -> list[str]:
    return sorted(__all__)
