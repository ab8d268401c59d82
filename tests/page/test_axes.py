"""Axes have round ticks with labels that differ, for any finite values."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_fp.page._axes import axis

FINITE = st.floats(-1e150, 1e150)
pytestmark = pytest.mark.without_mlx


@given(st.lists(FINITE, max_size=20))
@example([1.0, 5e-324])
@example([5e-324, 0.0])
@example([-1e150, 1e150])
def test_every_value_has_a_place_on_its_axis(values):
    made = axis(values)
    assert made.ticks
    assert all(-1e-6 <= made.place(value) <= 1 + 1e-6 for value in values)
    assert all(-1e-6 <= made.place(tick) <= 1 + 1e-6 for tick, _ in made.ticks)


@given(st.lists(st.integers(0, 10**9), max_size=20))
def test_an_axis_that_counts_has_whole_ticks(values):
    made = axis(map(float, values), whole=True)
    assert not made.log
    assert all(tick == int(tick) and made.low <= tick <= made.high for tick, _ in made.ticks)


@pytest.mark.parametrize(
    "values", [[0.1, 0.9], [416.45e3, 416.65e3], [5e5, 5e5 + 1], [1e-7, 9e-7], [-3.0, 8.0], [1e9, 3e9], [0.02, 0.02]]
)
def test_labels_of_ticks_differ(values):
    labels = [label for _, label in axis(values).ticks]
    assert len(labels) == len(set(labels)) >= 3


def test_positive_values_over_more_than_two_decades_are_logarithmic():
    assert axis([0.001, 1.0]).log
    assert not axis([0.02, 1.0]).log
    assert not axis([0.0, 1e6]).log
