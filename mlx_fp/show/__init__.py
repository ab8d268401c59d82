"""Pictures of runs, which need the extra `show`, and trackers of them."""

from ._curves import curves
from ._track import track

__all__ = ["curves", "track"]
