"""Select leaves of a tree by a frozen predicate over `(path, leaf)`, which prints as the program wrote it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core._pickling import Picklable

__all__ = ["Select", "by_part", "everything", "matching", "ndim", "nothing", "select", "under", "under_prefix"]


@dataclass(frozen=True, slots=True)
class Select(Picklable):
    """Select leaves by a predicate over `(path, leaf)`. The operators `&`, `|` and `~` combine selections.

    Args:
        match: The predicate.
        text: The text that `repr` returns.
        joint: The operator that combined `parts`: "&", "|" or "~". Default: none.
        parts: The combined selections.
        named: The paths in the spec.
        strict: Whether it is an error if the selection selects no leaf. Default: True.

    >>> rule = under("encoder") & ~matching(r"bias$")
    >>> rule
    under('encoder') & ~matching('bias$')
    >>> rule("encoder.layers.0.weight"), rule("encoder.layers.0.bias"), rule("head.weight")
    (True, False, False)
    """

    match: Callable[[str, Any], bool]
    text: str
    joint: str = ""
    parts: tuple[Select, ...] = ()
    named: frozenset[str] = frozenset()
    strict: bool = True

    def __call__(self, path: str, leaf: object = None) -> bool:
        """Tell whether the leaf at `path` is selected."""
        return bool(self.match(path, leaf))

    def __and__(self, other: Select) -> Select:
        if not isinstance(other, Select):
            return NotImplemented
        return Select(lambda p, x: self(p, x) and other(p, x), f"{self._term()} & {other._term()}", "&", (self, other))

    def __or__(self, other: Select) -> Select:
        if not isinstance(other, Select):
            return NotImplemented
        text = f"{self._term()} | {other._term()}"
        return Select(lambda p, x: self(p, x) or other(p, x), text, "|", (self, other), self.named | other.named)

    def __invert__(self) -> Select:
        return Select(lambda p, x: not self(p, x), f"~{self._term()}", "~", (self,))

    def __repr__(self) -> str:
        return self.text

    def _term(self) -> str:
        return f"({self.text})" if self.joint in ("&", "|") else self.text


everything = Select(lambda path, leaf: True, "everything")
"""Select every leaf."""

nothing = Select(lambda path, leaf: False, "nothing")
"""Select no leaf."""


def under(path: str) -> Select:
    """Select the leaf at `path`, or all leaves of the subtree at `path`.

    An empty path raises ValueError.

    >>> [under("body.0")(p) for p in ("body.0", "body.0.weight", "body.01.weight")]
    [True, True, False]
    """
    if not path:
        raise ValueError("under(path) needs a path; use `everything` for the whole tree")
    return Select(lambda p, _: p == path or p.startswith(path + "."), f"under({path!r})", named=frozenset([path]))


def matching(pattern: str | re.Pattern[str]) -> Select:
    """Select the leaves whose path contains a match of a regular expression.

    >>> matching(r"norm|bias$")("body.norm.weight")
    True
    """
    compiled = re.compile(pattern)
    return Select(lambda p, _: compiled.search(p) is not None, f"matching({compiled.pattern!r})")


def ndim(count: int) -> Select:
    """Select the arrays with `count` axes.

    For example, `ndim(2)` selects the matrices of a transformer, but not its biases and norms.

    >>> from mlx_fp import paths
    >>> from mlx_fp.core._mlx import mx
    >>> paths(ndim(2))({"weight": mx.zeros((3, 2)), "bias": mx.zeros((3,))})
    ('weight',)
    """
    return Select(lambda _, leaf: leaf.ndim == count, f"ndim({count})")


def under_prefix(prefix: str, inner: Select) -> Select:
    """Select the leaves under `prefix` that `inner` selects by the rest of their path.

    >>> under_prefix("head", under("weight"))("head.weight")
    True
    """
    return _placed({prefix: inner}, ())


def by_part(parts: Mapping[str, Select], own: Collection[str] = ()) -> Select:
    """Select the leaves that the Select of their part selects by the rest of their path.

    The path of a part has one or more components, for example `head` or `layers.0`. The leaves at exactly the paths in
    `own` are selected too.

    >>> rule = by_part({"layers.0": everything, "head": under("weight")}, own=["scale"])
    >>> rule("layers.0.bias"), rule("layers.1.bias"), rule("head.weight"), rule("head.bias"), rule("scale")
    (True, False, True, False, True)
    """
    rules = {prefix: inner for prefix, inner in parts.items() if inner is not nothing}
    return _placed(rules, own) if rules or own else nothing


@dataclass(frozen=True, slots=True)
class _ByPlace:
    """A predicate of which each rule is for the leaves below its prefix; no prefix lies below another."""

    rules: Mapping[str, Select]
    leaves: frozenset[str]

    def __call__(self, path: str, leaf: Any) -> bool:
        end = path.find(".")
        while end >= 0:
            rule = self.rules.get(path[:end])
            if rule is not None:
                return rule(path[end + 1 :], leaf)
            end = path.find(".", end + 1)
        return path in self.leaves


def _placed(parts: Mapping[str, Select], own: Collection[str]) -> Select:
    """Put each Select below its prefix; the rules of one that was made so are taken out, so that none lies in another.

    >>> _placed({"a": _placed({"b": everything, "c.d": nothing}, ())}, ())
    under_prefix('a.b', everything) | under_prefix('a.c.d', nothing)
    """
    rules, leaves = dict[str, Select](), set(own)
    for prefix, inner in parts.items():
        if isinstance(inner.match, _ByPlace):
            rules |= {f"{prefix}.{rest}": rule for rest, rule in inner.match.rules.items()}
            leaves |= {f"{prefix}.{leaf}" for leaf in inner.match.leaves}
        else:
            rules[prefix] = inner
    spelled = frozenset(f"{prefix}.{path}" for prefix, rule in rules.items() for path in rule.named)
    terms = [f"under_prefix({prefix!r}, {rule!r})" for prefix, rule in rules.items()] + [
        f"under({at!r})" for at in leaves
    ]
    match = _ByPlace(rules, frozenset(leaves))
    return Select(match, " | ".join(terms), "|" if len(terms) > 1 else "", named=spelled.union(leaves))


def select(spec: object = None, *, strict: bool = True) -> Select:
    """Make a Select from a spec.

    Args:
        spec: None selects everything. A str selects the leaf at this path, or its subtree. An `re.Pattern` selects the
            paths that contain a match. A list, tuple or set of specs selects the leaves that any of them selects. A
            function of `(path)` or `(path, leaf)` selects the leaves for which it returns True.
        strict: Whether functions such as `freeze` and `groups` raise KeyError where the spec, or a path in it, selects
            no leaf. Default: True.

    Returns:
        The Select.

    Raises:
        TypeError: The spec has another type, or `strict` is no flag.

    >>> select(["encoder", re.compile("bias$")])
    under('encoder') | matching('bias$')
    """
    if not isinstance(strict, bool):
        raise TypeError(f"strict of select is True or False; got {strict!r}")
    return _as_select(spec) if strict else replace(_as_select(spec), strict=False)


def _as_select(spec: object) -> Select:
    match spec:
        case None:
            return everything
        case Select():
            return spec
        case str():
            return under(spec)
        case re.Pattern():
            return matching(spec)
        case list() | tuple() | set() | frozenset():
            return _any_of(spec)
    if callable(spec):
        return _predicate(spec)
    raise TypeError(
        "a spec is None, a path, an re.Pattern, a list of specs, a function of (path) or (path, leaf), or a Select; "
        f"got {type(spec).__name__}: {spec!r}"
    )


def _any_of(specs: Iterable[object]) -> Select:
    parts = [_as_select(s) for s in (sorted(specs, key=str) if isinstance(specs, (set, frozenset)) else specs)]
    if not parts:
        return nothing
    if len(parts) == 1:
        return parts[0]
    text = " | ".join(part._term() for part in parts)
    named = frozenset[str]().union(*(part.named for part in parts))
    return Select(lambda p, x: any(part(p, x) for part in parts), text, "|", tuple(parts), named)


def _predicate(fn: Callable[..., bool]) -> Select:
    """Make a Select from a function of `(path)` or `(path, leaf)`."""
    text = getattr(fn, "__name__", repr(fn))
    try:
        _, *more = inspect.signature(fn).parameters.values()
    except (ValueError, TypeError):
        more = []
    takes_leaf = any(p.name == "leaf" or p.default is p.empty for p in more[:1])
    return Select(fn, text) if takes_leaf else Select(lambda p, _: fn(p), text)
