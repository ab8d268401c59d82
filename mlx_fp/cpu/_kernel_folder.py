"""The native kernels in their folder: each is checked, because a damaged library kills the process that loads it.

Each library carries its SHA-256 after its last byte, which no loader reads.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import warnings
from pathlib import Path

__all__ = ["discard_damaged", "kernels_in", "seal"]

_SEAL = b"%b  -\n"
"""The output of `sha256sum` for its standard input."""

_SEALED = 64 + len(b"  -\n")


def seal(library: Path) -> None:
    """Write the SHA-256 of a library after its last byte.

    >>> import tempfile
    >>> library = Path(tempfile.mkdtemp()) / "a.so"
    >>> _ = library.write_bytes(b"code")
    >>> seal(library), _is_sound(library)
    (None, True)
    >>> _ = library.write_bytes(library.read_bytes()[1:])
    >>> _is_sound(library)
    False
    """
    with library.open("ab") as file:
        file.write(_SEAL % hashlib.sha256(library.read_bytes()).hexdigest().encode())


def discard_damaged(folder: Path) -> None:
    """Delete the damaged libraries in a folder; a RuntimeWarning gives their number."""
    damaged = [path for path in folder.rglob("*.so") if not _is_sound(path)]
    for path in damaged:
        shutil.rmtree(path) if stat.S_ISDIR(path.lstat().st_mode) else path.unlink(missing_ok=True)
    if damaged:
        message = f"{len(damaged)} native kernels in {folder} were damaged; they are deleted, and built again"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def kernels_in(folder: Path) -> int:
    """Count the kernels that MLX has built in a folder.

    >>> kernels_in(Path("no such folder"))
    0
    """
    return sum(1 for _ in folder.glob("mlx/*/cpu/*.so"))


def _is_sound(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        content = path.read_bytes()
    except FileNotFoundError:  # another process has deleted it
        return True
    return content[-_SEALED:] == _SEAL % hashlib.sha256(content[:-_SEALED]).hexdigest().encode()
