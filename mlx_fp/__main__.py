"""The command line: `python -m mlx_fp`. `parser` is for tools that read one, for example shtab."""

import sys

from .command._main import main
from .command._parser import parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
