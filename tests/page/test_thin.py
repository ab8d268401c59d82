"""Curves become few points, and keep their extremes, ends and gaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp.page._thin import is_drawn, thin

VALUES = st.lists(st.one_of(st.floats(), st.none()), max_size=300)
pytestmark = pytest.mark.without_mlx


@given(VALUES, st.integers(2, 60))
def test_a_thin_curve_has_few_points_with_the_extremes_and_the_ends(values, most):
    kept = thin(values, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= 3 * most // 2 + 3
    if values:
        assert {0, len(values) - 1} <= set(kept)
    drawn = [value for value in values if is_drawn(value)]
    if drawn:
        assert {min(drawn), max(drawn)} <= {values[i] for i in kept}
    assert len(drawn) == len(values) or any(not is_drawn(values[i]) for i in kept)


@given(VALUES)
def test_a_short_curve_stays_as_it_is(values):
    assert thin(values, 300) == list(range(len(values)))
