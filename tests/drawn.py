"""How many examples hypothesis draws: few by default, and as many as a test asks for in `make test-slow`."""

from hypothesis import settings

MANY = 100
"""The examples of a test that asks for no number, in `make test-slow`; conftest.py chooses this or fewer."""


def examples(number):
    """Return the settings of a test that draws so many examples where many are drawn, and few otherwise."""
    usual = settings().max_examples
    return settings(max_examples=number if usual >= MANY else min(number, usual))
