"""Report pages and pictures of runs, and trackers of their figures. Pictures need the extra `show`."""

from ._curves import curves
from ._html import html
from ._track import track

__all__ = ["curves", "html", "track"]


def __dir__() -> list[str]:
    return sorted(__all__)
