"""The command line: `python -m mlx_fp`."""

import sys

from .command._main import main

if __name__ == "__main__":
    sys.exit(main())
