"""Build and load the functions in C of this folder: a product in blocks, and the one that runs MLX's compiler.

They are built once for a user, in 0.1 s, with the compiler that MLX needs anyway. The name of the library contains the
hash of its content, because a damaged library kills the process that loads it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import source_hash

from . import _elf
from ._private_folder import make_private

__all__ = ["Functions", "compile_to", "compiler_path", "functions"]

_SOURCES = ("products.c", "builds.c")
_OPTIONS = ("-O2", "-fPIC", "-shared", "-pthread")

Functions = tuple[ctypes.CDLL, str]
"""The loaded library, and the private folder that it is in."""


@cache
def functions() -> Functions | str:
    """Return the functions in C, and build them if this is the first use; without them, return the reason."""
    if _elf.HERE not in _elf.KNOWN:
        return f"this system is {_elf.HERE}"
    sources = [os.path.join(os.path.dirname(__file__), name) for name in _SOURCES]
    try:
        texts = (_read(source).decode() for source in sources)
        folder = make_private("functions", "\n".join([_elf.HERE, *_OPTIONS, *texts]))
        libraries = (os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".so"))
        found = next((library for library in libraries if library == _named(library)), None)
        return ctypes.CDLL(found or _build(folder, sources)), folder
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


def compile_to(result: str, *options: str, finish: Callable[[str], object] = os.fspath) -> None:
    """Compile with g++ to a temporary file, finish that file, and rename it.

    RuntimeError: there is no compiler, or it failed; the message has its output.
    """
    import subprocess  # a late import: with `shutil` it takes 10 ms, and the library is built already as a rule

    compiler = compiler_path()
    folder, name = os.path.split(result)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    done = subprocess.run([compiler, *options, "-o", temporary], capture_output=True, text=True, check=False)
    if done.returncode:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise RuntimeError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
    finish(temporary)
    os.replace(temporary, result)


def _build(folder: str, sources: list[str]) -> str:
    """Build the library under the name of its content, and return its path."""
    made = os.path.join(folder, f"{os.getpid()}.so")
    compile_to(made, *_OPTIONS, *(word for source in sources for word in ("-x", "c", source)))
    named = _named(made)
    os.replace(made, named)
    return named


def _named(library: str) -> str:
    """Return the path with the name that belongs to the content of a library."""
    return os.path.join(os.path.dirname(library), f"functions-{source_hash(_read(library)).hex()}.so")


def _read(file: str) -> bytes:
    with open(file, "rb") as opened:  # `pathlib` takes 3 ms to import, and the first layer needs this
        return opened.read()
