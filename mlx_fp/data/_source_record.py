"""The beginning of a pipe, as a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..core._pickling import Picklable
from ._cursor import EpochRead
from ._types import Item
from ._view import View

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source(Picklable):
    """The beginning of a pipe: the place that items come from. A source has a `view` or `rows`.

    Args:
        label: Text for messages and for `repr`, for example `"source(list of 3)"`.
        size: Number of items of an epoch; None, the default, where only reading tells it.
        view: Function of one reading of an epoch that returns a `View`, which reads items by index.
        rows: Function of one reading of an epoch that returns an iterator over the items from its start on.
        chain: Labels of the pipe that this source replaces, where an operation made the source.
        inputs: The datasets whose items this source combines or changes.
        varies: Whether the items depend on the epoch or on the kind of the read. False by default.
        fingerprint: Function that returns a text that changes with the content, where the label does not.
    """

    label: str
    size: int | None = None
    view: Callable[[EpochRead], View] | None = None
    rows: Callable[[EpochRead], Iterator[Item]] | None = None
    chain: tuple[str, ...] = ()
    inputs: tuple[Any, ...] = ()
    varies: bool = False
    fingerprint: Callable[[], str] | None = None
