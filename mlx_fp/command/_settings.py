"""`mlx-fp settings FILE`: the settings of an experiment, as a table."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from inspect import Parameter, formatannotation
from types import UnionType
from typing import Union, get_args, get_origin

from ..core._signature import name_of, signature_of
from ..core._text import table
from ..experiments._experiment import Experiment, override, settings
from ..experiments._option_function import takes_options
from ._building import length_of
from ._loading import loaded_experiment
from ._values import changes_of

__all__ = ["list_settings", "value_text"]

_FIELD_TYPES = {"epochs": "int", "steps": "int | None", "seed": "int"}
"""The types of the settings that are fields of an experiment."""


def list_settings(arguments: Namespace) -> int:
    """Print the settings with their values and types; the words may change values.

    Args:
        arguments: `target`, `changes` and `config` of the command line.

    Returns:
        The exit status 0.
    """
    with loaded_experiment(arguments.target) as target:
        changes = changes_of(target, arguments.changes, arguments.config)
        changed = override({**length_of(changes), **changes})(target)
        types = _types(target)
        rows = [(path, value_text(value), types.get(path, "")) for path, value in settings(changed).items()]
        print(table([("setting", "value", "type"), *rows], left=3))
    return 0


def value_text(value: object) -> str:
    """Return a value as text: a function by its name, other values as Python writes them.

    >>> value_text(1e-3), value_text("adam"), value_text(len)
    ('0.001', "'adam'", 'len')
    """
    return name_of(value) if callable(value) else repr(value)


def _types(target: Experiment) -> Mapping[str, str]:
    """Return the type of each setting: its annotation, or else the type of its default."""
    types = dict(_FIELD_TYPES)
    for section, part in target.sections().items():
        if takes_options(part, section):
            function = part.func if isinstance(part, partial) else part
            types |= {f"{section}.{each.name}": _type_text(each) for each in signature_of(function) or []}
    values = settings(target)
    return {path: types.get(path) or type(value).__name__ for path, value in values.items()}


def _type_text(parameter: Parameter) -> str:
    """Return the annotation of a parameter as text; empty where it has none and its default tells nothing."""
    annotation, default = parameter.annotation, parameter.default
    if annotation is parameter.empty:
        return "" if default is parameter.empty or default is None else type(default).__name__
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    text = " | ".join(part if isinstance(part, str) else formatannotation(part) for part in parts)
    return re.sub(r"\b(?:\w+\.)+", "", text).replace("NoneType", "None")
