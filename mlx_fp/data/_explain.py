"""One item after each operation of a pipeline, with shapes, dtypes and counts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from ..core._errors import named_error
from ..core._html import html_table
from ..core._text import count_text, table
from ._dataset import Dataset
from ._source import as_dataset
from ._stack import describe_batch, is_numbers
from ._types import Item

__all__ = ["Explanation", "Stage", "explain"]

_HEADS = ("operation", "items", "first item")


@dataclass(frozen=True, slots=True)
class Stage:
    """The items after one operation.

    - `operation` is the call, as a user writes it. The first stage of a pipe is its source.
    - `items` is the number of items of an epoch; None where only reading tells it.
    - `item` describes the first item: the shapes and dtypes of its arrays, and the types of its other values.
    """

    operation: str
    items: int | None
    item: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The stages of a pipeline, in order. `str()` is a table, and a notebook shows it as HTML."""

    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        cells = self._table()
        width = max(len(items) for _, items, _ in cells)
        return table([(operation, items.rjust(width), item) for operation, items, item in cells], left=3)

    def _repr_html_(self) -> str:
        """Return the table as HTML, for a notebook."""
        return html_table(self._table(), left=3)

    def _table(self) -> list[tuple[str, str, str]]:
        return [_HEADS, *((stage.operation, count_text(stage.items), stage.item) for stage in self.stages)]


def explain(dataset: object) -> Explanation:
    """Read one item after each operation of a pipeline, and describe it.

    The first item of epoch 0 is read anew for each stage, so functions of the pipeline run several times. Where a stage
    fails, its row has the error, and the rows after it are left out. The inputs of a combination such as `zip` come
    before it, indented.

    Args:
        dataset: A Dataset, or data that `source` takes.

    Returns:
        An `Explanation`, which prints as a table with a row for each operation.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> rows = data.arrays(x=mx.zeros((100, 3)), y=mx.zeros((100,), mx.int32))
    >>> print(explain(pipe(rows, data.shuffle(seed=0), data.batch(32))))
    operation                     items  first item
    arrays(x=(100, 3), y=(100,))    100  {x: float32 (3,), y: int32 ()}
    shuffle(seed=0)                 100  {x: float32 (3,), y: int32 ()}
    batch(32)                         4  {x: float32 (32, 3), y: int32 (32,)}
    """
    rows: list[Stage] = []
    _append_stages(rows, as_dataset(dataset), "")
    return Explanation(tuple(rows))


def _append_stages(rows: list[Stage], dataset: Dataset, indent: str) -> bool:
    """Append the rows of a dataset, after those of its inputs. Return whether all stages could be read."""
    for stage in dataset.stages:
        is_source = not stage.operations and not stage.source.chain
        inputs = stage.source.inputs if is_source else ()
        if not all(_append_stages(rows, part, f"{indent}  ") for part in inputs):
            return False
        try:
            with closing(stage.open()) as items:
                text = next((_described(item) for item in items), "no item")
        except Exception as error:
            rows.append(Stage(indent + stage.labels[-1], stage.size, named_error(error)))
            return False
        rows.append(Stage(indent + stage.labels[-1], stage.size, text))
    return True


def _described(item: Item) -> str:
    """Describe an item. Of a list of rows, describe the first row too.

    >>> _described([{"n": 1}, {"n": 2}]), _described([1, 2])
    ('list of 2, the first {n: int}', 'list of 2')
    """
    nested = isinstance(item, list) and item and isinstance(item[0], (dict, tuple, list)) and not is_numbers(item)
    return f"{describe_batch(item)}, the first {_described(item[0])}" if nested else describe_batch(item)
