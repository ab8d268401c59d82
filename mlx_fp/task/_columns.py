"""The output of a model and the columns of a batch that a metric uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from ..core._errors import unknown
from ..core._types import Array, Batch, Tree

__all__ = ["Columns"]

_TUPLE_NAMES = ("x", "y", "mask")
"""The names of the first columns of a batch that is a tuple."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The output, target and mask of a metric. Each is a name or, in a tuple, an index.

    `output` is None for a model that returns one array. A batch without a column `mask` has no mask. With `mask=None`
    no column is a mask.
    """

    output: str | int | None = None
    target: str | int = "y"
    mask: str | int | None = "mask"

    def pick(self, metric: str, output: Tree, batch: Batch) -> tuple[Array, Array, Array | None]:
        """Return the output, the target and the mask.

        Raises:
            ValueError: The output, the target or the mask does not exist. The message names the existing ones.

        >>> Columns(output="logits").pick("accuracy", {"logits": 1}, {"x": 2, "y": 3, "id": 4})
        (1, 3, None)
        >>> Columns(target=3, mask=None).pick("accuracy", 1, (2, 3, 4, 5))
        (1, 5, None)
        """
        columns = _by_key(batch)
        if self.target not in columns:
            _refuse(metric, "target", self.target, columns)
        if self.mask not in columns and self.mask not in ("mask", None):
            _refuse(metric, "mask", self.mask, columns)
        mask = None if self.mask is None else columns.get(self.mask)
        return self._output(metric, output), columns[self.target], mask

    def _output(self, metric: str, output: Tree) -> Array:
        """Return the array that the model returned, or the chosen one of several."""
        is_container = isinstance(output, (dict, tuple, list))
        if self.output is None and not is_container:
            array: Array = output
            return array
        if not is_container:
            raise ValueError(f"metric {metric!r} takes output {self.output!r}, and the model returns one array")
        by_key = output if isinstance(output, dict) else dict(enumerate(output))
        if self.output is None:
            raise ValueError(
                f"metric {metric!r} takes one array, and the model returns a {type(output).__name__} with "
                f"{', '.join(map(str, by_key)) or 'nothing'}: say which, as in output={next(iter(by_key), 0)!r}"
            )
        if self.output not in by_key:
            _refuse(metric, "output", self.output, by_key)
        chosen: Array = by_key[self.output]
        return chosen


def _by_key(batch: Batch) -> dict[str | int, Tree]:
    """Return the columns of a batch by name. A tuple has them by index, and the first three by name too."""
    if isinstance(batch, dict):
        return dict(batch)
    return dict(zip(_TUPLE_NAMES, batch, strict=False)) | dict(enumerate(batch))


def _refuse(metric: str, option: str, key: str | int | None, candidates: Iterable[str | int]) -> NoReturn:
    raise ValueError(f"metric {metric!r}: {unknown(option, str(key), map(str, candidates))}")
