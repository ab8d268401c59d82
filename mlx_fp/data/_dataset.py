"""A dataset is a source and a tuple of operations, both frozen; reading it is a pure function of a cursor.

Before the first row operation a pipe passes only an *order* of indices (see `_view.py`), and reads nothing. From the
first row operation on it passes rows, and each operation iterates over the output of the operation before it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ..core._html import html_table
from ..core._pickling import Picklable
from ..core._text import count_text
from ._cursor import START, Cursor, EpochRead, close, note_location, skip_to
from ._order_check import check_order
from ._protocols import Batching, OnOrder, OnRows, Seek
from ._source_record import Source
from ._types import Item, ItemFunction
from ._view import View

__all__ = ["Dataset", "Operation", "Source", "same_index"]


def same_index(output_index: int, epoch_read: EpochRead) -> int:
    """Seek in an operation that makes one output item of each input item.

    >>> same_index(7, EpochRead(epoch=0, kind="train"))
    7
    """
    return output_index


@dataclass(frozen=True, slots=True)
class Operation(Picklable):
    """A function from dataset to dataset, which prints as it was written.

    An operation without `on_order` begins the row part of a pipe. An operation without `on_rows` must come before that
    part.

    Args:
        label: The call, as a user writes it. For example, `"batch(8)"`.
        on_rows: `on_rows(rows, epoch_read)` returns an iterator over the changed rows.
        on_order: `on_order(order, epoch_read)` returns the changed order of indices.
        size: `size(n)` returns the number of output items of `n` input items, None where only reading tells it.
        seek: `seek(output_index, epoch_read)` returns the index of the first input item that this output item needs.
            Then `on_rows` gets the rows from this item on, and `epoch_read.start` is the index of the output item.
            Without `seek` the operation is read from the first item of the epoch, and the items that were handed out
            before are read again and dropped.
        as_source: `as_source(dataset)` returns a new source, which takes the place of the dataset.
        needs: End of the message for a dataset without indices, with the remedy.
        calls: Whether a user's function gets the items, which sources then copy. True by default.
        varies: Whether the result depends on the epoch or on the kind of the read. False by default.
        fingerprint: Function that returns a text that changes with the operation, where the label does not.
        bind: `bind(epoch_read)` returns the function of one item, where the operation treats each item alone.
        divides: Whether the operation makes some rows of a batch into the same rows of its result. Processes then read
            only their own rows of each batch. False by default.
        batching: How the operation makes batches of rows, where it does.

    >>> from mlx_fp.data import source
    >>> twice = Operation("twice", on_rows=lambda rows, epoch_read: (2 * row for row in rows), seek=same_index)
    >>> twice(source([1, 2, 3]))
    pipe(source(list of 3), twice)
    """

    label: str
    on_rows: OnRows | None = None
    on_order: OnOrder | None = None
    size: Callable[[int], int | None] = lambda size: None
    seek: Seek | None = None
    as_source: Callable[[Dataset], Source] | None = None
    needs: str = ""
    calls: bool = True
    varies: bool = False
    fingerprint: Callable[[], str] | None = None
    bind: Callable[[EpochRead], ItemFunction] | None = None
    divides: bool = False
    batching: Batching | None = None

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return the dataset with this operation after its others.

        Raises:
            TypeError: The argument is not a Dataset.
            ValueError: The operation needs indices, and the dataset gives rows.
        """
        if not isinstance(dataset, Dataset):
            kind = type(dataset).__name__
            raise TypeError(f"{self.label} takes a Dataset, not a {kind}: begin with source, arrays or stream")
        if self.on_rows is None and self.as_source is None and not dataset.indexed:
            row_operations = dataset.parts[1]
            culprit = row_operations[0].label if dataset.source.view and row_operations else dataset.source.label
            raise ValueError(f"{self.label} needs indices, but {culprit} before it gives rows{self.needs}")
        if self.as_source is not None:
            return Dataset(replace(self.as_source(dataset), chain=dataset.labels, inputs=(dataset,)))
        return replace(dataset, operations=(*dataset.operations, self))

    def __repr__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class Dataset(Picklable):
    """A source and the operations on it. Each `iter()` reads epoch 0 from its beginning.

    `len()` is the number of items of an epoch. It is a TypeError where only reading tells this number.

    Args:
        source: The beginning of the pipe.
        operations: The operations, in the order of the pipe.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> squares = pipe(data.source(range(5)), data.take(4), data.map(lambda n: n * n))
    >>> squares
    pipe(source(range of 5), take(4), map(<lambda>))
    >>> len(squares), list(squares), list(squares.open(data.Cursor(epoch=1, index=2)))
    (4, [0, 1, 4, 9], [4, 9])
    """

    source: Source
    operations: tuple[Operation, ...] = ()

    def __iter__(self) -> Iterator[Item]:
        return self.open()

    def __len__(self) -> int:
        size = self.size
        if size is None:
            unsized = next(stage.labels[-1] for stage in self.stages if stage.size is None)
            raise TypeError(f"{self!r} has no len(): {unsized} does not say how many items it gives")
        return size

    def __repr__(self) -> str:
        return f"pipe({', '.join(self.labels)})" if len(self.labels) > 1 else self.labels[0]

    def _repr_html_(self) -> str:
        """Return the operations and their numbers of items as HTML, for a notebook. Nothing is read."""
        return html_table([("operation", "items"), *((each.labels[-1], count_text(each.size)) for each in self.stages)])

    @property
    def stages(self) -> tuple[Dataset, ...]:
        """The dataset after its source and after each of its operations, in the order of the pipe."""
        before = self.source.inputs[0].stages if self.source.chain else ()
        return (*before, *(replace(self, operations=self.operations[:n]) for n in range(len(self.operations) + 1)))

    @property
    def labels(self) -> tuple[str, ...]:
        """The text of the source and of each operation, in the order of the pipe."""
        return (*self.source.chain, self.source.label, *(operation.label for operation in self.operations))

    @property
    def size(self) -> int | None:
        """Number of items of an epoch, None where only reading tells it."""
        size = self.source.size
        for operation in self.operations:
            size = None if size is None else operation.size(size)
        return size

    @property
    def indexed(self) -> bool:
        """Whether the pipe passes only indices, so that an operation on indices such as `shuffle` may follow."""
        return self.source.view is not None and not self.parts[1]

    @property
    def parts(self) -> tuple[tuple[Operation, ...], tuple[Operation, ...]]:
        """The operations on indices, and the operations on rows, which begin with the first one without `on_order`."""
        row_operations = (i for i, operation in enumerate(self.operations) if operation.on_order is None)
        first = 0 if self.source.view is None else next(row_operations, len(self.operations))
        return self.operations[:first], self.operations[first:]

    def open(self, cursor: Cursor = START, *, kind: str = "train") -> Generator[Item, None, None]:
        """Return an iterator over the items of the cursor's epoch, from the cursor's index on.

        The iterator skips without reading where it can: index operations, `map` and `batch` seek. Operations that
        cannot seek, for example `filter`, and streams are read again up to the cursor, and the log has a line for it.
        Nothing runs before the first item is requested. `close()` ends the reading early and closes the sources.

        Args:
            cursor: Epoch and index to begin at; the first item of epoch 0 by default.
            kind: Purpose of the read, which functions may name: `"train"`, `"validation"` or `"test"`.

        Returns:
            A generator of items.

        Raises:
            TypeError: `cursor` is not a Cursor.
        """
        if not isinstance(cursor, Cursor):
            raise TypeError(f"open takes a Cursor(epoch, index); got {cursor!r}")
        return self.read(EpochRead(cursor.epoch, kind, cursor.index))

    def read(self, epoch_read: EpochRead) -> Generator[Item, None, None]:
        """Return an iterator over the items of one reading of an epoch, from its start on; see `open`."""
        return _read_dataset(self, epoch_read)

    def view(self, epoch_read: EpochRead) -> View:
        """Return the items of one reading of an epoch by index; only for a dataset that is `indexed`."""
        return _view(self.source, self.operations, epoch_read)


