"""The language of the library: few noun clauses, examples, types that say something, names that stand for one thing."""

from __future__ import annotations

import pytest
from language import measured, without_args

FIGURES = measured()


@pytest.mark.parametrize(
    ("figure", "least", "most"),
    [
        ('"what" in 1,000 words', 0, 1),
        ('"for example" in 1,000 words', 2, 20),
        ("Any in 1,000 lines of code", 0, 40),
    ],
)
def test_a_figure_of_the_language_is_in_its_bounds(figure, least, most):
    assert least <= FIGURES[figure] <= most


def test_few_names_are_defined_in_three_files():
    names = FIGURES["names defined in three files or more"]
    assert len(names) <= 20, names


def test_public_functions_with_options_list_their_arguments():
    assert without_args() == []
