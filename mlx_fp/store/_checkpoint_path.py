"""Find the file of a checkpoint from a path with or without suffix, and check the suffix of a new one."""

from __future__ import annotations

import os
from pathlib import Path

from ..core._errors import CheckpointError
from ..core._user_path import user_path

__all__ = ["OTHER_SUFFIXES", "SUFFIXES", "find_checkpoint", "suffixed"]

SUFFIXES = (".safetensors", ".npz")
"""The suffixes of checkpoints."""

_REMEDY = "Weights that mlx.load reads can be given as params=; anything else, convert to safetensors"

OTHER_SUFFIXES = frozenset({".bin", ".ckpt", ".gguf", ".h5", ".json", ".npy", ".pickle", ".pkl", ".pt", ".pth", ".zip"})
"""The suffixes of other kinds of files. A checkpoint with such a suffix would mislead."""


def suffixed(path: Path) -> Path:
    """Return the path with the suffix of a checkpoint. The suffix of another kind of file raises ValueError.

    >>> suffixed(Path("runs/v1.5-best")).name
    'v1.5-best.safetensors'
    """
    if path.suffix in SUFFIXES:
        return path
    if path.suffix in OTHER_SUFFIXES:
        raise ValueError(f"a checkpoint ends in .safetensors or .npz; got {path.name!r}")
    return path.with_name(path.name + SUFFIXES[0])


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint, whose suffix may be missing in `path`.

    The function raises FileNotFoundError with the paths that it tried, and CheckpointError for another kind of file.
    """
    source = user_path(path)
    candidates = [source] if source.suffix in SUFFIXES else [source.with_name(source.name + s) for s in SUFFIXES]
    for candidate in candidates:
        if candidate.exists() and not candidate.is_dir():
            return candidate
    if source.is_file():
        raise CheckpointError(f"{source} is no checkpoint: the name of one ends in .safetensors or .npz. {_REMEDY}")
    raise FileNotFoundError(f"there is no checkpoint {' or '.join(map(str, candidates))}")
