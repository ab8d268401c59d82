"""Split trees by a list of rules: the first match wins, and each parameter needs a rule."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from ..core._types import Params, Tree
from ..tree._paths import divided, flat, leaves, paths
from ..tree._select import Select
from ..tree._strict import must_match

__all__ = ["RuleList"]

_HINT = "a text is a whole path or its beginning, re.compile('bias$') matches anywhere, and the first match wins"


@dataclass(frozen=True, slots=True)
class RuleList:
    """The specs of the rules that a verb has, for example of `groups`, and the kind of the values."""

    verb: str
    specs: Sequence[Select]
    value: str

    def check(self, params: Params) -> None:
        """Raise KeyError where a spec matches no parameter, and warn where earlier rules take all parameters of one."""
        for spec in self.specs:
            must_match(spec, flat(params).items(), f"parameter that trains: {_HINT}")
        for spec, part in zip(self.specs, self.split(params), strict=True):
            if spec.strict and not leaves(part):
                warnings.warn(f"{spec!r} of {self.verb} gets no parameter: {_HINT}", RuntimeWarning, stacklevel=4)

    def split(self, tree: Tree) -> list[Tree]:
        """Split a tree into one part for each rule; raise ValueError for a leaf that no rule matches.

        >>> from mlx_fp.tree._select import everything, under
        >>> RuleList("groups", [under("a"), everything], "optimizer").split({"a": 1, "b": 2})
        [{'a': 1, 'b': {}}, {'a': {}, 'b': 2}]
        """
        parts = []
        for spec in self.specs:
            part, tree = divided(spec)(tree)
            parts.append(part)
        unmatched = paths()(tree)
        if unmatched:
            specs, ending = ", ".join(map(repr, self.specs)), f"end with (everything, {self.value})"
            raise ValueError(f"no rule of {self.verb}({specs}) matches {', '.join(unmatched)}; {ending}")
        return parts
