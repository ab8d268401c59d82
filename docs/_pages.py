"""Make pages of the site from files outside docs/: README and its neighbours, the programs, tables of MLX's names."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}


def on_config(config):
    """Load each name that is loaded at its first use, so that the reference finds it."""
    for module in ("mlx_fp", "mlx_fp.cpu", "mlx_fp.lm", "mlx_fp.data", "mlx_fp.nn", "mlx_fp.optim"):
        found = import_module(module)
        for name in found.__all__:
            getattr(found, name)
    return config


def on_files(files, config):
    """Add the pages to those of docs/."""
    for page, name in PAGES.items():
        files.append(File.generated(config, page, content=moved((ROOT / name).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "examples.md", content=examples()))
    return files


def on_page_markdown(markdown, page, **_):
    """Let a link to a program go to its place on the page of the examples, and make the tables of the reference."""
    up = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"\]\((?:\.\./)*examples/(\w+)\.py\)", rf"]({up}examples.md#\1)", markdown)
    markdown = re.sub(r"<!-- table: (\S+) as (\S+) -->", lambda found: table(*found.groups()), markdown)
    return re.sub(r"^::: mlx_fp\.(\S+)$", entry, markdown, flags=re.MULTILINE)


def entry(found):
    """Return an entry of the reference with the name by which users call it."""
    shown = f"mlx_fp.{found[1]}" if found[1].startswith("core.") else f"fp.{found[1]}"
    label = found[1].removeprefix("core.")
    return f'{found[0]}\n    options:\n      heading: "{shown}"\n      toc_label: "{label}"\n'


def table(module, shown):
    """Return a table of the names of a module: the call, and the first line of the docstring."""
    rows = ["| call | |", "|---|---|"]
    found = import_module(f"mlx_fp.{module}")
    for name in found.__all__:
        value = getattr(found, name)
        parameters = inspect.signature(value).parameters.values()
        options = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
        first, *rest = inspect.getdoc(value).strip().splitlines()
        link = re.search(r"See (https://\S+)\.$", "\n".join(rest), re.MULTILINE)
        call = f"`{shown}.{name}({options})`"
        rows.append(f"| {f'[{call}]({link[1]})' if link else call} | {first} |".replace("\\", "\\\\"))
    return "\n".join(rows)


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
