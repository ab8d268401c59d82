"""Show the doctests of docstrings as code."""

import re

from griffe import Extension

DOCTEST = re.compile(r"^([ \t]*)>>> .*(?:\n(?![ \t]*$).*)*", re.MULTILINE)
"""A doctest and its output, to the next blank line."""


class Doctests(Extension):
    """Put each doctest of a docstring into a fence."""

    def on_object(self, *, obj, **_):
        """Change the docstring of an object."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = DOCTEST.sub(_fenced, obj.docstring.value)


def _fenced(found):
    return f"{found[1]}```pycon\n{found[0]}\n{found[1]}```"
