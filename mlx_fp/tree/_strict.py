"""Find specs that select nothing: a path with a typo is an error, which lists the nearest paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from ..core._errors import nearest
from ._select import Select, everything, nothing

__all__ = ["must_match"]


def must_match(chosen: Select, leaves: Iterable[tuple[str, object]], of: str, *, paths_only: bool = False) -> None:
    """Raise KeyError, with the nearest paths, where a spec or a part of it selects no leaf.

    The parts are the alternatives of `|` and the paths in the spec.

    Args:
        chosen: The spec. `nothing`, and a spec with `strict=False`, may select no leaf.
        leaves: All leaves, as `(path, leaf)`.
        of: The kind of the leaves, for the message. For example, "parameter of Linear".
        paths_only: Whether to check only the paths in the spec. Default: False.

    >>> from mlx_fp.tree._select import under
    >>> must_match(under("encodr") | under("head"), [("encoder.weight", 0), ("head.weight", 0)], "parameter")
    Traceback (most recent call last):
    KeyError: "'encodr' matches no parameter; nearest: encoder, encoder.weight; strict=False allows it"
    """
    candidates = list(leaves)
    for part in _with_paths(chosen) if paths_only else _required_parts(chosen):
        if not any(part(path, leaf) for path, leaf in candidates):
            paths = [path for path, _ in candidates]
            texts = dict.fromkeys(step for path in paths for step in accumulate(path.split("."), "{}.{}".format))
            similar = [near for text in sorted(part.named) for near in nearest(text, texts)] or paths[:3]
            hint = f"{', '.join(similar) or 'none'}; strict=False allows it"
            text = repr(*part.named) if len(part.named) == 1 else repr(part)
            raise KeyError(f"{text} matches no {of}; nearest: {hint}")


def _required_parts(chosen: Select) -> Iterator[Select]:
    """Yield the parts of a spec that must select a leaf: each alternative, and each part with a path."""
    if not chosen.strict or chosen is everything or chosen is nothing:
        return
    if chosen.joint == "|":
        for part in chosen.parts:
            yield from _required_parts(part)
    else:
        yield from _with_paths(chosen)
        yield chosen


def _with_paths(chosen: Select) -> Iterator[Select]:
    """Yield the innermost parts of a spec that contain a path."""
    if chosen.strict:
        if not chosen.parts and chosen.named:
            yield chosen
        for part in chosen.parts:
            yield from _with_paths(part)
