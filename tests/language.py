"""Measure the language of the library: docstrings, types and names. `python tests/language.py` prints the figures."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mlx_fp"
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)


def prose(tree):
    """Yield the text of each docstring of a file, without its doctests."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)) and (text := ast.get_docstring(node)):
            code = re.compile(r"^\s*(>>>|\.\.\.).*$", re.MULTILINE)
            yield code.sub("", text)


def measured(folder=PACKAGE):
    """Return the figures of a folder of Python files by name."""
    words, what, examples, anything, code = 0, 0, 0, 0, 0
    homes = defaultdict(set)
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree, documented = ast.parse(text), 0
        for part in prose(tree):
            words += len(re.findall(r"[A-Za-z']+", part))
            what += len(re.findall(r"\b[Ww]hat\b", part))
            examples += len(re.findall(r"[Ff]or example|e\.g\.", part))
            documented += len(part.splitlines())
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        code += len(lines) - documented
        anything += len(re.findall(r"\bAny\b", text))
        for node in tree.body:
            if isinstance(node, DEFINITIONS) and not node.name.startswith("__"):
                homes[node.name.lstrip("_")].add(path)
    return {
        "words of docstrings": words,
        '"what" in 1,000 words': 1000 * what / words,
        '"for example" in 1,000 words': 1000 * examples / words,
        "Any in 1,000 lines of code": 1000 * anything / code,
        "names defined in three files or more": sorted(name for name, files in homes.items() if len(files) > 2),
    }


def without_args():
    """Name the public functions that have options, and no list of their arguments."""
    import mlx_fp as fp
    from mlx_fp import data, metrics, nn, optim, show, testing

    lacking = set()
    for module in (fp, data, metrics, nn, optim, show, testing):
        for name in set(module.__all__) - {"cpu"}:  # a module, and the library works without it
            value = getattr(module, name)
            ours = (
                inspect.isfunction(value)
                and value.__module__.startswith("mlx_fp")
                and not hasattr(value, "__wrapped__")
            )
            options = ours and [p for p in inspect.signature(value).parameters.values() if p.default is not p.empty]
            if options and "Args:" not in (value.__doc__ or ""):
                lacking.add(f"{module.__name__}.{name}")
    return sorted(lacking)


if __name__ == "__main__":
    for name, value in measured(Path(sys.argv[1]) if sys.argv[1:] else PACKAGE).items():
        print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")
    if not sys.argv[1:]:
        print("public functions with options and without Args:", *without_args())
