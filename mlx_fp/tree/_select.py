"""Choose leaves of a tree: a frozen predicate over `(path, leaf)` that reads like what it means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..core._pickling import Picklable

__all__ = ["Select", "everything", "matching", "ndim", "nothing", "parted", "select", "under", "within"]


@dataclass(frozen=True, slots=True)
class Select(Picklable):
    """A predicate over `(path, leaf)`; combine with `&`, `|` and `~`. `named` holds the paths that it spells out.

    `parts` are those that `joint`, one of `&`, `|` and `~`, makes it of. One that is not `strict` may choose nothing.

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

    def __call__(self, path: str, leaf: Any = None) -> bool:
        """Tell whether the leaf at `path` is chosen."""
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
"""Choose every leaf."""

nothing = Select(lambda path, leaf: False, "nothing")
"""Choose no leaf."""


def under(path: str) -> Select:
    """Choose the leaf at exactly `path`, or all leaves of the subtree under it.

    >>> [under("body.0")(p) for p in ("body.0", "body.0.weight", "body.01.weight")]
    [True, True, False]
    """
    if not path:
        raise ValueError("under(path) needs a path; use `everything` for the whole tree")
    return Select(lambda p, _: p == path or p.startswith(path + "."), f"under({path!r})", named=frozenset([path]))


def matching(pattern: str | re.Pattern[str]) -> Select:
    """Choose the leaves whose path has a match of the regular expression anywhere in it.

    >>> matching(r"norm|bias$")("body.norm.weight")
    True
    """
    compiled = re.compile(pattern)
    return Select(lambda p, _: compiled.search(p) is not None, f"matching({compiled.pattern!r})")


def ndim(count: int) -> Select:
    """Choose the arrays with `count` axes: `ndim(2)` takes matrices and leaves biases and norms."""
    return Select(lambda _, leaf: leaf.ndim == count, f"ndim({count})")


def within(prefix: str, inner: Select) -> Select:
    """Choose, under `prefix`, the leaves that `inner` chooses by the rest of their path.

    >>> within("head", under("weight"))("head.weight")
    True
    """
    return _placed({prefix: inner}, ())


def parted(parts: Mapping[str, Select], own: Collection[str] = ()) -> Select:
    """Choose the leaves that the Select of their part chooses by the rest of their path; a part is at `a` or `a.b`.

    Besides choose the leaves at exactly the paths in `own`.

    >>> rule = parted({"layers.0": everything, "head": under("weight")}, own=["scale"])
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
    within('a.b', everything) | within('a.c.d', nothing)
    """
    rules, leaves = dict[str, Select](), set(own)
    for prefix, inner in parts.items():
        if isinstance(inner.match, _ByPlace):
            rules |= {f"{prefix}.{rest}": rule for rest, rule in inner.match.rules.items()}
            leaves |= {f"{prefix}.{leaf}" for leaf in inner.match.leaves}
        else:
            rules[prefix] = inner
    spelled = frozenset(f"{prefix}.{path}" for prefix, rule in rules.items() for path in rule.named)
    terms = [f"within({prefix!r}, {rule!r})" for prefix, rule in rules.items()] + [f"under({at!r})" for at in leaves]
    match = _ByPlace(rules, frozenset(leaves))
    return Select(match, " | ".join(terms), "|" if len(terms) > 1 else "", named=spelled.union(leaves))


def select(spec: Any = None, *, strict: bool = True) -> Select:
    """Make a Select of a spec.

    `None` is everything; a str an exact path or the subtree under it; an `re.Pattern` a search over the path; a
    list, tuple or set any of them; a callable takes `(path)` or `(path, leaf)`. Anything else is a TypeError.

    Args:
        spec: the spec.
        strict: whether `freeze`, `groups` and others that take it raise KeyError where it, or a path in it, is not
            there.

    >>> select(["encoder", re.compile("bias$")])
    under('encoder') | matching('bias$')
    """
    if not isinstance(strict, bool):
        raise TypeError(f"strict of select is True or False; got {strict!r}")
    return _selected(spec) if strict else replace(_selected(spec), strict=False)


def _selected(spec: Any) -> Select:
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


def _any_of(specs: Any) -> Select:
    parts = [_selected(s) for s in (sorted(specs, key=str) if isinstance(specs, (set, frozenset)) else specs)]
    if not parts:
        return nothing
    if len(parts) == 1:
        return parts[0]
    text = " | ".join(part._term() for part in parts)
    spelled = frozenset[str]().union(*(part.named for part in parts))
    return Select(lambda p, x: any(part(p, x) for part in parts), text, "|", tuple(parts), spelled)


def _predicate(fn: Callable[..., Any]) -> Select:
    text = getattr(fn, "__name__", repr(fn))
    try:
        _, *more = inspect.signature(fn).parameters.values()
    except (ValueError, TypeError):
        more = []
    takes_leaf = any(p.name == "leaf" or p.default is p.empty for p in more[:1])
    return Select(fn, text) if takes_leaf else Select(lambda p, _: fn(p), text)
