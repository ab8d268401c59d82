"""Bins of sequences by their lengths: every sequence once, no bin too long, the same bins each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp.data._bins import FITS, Bins

LENGTH = 12
SIZES = st.lists(st.integers(1, LENGTH), max_size=300)
WAYS = pytest.mark.parametrize("how", FITS)


def bins_of(how, sizes, length=LENGTH):
    return list(FITS[how](enumerate(sizes), length))


@WAYS
@given(sizes=SIZES)
def test_every_token_of_every_sequence_is_in_one_bin_and_no_bin_is_too_long(how, sizes):
    bins = bins_of(how, sizes)
    tokens = [(key, at) for pieces in bins for key, start, stop in pieces for at in range(start, stop)]
    assert sorted(tokens) == [(key, at) for key, size in enumerate(sizes) for at in range(size)]
    assert all(0 < sum(stop - start for _, start, stop in pieces) <= LENGTH for pieces in bins)


@pytest.mark.parametrize("how", ["best_fit", "first_fit"])
@given(sizes=SIZES)
def test_fits_keep_sequences_whole_and_leave_at_most_one_bin_half_empty(how, sizes):
    bins = bins_of(how, sizes)
    assert all(start == 0 and stop == sizes[key] for pieces in bins for key, start, stop in pieces)
    if len(bins) <= 64:
        assert sum(sum(stop for _, _, stop in pieces) * 2 <= LENGTH for pieces in bins) <= 1


@given(sizes=SIZES)
def test_joined_sequences_fill_every_row_but_the_last(sizes):
    bins = bins_of("concat", sizes)
    assert all(sum(stop - start for _, start, stop in pieces) == LENGTH for pieces in bins[:-1])
    assert [piece for pieces in bins for piece in pieces] == sorted(piece for pieces in bins for piece in pieces)


@pytest.mark.parametrize("how", ["best_fit", "first_fit"])
def test_few_bins_are_open_at_a_time(how):
    """A bin is handed out before the sequences are all read."""
    read = []
    sequences = ((read.append(key), (key, 7))[1] for key in range(1000))
    next(FITS[how](sequences, LENGTH))
    assert len(read) == 65


@WAYS
def test_gathered_bins_have_the_pieces_of_each_bin_by_number(how):
    bins = bins_of(how, [5, 9, 3, 12, 1, 7, 7])
    gathered = Bins.of(bins)
    assert [gathered[number] for number in range(len(gathered))] == bins
