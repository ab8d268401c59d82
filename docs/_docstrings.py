"""Show the doctests of docstrings as code, and of each class its own members alone."""

import re

from griffe import Extension

DOCTEST = re.compile(r"^([ \t]*)>>> .*(?:\n(?![ \t]*$).*)*", re.MULTILINE)
"""A doctest and its output, to the next blank line."""


class Docstrings(Extension):
    """Put each doctest of a docstring into a fence, and leave out members from outside the library."""

    def on_object(self, *, obj, **_):
        """Change the docstring of an object."""
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = DOCTEST.sub(_fenced, obj.docstring.value)

    def on_class_members(self, *, cls, **_):
        """Keep methods and properties with a name that users call, and the constructor for its signature."""
        for name, member in list(cls.members.items()):
            public = name in ("__init__", "__call__") or not name.startswith("_")
            called = not member.is_alias and (member.is_function or "property" in member.labels)
            if not public or not called:
                del cls.members[name]


def _fenced(found):
    return f"{found[1]}```pycon\n{found[0]}\n{found[1]}```"
