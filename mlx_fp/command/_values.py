"""Read settings of the command line, `path=value`, and of TOML files, against the settings of an experiment."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..core._user_path import user_path
from ..experiments._experiment import Experiment, settings
from ._usage import UsageError, as_usage, missing_path, unknown_word

__all__ = ["changes_of", "grid_of"]

_KINDS: Mapping[type | tuple[type, ...], str] = {
    bool: "True or False",
    (int, float): "a number",
    str: "a text",
    (list, tuple): "a list",
    dict: "a dict",
    object: "of any kind",
}
"""The kinds of settings, and their words in messages. The first kind of the default counts."""

_FLAG_WORDS = {True: ("true", "yes", "on", "1"), False: ("false", "no", "off", "0")}


def changes_of(target: Experiment, words: Sequence[str], files: Sequence[Path]) -> dict[str, object]:
    """Return new values of settings by path. Words come after files, and a later one takes precedence.

    Args:
        target: The experiment whose settings change.
        words: Words like `optimizer.learning_rate=1e-3`. A value is a Python literal, or else text.
        files: TOML files; the tables of a file are the beginnings of paths.

    Raises:
        UsageError: A path is unknown, or a value is of another kind than the setting.
    """
    known = settings(target)
    changes = {path: value for file in files for path, value in _of_file(file, known).items()}
    return changes | {path: _value(path, text, known[path]) for path, text in _path_value_pairs(words, known)}


def grid_of(target: Experiment, words: Sequence[str]) -> dict[str, list[object]]:
    """Return the values of each setting by path, for a sweep.

    Args:
        target: The experiment whose settings change.
        words: Words like `model.width=16,64`. A comma within brackets or quotes divides nothing.

    Raises:
        UsageError: A path is unknown or comes twice, or a value is of another kind than the setting.
    """
    known = settings(target)
    grid: dict[str, list[object]] = {}
    for path, text in _path_value_pairs(words, known):
        if path in grid:
            raise UsageError(f"{path} comes twice: give its values in one word, {path}=a,b")
        grid[path] = [_value(path, part, known[path]) for part in _comma_parts(text)]
    if not grid:
        raise UsageError("a sweep needs the values of a setting, for example optimizer.learning_rate=0.1,0.01")
    return grid


def _path_value_pairs(words: Sequence[str], known: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for word in words:
        path, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"a setting is given as path=value; got {word!r}")
        if path not in known:
            raise unknown_word("setting", path, known)
        yield path, text


def _of_file(file: Path, known: Mapping[str, object]) -> dict[str, object]:
    path = user_path(file)
    if not path.is_file():
        raise missing_path("file", path, "*.toml")
    with as_usage(tomllib.TOMLDecodeError, UnicodeDecodeError, beginning=f"{file} is no TOML file: "):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    with as_usage(UsageError, beginning=f"{file}: "):
        return {name: _of_kind(name, value, known[name]) for name, value in _flat_tables(tables, "", known)}


def _flat_tables(tables: Mapping[str, object], above: str, known: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables by path. A table may be the value of a setting."""
    for key, value in tables.items():
        path = f"{above}{key}"
        if path in known:
            yield path, value
        elif isinstance(value, dict) and any(name.startswith(f"{path}.") for name in known):
            yield from _flat_tables(value, f"{path}.", known)
        else:
            raise unknown_word("setting", path, known)


def _value(path: str, text: str, default: object) -> object:
    """Return the value of a text: a Python literal, or else the text. For a setting that is a text, a text.

    >>> [_value("p", text, None) for text in ("1e-5", "-1", "None", "[1, 2]", "adam")]
    [1e-05, -1, None, [1, 2], 'adam']
    >>> _value("p", "3", "auto"), _value("p", "[1, 2]", (1,))
    ('3', (1, 2))
    """
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(default, str) and value is not None and not isinstance(value, str):
        value = text
    return _of_kind(path, value, default)


def _of_kind(path: str, value: object, default: object) -> object:
    """Return a value of the kind of the default; the default None is of any kind.

    >>> _of_kind("data.shuffle", "yes", True)
    Traceback (most recent call last):
    mlx_fp.command._usage.UsageError: data.shuffle is True or False, True by default; got 'yes': did you mean True?
    """
    kind, words = next((kind, words) for kind, words in _KINDS.items() if isinstance(default, kind))
    is_flag = isinstance(value, bool)
    if value is not None and (not isinstance(value, kind) or (is_flag and kind not in (bool, object))):
        hint = _flag_hint(str(value)) if kind is bool else ""
        raise UsageError(f"{path} is {words}, {default!r} by default; got {value!r}{hint}")
    return tuple(value) if type(default) is tuple and isinstance(value, list) else value


def _flag_hint(text: str) -> str:
    flag = next((flag for flag, words in _FLAG_WORDS.items() if text.lower() in words), None)
    return "" if flag is None else f": did you mean {flag}?"


def _comma_parts(text: str) -> list[str]:
    """Split a text at the commas outside of brackets and quotes.

    >>> _comma_parts("1e-3,[1, 2],'a,b',c")
    ['1e-3', '[1, 2]', "'a,b'", 'c']
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "([{") - (letter in ")]}") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
