"""The operations that a training step of a case is made of, with their sizes, and how often each runs. No framework."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from .cases import dims


@dataclass(frozen=True, slots=True)
class Op:
    """A kind of operation at given sizes, `times` in a step; one `inside` another is not added to the sum."""

    kind: str
    sizes: tuple[int, ...]
    times: int
    inside: bool = False

    @property
    def title(self):
        """The name in tables."""
        return f"{self.kind} {'×'.join(map(str, self.sizes))}" if self.kind != "adamw" else "AdamW"


def ops(case, shapes):
    """The operations of a step of a case, whose parameters have these shapes, forward and backward together."""
    s = case.size
    made = {"mlp": _mlp, "cnn": _cnn, "rnn": _rnn, "transformer": _transformer, "gpt": _gpt}[case.family](case, s)
    update = tuple(number for shape in shapes for number in (len(shape), *shape))
    return [*made, Op("adamw", update, 1)]


def shapes(update):
    """The shapes of the parameters of an AdamW operation, out of its sizes."""
    left, found = list(update), []
    while left:
        rank = left.pop(0)
        found.append(tuple(left[:rank]))
        del left[:rank]
    return found


def _mlp(case, s):
    dense = Counter(pairwise(dims(case)))
    hidden = Counter(dims(case)[1:-1])
    return [
        *(Op("dense", (s.batch, *pair), times) for pair, times in dense.items()),
        *(Op("relu", (s.batch, width), times) for width, times in hidden.items()),
        Op("cross entropy", (s.batch, s.last), 1),
    ]


def _cnn(case, s):
    half, quarter = s.side // 2, s.side // 4
    return [
        Op("conv", (s.batch, s.side, 3, 16), 1),
        Op("conv", (s.batch, half, 16, 32), 1),
        Op("relu", (s.batch * s.side**2, 16), 1),
        Op("relu", (s.batch * half**2, 32), 1),
        Op("max pool", (s.batch, s.side, 16), 1),
        Op("max pool", (s.batch, half, 32), 1),
        Op("dense", (s.batch, 32 * quarter**2, s.classes), 1),
        Op("cross entropy", (s.batch, s.classes), 1),
    ]


def _rnn(case, s):
    return [
        Op("dense", (s.batch * s.source, s.width, s.hidden), 1),
        Op("recurrence", (s.batch, s.source, s.hidden), 1),
        Op("squared error", (s.batch * s.source, s.hidden), 1),
    ]


def _layers(s, rows, layers, activation):
    """Return the operations of transformer layers, except attention."""
    return [
        Op("dense", (rows, s.width, s.width), 4 * layers),
        Op("dense", (rows, s.width, 4 * s.width), layers),
        Op(activation, (rows, 4 * s.width), layers),
        Op("dense", (rows, 4 * s.width, s.width), layers),
        Op("layer norm", (rows, s.width), 2 * layers + 1),
    ]


def _attention(s, query, key, causal, times):
    """Attention over (n, heads, query, key) and heads of so many dimensions, and the softmax in it."""
    return [
        Op("causal attention" if causal else "attention", (s.batch, s.heads, query, key, s.width // s.heads), times),
        Op("softmax", (s.batch, s.heads, query, key), times, inside=True),
    ]


def _transformer(case, s):
    source, target = s.batch * s.source, s.batch * s.target
    return [
        *_layers(s, source, s.layers, "relu"),
        *_attention(s, s.source, s.source, False, s.layers),
        *_layers(s, target, s.layers, "relu"),
        Op("layer norm", (target, s.width), s.layers),
        *_attention(s, s.target, s.target, True, s.layers),
        *_attention(s, s.target, s.source, False, s.layers),
        Op("dense", (target, s.width, s.width), 2 * s.layers),  # queries and outputs of the attention to the source
        Op("dense", (source, s.width, s.width), 2 * s.layers),  # and its keys and values
        Op("squared error", (target, s.width), 1),
    ]


def _gpt(case, s):
    rows = s.batch * s.source
    return [
        Op("embedding", (s.vocabulary, s.width, s.batch, s.source), 1),
        *_layers(s, rows, s.layers, "gelu"),
        *_attention(s, s.source, s.source, True, s.layers),
        Op("dense", (rows, s.width, s.vocabulary), 1),
        Op("cross entropy", (rows, s.vocabulary), 1),
    ]
