"""Functions that several test files use."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))
CPU_PAGES = [page for page in PAGES if "fp.cpu." in page.read_text(encoding="utf-8") and page.parent.name == "docs"]
"""The pages about Linux CPUs, whose snippets need `mlx_fp/cpu`."""


def run_snippets(page):
    """Run the Python snippets of a page in order, in one namespace; return how many there are."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    scope = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, page.name, "exec"), scope)
    return len(blocks)
