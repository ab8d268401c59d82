"""Pack sequences of different lengths into rows of one length, so that a step computes on little padding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

from ..core._context import with_context
from ..core._errors import unknown
from ..core._options import FLAG, check_options
from ..core._types import Array
from ._bins import FITS, Bins, Fit, Piece, Sequences
from ._call_text import call_text
from ._cursor import START, EpochRead, non_negative_int, note_location, skip_to
from ._dataset import Dataset, Operation, Source
from ._fingerprint import varying_stage
from ._packed_row import packed_row, tokens_of
from ._types import Item
from ._view import View, pick_by

__all__ = ["pack"]

_LOG = logging.getLogger("mlx_fp.data")

Lengths = Callable[..., int] | Sequence[int]
"""A function of a row, or a number for each index of the source."""


def pack(length: int, *, how: str = "best_fit", lengths: Lengths | None = None, cut: bool = False) -> Operation:
    """Pack sequences of token ids into rows of `length` tokens.

    Rows before it are sequences of token ids, or dicts with `tokens` and perhaps `mask`, 1 for each token that counts
    as a target and 0 for others. Other columns are left out. Rows after it are dicts of int32 arrays `(length,)`:

    - `tokens`: the sequences one after the other, then 0;
    - `segments`: the number of the sequence in the row, from 1; 0 is padding;
    - `positions`: the place of the token in its sequence, from 0;
    - `mask`: the mask of the sequence, 1 where it has none; 0 on padding.

    A dataset with indices keeps them: the lengths are read once, bins are made of the order of the epoch, and only the
    rows that are asked for are read. A shuffle before `pack` gives other bins in each epoch; a shuffle after it
    shuffles whole rows. Other datasets are packed as they are read. At most 64 rows are open at a time.

    Args:
        length: Number of tokens of a row, at least 1.
        how: `"best_fit"`, the default, puts each sequence into the open row where it leaves the least room;
            `"first_fit"` puts it into the oldest open row that has room for it; `"concat"` joins all sequences and cuts
            at each `length`. A sequence that is cut there goes on in the next row, as a segment of its own with
            positions from 0.
        lengths: The number of tokens of each sequence, for datasets of which no row should be read before it is needed:
            a number for each index of the source, or a function of a row. By default the rows tell it.
        cut: Whether a sequence with more than `length` tokens loses the tokens behind `length`. The log tells their
            number. False by default: such a sequence is an error.

    Raises:
        ValueError: `length` is not an integer of at least 1, `how` is unknown, `cut` is given for `"concat"`, or
            numbers are given as `lengths` and the dataset has no indices. When the data are read: a sequence is longer
            than `length`, or `lengths` is wrong.
        TypeError: When the data are read: a row has no token ids.

    >>> from toolz import pipe
    >>> from mlx_fp import data
    >>> rows = pipe(data.source([[1, 2, 3], [4, 5, 6, 7], [8, 9]]), data.pack(5))
    >>> [row["tokens"].tolist() for row in rows]
    [[1, 2, 3, 8, 9], [4, 5, 6, 7, 0]]
    """
    if how not in FITS:
        raise ValueError(unknown("how of pack,", str(how), list(FITS)))
    check_options("pack", {"cut": cut}, {"cut": FLAG})
    if cut and how == "concat":
        raise ValueError('cut=True of pack is for "best_fit" and "first_fit": "concat" cuts at the end of each row')
    size, known = non_negative_int(length, "the length of pack", minimum=1), _known_lengths(lengths)
    label = call_text("pack", size, how=None if how == "best_fit" else how, lengths=known, cut=cut or None)
    if isinstance(known, list):
        label = label.replace(repr(known), f"{len(known)} numbers")
    packing = _Packing(label, size, FITS[how], known, cut, how == "concat")
    return Operation(label, as_source=packing.source)


@dataclass(frozen=True, slots=True)
class _Packing:
    """The options of `pack`."""

    label: str
    length: int
    fit: Fit
    lengths: Callable[[Item], int] | list[int] | None
    cut: bool
    joins: bool

    def source(self, dataset: Dataset) -> Source:
        """Return the packed rows of a dataset."""
        if not dataset.indexed:
            if isinstance(self.lengths, list):
                raise ValueError(f"{self.label} has a length for each index, and {dataset!r} gives rows, not indices")
            return Source(
                self.label,
                rows=lambda epoch_read: skip_to(_stream(self, dataset, epoch_read), epoch_read, self.label),
                inputs=(dataset,),
            )
        measured: dict[int, int] = {}
        keeps = varying_stage(Dataset(dataset.source)) is None  # an index is the same item in every epoch

        def view(epoch_read: EpochRead) -> View:
            return _view(self, dataset, epoch_read, measured if keeps else {})

        return Source(self.label, self._count(dataset), view=view, inputs=(dataset,))

    def _count(self, dataset: Dataset) -> int | None:
        """Return the number of rows where numbers alone tell it, and it is the same in every epoch."""
        if not isinstance(self.lengths, list) or varying_stage(dataset) is not None:
            return None
        epoch_read = EpochRead(START.epoch, "train")
        order = dataset.view(epoch_read).order
        return sum(1 for _ in self.bins(zip(order, _by_index(self, order), strict=True), None))

    def length_of(self, row: Item) -> int:
        """Return the number of tokens of a row; ValueError if `lengths` tells another number."""
        size = len(tokens_of(row))
        if callable(self.lengths) and self.lengths(row) != size:
            raise ValueError(f"a sequence has {size} tokens, and {self.label} takes it for {self.lengths(row)}")
        return size

    def bins(self, sequences: Sequences, epoch_read: EpochRead | None) -> Iterator[list[Piece]]:
        """Yield the bins of sequences; log the number of tokens that are cut off, for a reading of an epoch."""
        cuts: list[int] = []
        yield from self.fit(self._fitting(sequences, cuts), self.length)
        if cuts and epoch_read is not None:
            _LOG.warning(
                "%s cut %d sequences and left out %d tokens in epoch %d",
                *(self.label, len(cuts), sum(cuts), epoch_read.epoch),
            )

    def _fitting(self, sequences: Sequences, cuts: list[int]) -> Iterator[tuple[Any, int]]:
        """Yield the sequences that have tokens, cut to the length of a row."""
        for number, (key, size) in enumerate(sequences):
            if size > self.length and not self.joins:
                if not self.cut:
                    raise ValueError(
                        f"sequence {number} has {size} tokens, and a row of {self.label} has {self.length}: cut=True "
                        'leaves out the rest, how="concat" goes on in the next row, and filter removes sequences'
                    )
                cuts.append(size - self.length)
                yield key, self.length
            elif size:
                yield key, size


def _known_lengths(lengths: Any) -> Callable[[Item], int] | list[int] | None:
    """Check the lengths; return a function of a row, or a list of ints."""
    if lengths is None:
        return None
    if callable(lengths):
        with_context(lengths, offers=(), what="lengths function")
        return cast(Callable[[Item], int], lengths)
    if not hasattr(lengths, "__len__") or isinstance(lengths, (str, bytes, dict)):
        raise TypeError(f"lengths of pack is a number for each index, or a function of a row; got {lengths!r}")
    numbers = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)
    return [non_negative_int(number, "a length of pack") for number in numbers]


def _view(packing: _Packing, dataset: Dataset, epoch_read: EpochRead, measured: dict[int, int]) -> View:
    """Return the packed rows of an epoch by index; `measured` has the lengths that were read before."""
    try:
        inner = dataset.view(epoch_read)
        if not isinstance(inner.order, (range, memoryview)):
            raise ValueError(f"{packing.label} packs sequences, and the dataset has batches: pack before batch")
        read = inner.row or inner.pick
        sizes = _by_index(packing, inner.order) or _by_reading(packing, inner, read, measured)
        bins = Bins.of(packing.bins(zip(inner.order, sizes, strict=True), epoch_read))
    except Exception as error:
        note_location(error, packing.label, epoch_read)
        raise

    def row(index: int) -> dict[str, Array]:
        return packed_row(((_checked(packing, key, read(key)), *place) for key, *place in bins[index]), packing.length)

    return View(range(len(bins)), pick_by(row), row)


def _by_index(packing: _Packing, order: Any) -> list[int]:
    """Return the known length of each index of an order; none where the rows tell them."""
    if not isinstance(packing.lengths, list):
        return []
    if len(order) and max(order) >= len(packing.lengths):
        raise ValueError(f"{packing.label}: the source has an item {max(order)}, and lengths end before it")
    return [packing.lengths[index] for index in order]


def _by_reading(packing: _Packing, inner: View, read: Callable[[int], Item], measured: dict[int, int]) -> Iterator[int]:
    """Yield the length of each item of a view."""
    for index in inner.order:
        if index not in measured:
            measured[index] = packing.length_of(read(index))
        yield measured[index]


def _checked(packing: _Packing, index: int, row: Item) -> Item:
    """Return a row; ValueError if it has another number of tokens than `lengths` tells."""
    if isinstance(packing.lengths, list) and len(tokens_of(row)) != packing.lengths[index]:
        size = packing.lengths[index]
        raise ValueError(f"item {index} has {len(tokens_of(row))} tokens, and {packing.label} takes it for {size}")
    return row


def _stream(packing: _Packing, dataset: Dataset, epoch_read: EpochRead) -> Iterator[dict[str, Array]]:
    """Yield the packed rows of an epoch from its start, as the rows are read."""
    with closing(dataset.read(replace(epoch_read, start=0))) as rows:
        try:
            for pieces in packing.bins(((row, packing.length_of(row)) for row in rows), epoch_read):
                yield packed_row(pieces, packing.length)
        except Exception as error:
            note_location(error, packing.label, epoch_read)
            raise
