"""Build and load the functions in C of this folder: a product in blocks, and the one that runs MLX's compiler.

They are built once for a user, in 0.1 s, with the compiler that MLX needs anyway. The name of the library contains the
hash of its content, because a damaged library kills the process that loads it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from importlib.util import source_hash
from pathlib import Path

from . import _elf
from ._private_folder import make_private

__all__ = ["Functions", "compile_to", "compiler_path", "functions"]

_SOURCES = ("products.c", "builds.c")
_OPTIONS = ("-O2", "-fPIC", "-shared", "-pthread")

Functions = tuple[ctypes.CDLL, Path]
"""The loaded library, and the private folder that it is in."""


@cache
def functions() -> Functions | str:
    """Return the functions in C, and build them if this is the first use; without them, return the reason."""
    if _elf.HERE not in _elf.KNOWN:
        return f"this system is {_elf.HERE}"
    here = Path(__file__).parent
    sources = [here / name for name in _SOURCES]
    try:
        folder = make_private("functions", "\n".join([_elf.HERE, *_OPTIONS, *(path.read_text() for path in sources)]))
        found = next((path for path in folder.glob("functions-*.so") if path == _named(path)), None)
        return ctypes.CDLL(str(found or _build(folder, sources))), folder
    except OSError as error:
        return f"the folder for libraries cannot be used: {error}; XDG_CACHE_HOME names another place"
    except RuntimeError as error:
        return str(error)


def compiler_path() -> str:
    """Return the path of g++; RuntimeError without it."""
    from shutil import which

    if (compiler := which("g++")) is None:
        raise RuntimeError("MLX compiles nothing without g++ on PATH (Debian, Ubuntu: apt install g++)")
    return compiler


def compile_to(result: Path, *options: str, finish: Callable[[Path], object] = os.fspath) -> None:
    """Compile with g++ to a temporary file, finish that file, and rename it.

    RuntimeError: there is no compiler, or it failed; the message has its output.
    """
    import subprocess  # a late import: with `shutil` it takes 10 ms, and the library is built already as a rule

    compiler = compiler_path()
    temporary = result.with_name(f".{result.name}.{os.getpid()}")
    done = subprocess.run([compiler, *options, "-o", str(temporary)], capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
    finish(temporary)
    os.replace(temporary, result)


def _build(folder: Path, sources: list[Path]) -> Path:
    """Build the library under the name of its content, and return its path."""
    made = folder / f"{os.getpid()}.so"
    compile_to(made, *_OPTIONS, *(word for path in sources for word in ("-x", "c", str(path))))
    return made.replace(_named(made))


def _named(library: Path) -> Path:
    """Return the path with the name that belongs to the content of a library."""
    return library.with_name(f"functions-{source_hash(library.read_bytes()).hex()}.so")
