"""The measured models at fixed sizes, their batches, and the numbers of the optimiser. Needs no framework."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from types import SimpleNamespace

import numpy as np

ADAMW = SimpleNamespace(rate=3e-5, betas=(0.9, 0.999), eps=1e-8, decay=0.01)
"""The numbers of AdamW in every framework; with bias correction, which PyTorch and optax always use."""

MODES = ("forward", "train")


@dataclass(frozen=True, slots=True)
class Case:
    """A model of a family, at given sizes; `sizes` is a tuple of names and numbers."""

    name: str
    family: str
    sizes: tuple[tuple[str, int], ...]
    exact: bool = False
    """Whether the numbers of all variants have the same bits."""

    @property
    def paired(self):
        """Whether the case is a function of this library and a reference of its own, see `pairs.py`."""
        return self.family == "pair"

    @property
    def modes(self):
        """The modes in which the case can run."""
        return ("train",) if self.paired else MODES

    @property
    def size(self):
        """The sizes by name."""
        return SimpleNamespace(**dict(self.sizes))

    @property
    def squared(self):
        """Whether the loss is a mean squared error, and not a cross entropy."""
        return self.family in ("transformer", "rnn")


def _case(name, family, *, exact=False, **sizes):
    return Case(name, family, tuple(sizes.items()), exact)


def _five(suffix, batch, source, target, width, heads, layers):
    """Return the models of one set of sizes: those of the published table."""
    sequence = {"batch": batch, "source": source, "target": target}
    return [
        _case(f"transformer_{suffix}", "transformer", **sequence, width=width, heads=heads, layers=layers),
        _case(f"cnn_{suffix}", "cnn", batch=batch, side=64, classes=1024),
        _case(f"mlp_{suffix}", "mlp", batch=batch, first=4 * width, hidden=4 * width, last=width, layers=3),
        _case(f"rnn_{suffix}", "rnn", batch=batch, source=source, width=width, hidden=2 * width),
    ]


CASES = (
    *_five("published", batch=2, source=32, target=16, width=64, heads=4, layers=2),
    *_five("defaults", batch=8, source=128, target=64, width=256, heads=8, layers=4),
    _case("gpt", "gpt", batch=8, source=128, width=256, heads=8, layers=4, vocabulary=4096),
    _case("mlp_784_256_10", "mlp", batch=64, first=784, hidden=256, last=10, layers=2),
    _case("mlp_tiny", "mlp", batch=32, first=8, hidden=8, last=8, layers=4),
    _case("mlp_deep", "mlp", batch=32, first=8, hidden=8, last=8, layers=100),
)

PAIRS = (
    _case("accumulate", "pair", batch=64, batches=4, first=784, hidden=256, last=10, layers=2),
    _case("across", "pair", exact=True, batch=64, first=784, hidden=256, last=10, layers=2),
    _case("members", "pair", batch=32, members=8, first=8, hidden=8, last=8, layers=4),
    _case("packed", "pair", rows=44, batch=4, length=256, vocabulary=1024, dims=256, layers=4),
)
"""The cases with a reference of their own: only the variants `raw`, `control` and `ours` run them."""

ALL = CASES + PAIRS


def chosen(patterns):
    """Return the cases whose name matches one of the shell patterns; all cases without patterns.

    Raise SystemExit for a pattern that matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatch(case.name, pattern) for case in ALL):
            raise SystemExit(f"no case matches {pattern!r}; there are {', '.join(case.name for case in ALL)}")
    return [case for case in ALL if not patterns or any(fnmatch(case.name, p) for p in patterns)]


def named(name):
    """Return the case with a name."""
    return next(case for case in ALL if case.name == name)


def dims(case):
    """Return the widths of an mlp, from its input to its output."""
    s = case.size
    return [s.first, *[s.hidden] * (s.layers - 1), s.last]


def built(case, **families):
    """Make the model of a case with the function whose name is the family of the case."""
    s = case.size
    made_with = {
        "mlp": lambda: dims(case),
        "cnn": lambda: (s.side, s.classes),
        "rnn": lambda: (s.width, s.hidden),
        "transformer": lambda: (s.width, s.heads, s.layers),
        "gpt": lambda: (s.vocabulary, s.source, s.width, s.heads, s.layers),
    }
    return families[case.family](*made_with[case.family]())


def batch(case):
    """Return the batch of a case as numpy arrays: a tuple of the model's inputs, and the target of its loss."""
    draw, s = np.random.default_rng(0), case.size

    def floats(*shape):
        return draw.uniform(-1, 1, shape).astype("float32")

    def labels(limit, *shape):
        return draw.integers(0, limit, shape).astype("int32")

    if case.family == "transformer":
        source, target = floats(s.batch, s.source, s.width), floats(s.batch, s.target, s.width)
        return (source, target), floats(s.batch, s.target, s.width)
    if case.family == "cnn":
        return (floats(s.batch, s.side, s.side, 3),), labels(s.classes, s.batch)
    if case.family == "rnn":
        return (floats(s.batch, s.source, s.width),), floats(s.batch, s.source, s.hidden)
    if case.family == "gpt":
        tokens = labels(s.vocabulary, s.batch, s.source + 1)
        return (tokens[:, :-1].copy(),), tokens[:, 1:].copy()
    return (floats(s.batch, s.first),), labels(s.last, s.batch)
