"""Pictures of runs, and trackers of their figures. Pictures need the extra `show`."""

from ._curves import curves
from ._graph import graph
from ._track import track

__all__ = ["curves", "graph", "track"]


def __dir__() -> list[str]:
    return sorted(__all__)
