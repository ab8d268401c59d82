"""What a message says, and that a note leaves the error itself alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp.core._errors import located, nearest, unknown


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=6), st.text(max_size=6))
def test_nearest_gives_candidates_only_and_the_name_itself_first(candidates, name):
    found = nearest(name, candidates)
    assert len(found) <= 3
    assert set(found) <= set(candidates)
    if name and name in candidates:
        assert found[0] == name


def test_nearest_gives_nothing_when_nothing_is_near():
    assert nearest("xyz", ["weight", "bias"]) == ()


def test_nearest_takes_an_iterator_and_a_limit():
    assert nearest("layer", iter(["layers", "layer1", "layer2"]), n=2) == ("layers", "layer2")


def test_unknown_names_kind_name_guess_and_candidates():
    assert unknown("option", "bais", iter(["dims", "bias"])) == (
        "unknown option 'bais': did you mean 'bias'? known: dims, bias"
    )


def test_unknown_without_a_guess_or_candidates():
    assert unknown("metric", "zzz", ["loss"]) == "unknown metric 'zzz': known: loss"
    assert unknown("metric", "zzz", []) == "unknown metric 'zzz': known: none"


def test_located_adds_one_note_per_level_and_keeps_the_object():
    thrown = KeyError("w")
    with pytest.raises(KeyError) as caught, located(split="train"), located(epoch=3, batch=7):
        raise thrown
    assert caught.value is thrown
    assert caught.value.args == ("w",)
    assert caught.value.__notes__ == ["at epoch=3, batch=7", "at split=train"]


def test_located_lets_a_result_and_an_interrupt_through_without_a_note():
    with located(epoch=1):
        value = 5
    assert value == 5
    with pytest.raises(KeyboardInterrupt) as caught, located(epoch=1):
        raise KeyboardInterrupt
    assert not hasattr(caught.value, "__notes__")
