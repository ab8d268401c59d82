"""The files of a policy as the run that holds its folder knows them: listed once, deleted by what is checked."""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core._errors import CheckpointError
from ..store._checkpoint import check_and_peek
from ._policy import Policy
from ._retention import File, Mark, Seen, in_order, indexed, listed, mark_of, of_line, superfluous

__all__ = ["Listing"]

_TRIES = 4
"""How often files are listed anew, where another process changes them, before nothing is deleted for now."""

_LOG = logging.getLogger("mlx_fp.loop")


class Listing:
    """What there is of a policy. Nobody but the holder of the folder adds to it or deletes."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._seen: Seen = {}
        self._line: list[File] | None = None
        """The files of the line of the run in order, but for damaged ones; None before the folder was listed for it."""
        self._marks: dict[Path, Mark] = {}
        self._whole: dict[Mark, bool] = {}
        """Whether the bytes of files are those that their digests say; this process wrote or checked them."""
        self._unchecked: set[Path] = set()

    def read(self) -> list[File]:
        """List the files that are in the folder now; no header is read twice."""
        return listed(self.policy, self._seen)

    def add(self, path: Path, told: Mapping[str, Any]) -> None:
        """Take up a file that the run has written, in the place of another of that path."""
        if self.policy.keep_last is None or not self.policy.owns(path, told):
            return
        line = self._known(told)
        if path in self._marks:
            line[:] = [file for file in line if file[0] != path]
        insort(line, (path, indexed(told)), key=in_order)
        self._marks[path] = mark = mark_of(path)
        self._whole[mark] = True
        self._unchecked.discard(path)

    def delete_superfluous(self, told: Mapping[str, Any], spared: Collection[Path | None]) -> tuple[str, ...]:
        """Delete what need not stay of the line of a run, of whose newest state the metadata tell; return the names.

        Files whose bytes are checked decide, so that a damaged one neither goes nor makes another go. To check those
        of another process takes their reading, once, and only where something is to go.
        """
        gone = [] if self.policy.keep_last is None else self._superfluous(told, spared)
        for file in gone:
            file[0].unlink(missing_ok=True)
            self._known(told).remove(file)
            del self._marks[file[0]]
        return tuple(str(path) for path, _ in gone)

    def _superfluous(self, told: Mapping[str, Any], spared: Collection[Path | None]) -> list[File]:
        for _ in range(_TRIES):
            gone, best = superfluous(self.policy, self._known(told), spared)
            if gone and self._unchecked:
                self._check(told)
            elif all(self._is_there(path) for path, _ in [*gone, *best]):
                return gone
            else:
                self._line = None
        return []

    def _known(self, told: Mapping[str, Any]) -> list[File]:
        if self._line is None:
            line = of_line(self.read(), told)
            self._marks = {mark[0]: mark for mark in self._seen}
            own = (file for file in line if file[0] != self.policy.latest_path)
            self._line = [file for file in own if self._whole.get(self._marks[file[0]], True)]
            self._unchecked = {path for path, _ in self._line if self._marks[path] not in self._whole}
        return self._line

    def _is_there(self, path: Path) -> bool:
        """Tell whether a file is still the one that is known."""
        with suppress(OSError):
            return mark_of(path) == self._marks[path]
        return False

    def _check(self, told: Mapping[str, Any]) -> None:
        """Check the bytes of the files that nobody has checked; those that are not whole are no longer of the line."""
        line = self._known(told)
        for path, one in line:
            if path in self._unchecked:
                self._whole[self._marks[path]] = _is_whole(path, one)
        self._unchecked.clear()
        line[:] = [file for file in line if self._whole[self._marks[file[0]]]]


def _is_whole(path: Path, told: Mapping[str, Any]) -> bool:
    """Check the bytes of a file, and that it says what its header was read to say; warn where that is not so."""
    try:
        return repr(indexed(check_and_peek(path))) == repr(told)  # NaN is no other than NaN
    except (CheckpointError, OSError) as error:
        _LOG.warning("%s; it is not deleted, and no other is on its account", error)
        return False
