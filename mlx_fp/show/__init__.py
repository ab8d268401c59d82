"""Pictures of runs. Needs the extra `show`."""

from .curves import curves

__all__ = ["curves"]
