"""Make pages of the site from files outside docs/: README and its neighbours, and the programs of examples/."""

import ast
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_files(files, config):
    """Add the pages to those of docs/."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=moved((ROOT / name).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "examples.md", content=examples()))
    return files


def on_page_markdown(markdown, **_):
    """Let a link to a program go to its place on the page of the examples."""
    return re.sub(r"\]\((?:\.\./)*examples/(\w+)\.py\)", r"](examples.md#\1)", markdown)


def moved(text):
    """Return the text of a page from the root of the repository with the links that it needs in docs/."""
    text = text.replace("](docs/", "](").replace("](examples)", "](examples.md)")
    for page, name in PAGES.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def examples():
    """Return a page with the programs of examples/, each under its name and the first lines of its docstring."""
    parts = ["# Examples\n\nEach program runs by itself, for example `python examples/mlp.py`."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(code)) or ""
        body = code.split('"""', 2)[2].strip()
        parts.append(f"## {path.stem} {{ #{path.stem} }}\n\n{docstring}\n\n```python\n{body}\n```")
    return "\n\n".join(parts) + "\n"
