"""Which output of a model and which columns of a batch a metric takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from ..core._errors import unknown
from ..core._types import Array, Batch

__all__ = ["Columns"]

_PLACES = ("x", "y", "mask")
"""The names of the first columns of a batch that is a tuple."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The output, target and mask of a metric, each by name or, in a tuple, by index.

    `output` is None for a model that returns one array. A batch without a column `mask` has no mask; `mask=None` takes
    none either way.
    """

    output: str | int | None = None
    target: str | int = "y"
    mask: str | int | None = "mask"

    def pick(self, metric: str, output: Any, batch: Batch) -> tuple[Array, Array, Array | None]:
        """Return the output, the target and the mask; ValueError, naming what there is, for one that is not there.

        >>> Columns(output="logits").pick("accuracy", {"logits": 1}, {"x": 2, "y": 3, "id": 4})
        (1, 3, None)
        >>> Columns(target=3, mask=None).pick("accuracy", 1, (2, 3, 4, 5))
        (1, 5, None)
        """
        named = _by_name(batch)
        if self.target not in named:
            _refuse(metric, "target", self.target, named)
        if self.mask not in named and self.mask not in ("mask", None):
            _refuse(metric, "mask", self.mask, named)
        mask = None if self.mask is None else named.get(self.mask)
        return self._output(metric, output), named[self.target], mask

    def _output(self, metric: str, output: Any) -> Array:
        several = isinstance(output, (dict, tuple, list))
        if self.output is None and not several:
            array: Array = output
            return array
        if not several:
            raise ValueError(f"metric {metric!r} takes output {self.output!r}, and the model returns one array")
        named = output if isinstance(output, dict) else dict(enumerate(output))
        if self.output is None:
            raise ValueError(
                f"metric {metric!r} takes one array, and the model returns a {type(output).__name__} with "
                f"{', '.join(map(str, named)) or 'nothing'}: say which, as in output={next(iter(named), 0)!r}"
            )
        if self.output not in named:
            _refuse(metric, "output", self.output, named)
        chosen: Array = named[self.output]
        return chosen


def _by_name(batch: Batch) -> dict[str | int, Any]:
    """Return the columns of a batch by what they may be called; those of a tuple by index and, the first, by name."""
    if isinstance(batch, dict):
        return dict(batch)
    return dict(zip(_PLACES, batch, strict=False)) | dict(enumerate(batch))


def _refuse(metric: str, option: str, key: str | int | None, named: dict[Any, Any]) -> NoReturn:
    raise ValueError(f"metric {metric!r}: {unknown(option, str(key), map(str, named))}")
