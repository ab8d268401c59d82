"""Names for the values and the functions that data pipelines pass on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Column", "Item", "ItemFunction", "Key", "UserFunction"]

Item: TypeAlias = Any
"""One item of a dataset: a row or a batch, of any class. For example, a dict of arrays."""

Column: TypeAlias = Any
"""A numpy or an MLX array of shape `(n, ...)`. numpy is optional, so its types cannot be named here."""

Key: TypeAlias = str | int
"""The name of a column in a dict, or its position in a tuple."""

ItemFunction: TypeAlias = Callable[[Item], Item]
"""A function of one item and nothing else."""

UserFunction: TypeAlias = Callable[..., Item]
"""A user's function of an item. It also gets the context that it names, for example `epoch`."""