def _view(source: Source, operations: tuple[Operation, ...], epoch_read: EpochRead) -> View:
    view = source.view(epoch_read)  # type: ignore[misc]  # callers have checked that the source has a view
    order = view.order
    for operation in operations:
        try:
            previous = order
            order = operation.on_order(previous, epoch_read)  # type: ignore[misc]  # `parts` selects such operations
            check_order(operation.on_order, order, previous)  # type: ignore[arg-type]  # the same
        except Exception as error:
            note_location(error, operation.label, epoch_read)
            raise
    return replace(view, order=order)


def _read_dataset(dataset: Dataset, epoch_read: EpochRead) -> Generator[Item, None, None]:
    """Open each stage at the item where the next stage begins, and yield the items of the last stage."""
    index_operations, row_operations = dataset.parts
    if any(operation.calls for operation in row_operations):
        epoch_read = replace(epoch_read, copies=True)
    source_read, *reads = _stage_reads(row_operations, epoch_read)
    with ExitStack() as resources:
        rows = _read_source(dataset.source, index_operations, source_read)
        resources.callback(close, rows)
        for operation, stage_read in zip(row_operations, reads, strict=True):
            rows = _apply_to_rows(operation, rows, stage_read)
            resources.callback(close, rows)
        yield from rows


def _stage_reads(operations: tuple[Operation, ...], epoch_read: EpochRead) -> list[EpochRead]:
    """Return the read of the source and of each operation; the starts are computed from the last stage back."""
    reads = [epoch_read]
    for operation in reversed(operations):
        try:
            start = 0 if operation.seek is None else operation.seek(reads[0].start, epoch_read)
        except Exception as error:
            note_location(error, operation.label, epoch_read)
            raise
        reads.insert(0, replace(epoch_read, start=start))
    return reads


def _read_source(source: Source, operations: tuple[Operation, ...], epoch_read: EpochRead) -> Iterator[Item]:
    if source.view is None:
        return source.rows(epoch_read)  # type: ignore[misc]  # a source without a view has rows
    return _view(source, operations, epoch_read).items(epoch_read, source.label)


def _apply_to_rows(operation: Operation, rows: Iterator[Item], epoch_read: EpochRead) -> Iterator[Item]:
    on_rows = operation.on_rows
    assert on_rows is not None  # `Operation.__call__` refuses operations without it after row operations
    try:
        if operation.seek is not None:
            return on_rows(rows, epoch_read)
        return skip_to(on_rows(rows, replace(epoch_read, start=0)), epoch_read, operation.label)
    except Exception as error:
        note_location(error, operation.label, epoch_read)
        raise
