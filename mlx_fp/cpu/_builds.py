"""Let MLX build its stock kernels in a quarter of the time.

For each kernel MLX runs `g++` on a source of which all but a hundred lines are MLX's own headers. A precompiled header
of these, which is built before the first kernel of a user, takes 1.3 s and 50 MB in the user's cache folder. The
instructions of the kernels stay the same. A compiler that does not accept the precompiled header reads the headers.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
from contextlib import suppress
from pathlib import Path

from . import _elf
from ._functions import functions

__all__ = ["BUILD", "HEADER", "UNKNOWN_BUILD", "patch_builds", "replace_popen"]

UNKNOWN_BUILD = "this build of MLX compiles CPU kernels in a way that mlx_fp does not know"
"""The message for an MLX without the functions that are replaced."""

HEADER = "mlx/backend/cpu/compiled_preamble.h"
"""The header with which the source of each kernel begins, in the folder of MLX's headers."""

BUILD = ("-std=c++17", "-O3", "-Wall", "-fPIC")
"""MLX's own flags. A precompiled header must be built with the same."""

_PRECOMPILE = """folder={folder}/$(g++ --version | cksum | cut -d ' ' -f 1)
header=$folder/{header}.gch
[ -e "$header" ] || {{
  mkdir -p "${{header%/*}}" &&
  {{ g++ -x c++-header {flags} -I {include} {include}/{header} -o "$header.$$" || : > "$header.$$"; }} &&
  mv "$header.$$" "$header"
}} >/dev/null 2>&1"""


def patch_builds() -> None:
    """Build kernels with a precompiled header. Where that is not possible, MLX builds them as it does alone."""
    if os.environ.get("MLX_FP_JIT", "").strip().lower() == "off":
        return
    with suppress(RuntimeError, OSError):
        library, folder, include = replace_popen()
        from ..core._mlx import mx

        paths = {"folder": os.path.join(folder, vars(mx)["__version__"]), "header": HEADER, "include": include}
        quoted = {name: shlex.quote(str(path)) for name, path in paths.items()}
        library.mlx_fp_set_builds(os.fsencode(_PRECOMPILE.format(flags=shlex.join(BUILD), **quoted)), b'-I "$folder"')


def replace_popen() -> tuple[ctypes.CDLL, str, Path]:
    """Let MLX run the compiler through `builds.c`, which by itself runs the same command.

    Returns:
        The functions in C, their private folder, and the folder of MLX's headers.

    Raises:
        RuntimeError: It is not possible; the message gives the reason.
    """
    built, lib = functions(), _elf.image("libmlx.so")
    if isinstance(built, str):
        raise RuntimeError(built)
    slots = _elf.imports(lib, re.compile(b"popen")).get("popen", ()) if lib else ()
    include = Path(lib.file if lib else "").parent.parent / "include"
    if lib is None or not slots or not (include / HEADER).exists():
        raise RuntimeError(UNKNOWN_BUILD)
    library, folder = built
    _elf.write(lib, dict.fromkeys(slots, _elf.address(library, "mlx_fp_popen")))
    return library, folder, include
