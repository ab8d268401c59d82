"""Report pages and pictures of runs, and trackers of their figures. Pictures need the extra `show`."""

from ._confusion import confusion
from ._curves import curves
from ._graph import graph
from ._html import html
from ._sweep import sweep
from ._track import track
from ._tracker import Tracker

__all__ = ["Tracker", "confusion", "curves", "graph", "html", "sweep", "track"]


def __dir__() -> list[str]:
    return sorted(__all__)
