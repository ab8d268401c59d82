"""Run README's page in an empty folder and keep its picture. `make page` writes docs/curves.png."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from helpers import ROOT, run_snippets

PICTURE = ROOT / "docs" / "curves.png"


def main(picture: str = str(PICTURE)) -> None:
    picture = Path(picture).absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run_snippets(ROOT / "README.md")
        shutil.copyfile(Path("runs", "page", "curves.png"), picture)
        os.chdir(ROOT)


if __name__ == "__main__":
    main(*sys.argv[1:])
