"""Track the files of a policy for the run that owns the folder: list them once, and delete only by checked files."""

from __future__ import annotations

import logging
from bisect import insort
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..core._errors import CheckpointError
from ..store._checkpoint import Metadata, check_and_peek
from ._policy import Policy
from ._retention import File, HeaderCache, Mark, in_order, indexed, list_checkpoints, mark_of, of_lineage, superfluous

__all__ = ["Listing"]

_ATTEMPTS = 4
"""How often the files are listed again while another process changes them. After that nothing is deleted for now."""

_LOG = logging.getLogger("mlx_fp.loop")


class Listing:
    """Track the files of a policy. Only the process that holds the lock of the folder adds or deletes files."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._headers: HeaderCache = {}
        self._lineage: list[File] | None = None
        """The undamaged files of the run and its ancestors in order. None until the folder is listed."""
        self._marks: dict[Path, Mark] = {}
        self._matches_digest: dict[Mark, bool] = {}
        """Whether the bytes of a file agree with its digest. This process wrote or checked these files."""
        self._unchecked: set[Path] = set()

    def read(self) -> list[File]:
        """List the files that are in the folder now. Each header is read once only."""
        return list_checkpoints(self.policy, self._headers)

    def add(self, path: Path, metadata: Metadata) -> None:
        """Add a file that the run has written. It replaces an earlier file with the same path."""
        if self.policy.keep_last is None or not self.policy.owns(path, metadata):
            return
        lineage = self._files_of(metadata)
        if path in self._marks:
            lineage[:] = [file for file in lineage if file[0] != path]
        insort(lineage, (path, indexed(metadata)), key=in_order)
        self._marks[path] = mark = mark_of(path)
        self._matches_digest[mark] = True
        self._unchecked.discard(path)

    def delete_superfluous(self, metadata: Metadata, spared: Collection[Path | None]) -> tuple[str, ...]:
        """Delete the files of a run that its policy does not keep, and return their paths.

        Only files with checked bytes decide. So a damaged file is never deleted, and never causes the deletion of
        another file. For example, a damaged file does not count as the best one. Files of other processes are read
        once for this check, and only where there is something to delete.

        Args:
            metadata: The metadata of the newest state of the run.
            spared: Files to keep in any case.
        """
        deleted = [] if self.policy.keep_last is None else self._choose_superfluous(metadata, spared)
        for file in deleted:
            file[0].unlink(missing_ok=True)
            self._files_of(metadata).remove(file)
            del self._marks[file[0]]
        return tuple(str(path) for path, _ in deleted)

    def _choose_superfluous(self, metadata: Metadata, spared: Collection[Path | None]) -> list[File]:
        for _ in range(_ATTEMPTS):
            candidates, best = superfluous(self.policy, self._files_of(metadata), spared)
            if candidates and self._unchecked:
                self._check_bytes(metadata)
            elif all(self._is_unchanged(path) for path, _ in [*candidates, *best]):
                return candidates
            else:
                self._lineage = None
        return []

    def _files_of(self, metadata: Metadata) -> list[File]:
        """Return the files of the run and its ancestors. List the folder where that is not done yet."""
        if self._lineage is None:
            lineage = of_lineage(self.read(), metadata)
            self._marks = {mark[0]: mark for mark in self._headers}
            numbered = (file for file in lineage if file[0] != self.policy.latest_path)
            self._lineage = [file for file in numbered if self._matches_digest.get(self._marks[file[0]], True)]
            self._unchecked = {path for path, _ in self._lineage if self._marks[path] not in self._matches_digest}
        return self._lineage

    def _is_unchanged(self, path: Path) -> bool:
        """Tell whether the file at a path is still the listed one."""
        with suppress(OSError):
            return mark_of(path) == self._marks[path]
        return False

    def _check_bytes(self, metadata: Metadata) -> None:
        """Check the bytes of all unchecked files, and remove damaged files from the list."""
        lineage = self._files_of(metadata)
        for path, index in lineage:
            if path in self._unchecked:
                self._matches_digest[self._marks[path]] = _is_undamaged(path, index)
        self._unchecked.clear()
        lineage[:] = [file for file in lineage if self._matches_digest[self._marks[file[0]]]]


def _is_undamaged(path: Path, index: Metadata) -> bool:
    """Tell whether a file agrees with its digest, and its metadata with `index`. Warn about a damaged file."""
    try:
        return repr(indexed(check_and_peek(path))) == repr(index)  # as texts, because NaN is not equal to NaN
    except (CheckpointError, OSError) as error:
        _LOG.warning("%s; it is not deleted, and no other file is deleted because of it", error)
        return False
