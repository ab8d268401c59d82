"""Figures of matplotlib: made without global state, written whole, and shown by notebooks."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..core._files import create_new, write_whole
from ..core._user_path import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure_of_size", "label", "written"]

_DPI = 120


def figure_of_size(width: float, height: float) -> Figure:
    """Return an empty figure, which a notebook displays. Sizes are in inches.

    Raises:
        ImportError: matplotlib is missing. The error names the extra to install.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'mlx-fp[show]'") from error
    figure: Figure = _figure_class()(figsize=(width, height), layout="constrained")
    return figure


@cache
def _figure_class() -> type[Figure]:
    """Return the class of figures: those of matplotlib, with the method by which notebooks display objects."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook displays, also where pyplot is not imported."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, dpi=_DPI, format="png")
            return content.getvalue()

    return Picture


def written(figure: Figure, path: str | os.PathLike[str] | None) -> Path | Figure:
    """Write a figure to a file and return the path. Without a path, return the figure.

    The suffix of the path gives the format; the default is `.png`.
    """
    if path is None:
        return figure
    target = user_path(path)
    target = target if target.suffix else target.with_name(target.name + ".png")
    image_format = target.suffix.removeprefix(".")
    return write_whole(target, lambda path: _write_image(figure, path, image_format))


def label(name: object) -> str:
    """Return a name as a label: matplotlib reads no formula in it, and shows it in legends.

    >>> label("$x$"), label("_hidden")
    ('\\\\$x\\\\$', ' _hidden')
    """
    text = str(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _write_image(figure: Figure, path: Path, image_format: str) -> None:
    with create_new(path) as file:
        figure.savefig(file, dpi=_DPI, format=image_format)
