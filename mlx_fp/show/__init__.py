"""Pictures of runs, which need the extra `show`, and trackers of them."""

from .curves import curves
from .track import track

__all__ = ["curves", "track"]
