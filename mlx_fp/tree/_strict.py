"""Specs that choose nothing: a path with a typo is an error, with the nearest paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from ..core._errors import nearest
from ._select import Select, everything, nothing

__all__ = ["must_match"]


def must_match(chosen: Select, leaves: Iterable[tuple[str, Any]], of: str, *, paths_only: bool = False) -> None:
    """Raise KeyError, with the nearest paths, where a spec, or an alternative of it, or a path in it, chooses nothing.

    Args:
        chosen: the spec; `nothing`, and one that was made with `strict=False`, may choose nothing.
        leaves: the leaves there are, as `(path, leaf)`.
        of: what they are of, for the message: "parameter of Linear".
        paths_only: whether only the paths that are spelled out have to be there, whatever else is in the spec.

    >>> from mlx_fp.tree._select import under
    >>> must_match(under("encodr") | under("head"), [("encoder.weight", 0), ("head.weight", 0)], "parameter")
    Traceback (most recent call last):
    KeyError: "'encodr' matches no parameter; nearest: encoder, encoder.weight; strict=False allows it"
    """
    known = list(leaves)
    for part in _spelled(chosen) if paths_only else _demanded(chosen):
        if not any(part(path, leaf) for path, leaf in known):
            paths = [path for path, _ in known]
            texts = dict.fromkeys(step for path in paths for step in accumulate(path.split("."), "{}.{}".format))
            close = [near for text in sorted(part.named) for near in nearest(text, texts)] or paths[:3]
            shown = f"{', '.join(close) or 'none'}; strict=False allows it"
            text = repr(*part.named) if len(part.named) == 1 else repr(part)
            raise KeyError(f"{text} matches no {of}; nearest: {shown}")


def _demanded(chosen: Select) -> Iterator[Select]:
    """Yield what has to match: each alternative, and each path that is spelled out."""
    if not chosen.strict or chosen is everything or chosen is nothing:
        return
    if chosen.joint == "|":
        for part in chosen.parts:
            yield from _demanded(part)
    else:
        yield from _spelled(chosen)
        yield chosen


def _spelled(chosen: Select) -> Iterator[Select]:
    """Yield the parts that spell out a path."""
    if chosen.strict:
        if not chosen.parts and chosen.named:
            yield chosen
        for part in chosen.parts:
            yield from _spelled(part)
