"""Names of a package that are loaded at their first use, so that a program loads only the parts that it uses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

__all__ = ["late"]


def late(
    package: str, names: Mapping[str, Sequence[str]], modules: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package. It loads a name at its first use, and keeps it in the package.

    An unknown name is an AttributeError with candidates from the package's `__all__`.

    Args:
        package: The full name of the package.
        names: The names of functions and classes by their module, which begins with a dot.
        modules: The module of each name that is a module.

    >>> late("mlx_fp.tree", {"._paths": ("flat",)})("flat").__name__
    'flat'
    """
    homes = {name: module for module, each in names.items() for name in each}

    def loaded(name: str) -> Any:
        if name in modules:
            value: Any = import_module(modules[name], package)
        elif name in homes:
            value = getattr(import_module(homes[name], package), name)
        else:
            raise AttributeError(_message(package, name))
        setattr(sys.modules[package], name, value)
        return value

    return loaded


def _message(package: str, name: str) -> str:
    """Return the message for an unknown name. Python also asks for each submodule, which needs no candidates."""
    from importlib.util import find_spec  # late imports: only an unknown name needs them

    from ._errors import unknown

    if name.startswith("__") or find_spec(f"{package}.{name}"):
        return name
    return unknown(f"name in {package}", name, sys.modules[package].__all__)
