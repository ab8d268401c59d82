"""Models of mlx-lm on packed rows: attention stays within a segment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..core._mlx import mlx_nn, mx
from ..core._types import Array, Params
from ..nn._call import Inputs, Keywords, Result
from ..nn._layer import Apply, Layer, renamed, require_layer, shapes
from ..nn._module_call import ModuleCall
from ..nn._segment_mask import segment_mask
from ._mlx_lm import mlx_lm

__all__ = ["packed"]

_PLAIN_CACHES = ("KVCache", "RotatingKVCache")
"""The caches of layers of which each token sees other tokens through attention alone."""

_ROWS = 997
"""A number of rows that is no number of heads or groups, to find the shape of masks."""

_LEARNED_POSITIONS = ("wpe", "embed_positions", "position_embeddings")
"""The names that models give to their tables of learned positions."""

_ABSOLUTE_POSITIONS = ("mlx_lm.models.iquestloopcoder",)
"""Models that use rotated queries otherwise than in a product with rotated keys."""


def packed(target: Layer) -> Layer:
    """Let a model of mlx-lm take packed rows: `model(tokens, segments=None, positions=None)`.

    A token attends the tokens of its own segment, within the window of layers that have one. Rotary positions are
    relative, so the positions of a segment need not begin at 0, and `positions` are not used. Some models scale their
    queries by position beyond the length that they were first trained for, for example ministral3: let rows be no
    longer than that. Without segments, the call is the plain one. `fp.language_modeling()` passes segments on.

    Args:
        target: A lifted model of mlx-lm, for example that of `lm.load`. Wrap it by others, such as `nn.remat`,
            after this.

    Returns:
        A Layer with the same parameters.

    Raises:
        TypeError: The layer is no lifted model of mlx-lm.
        ValueError: The model is one that segments do not keep apart: a layer of it has a state, as in Mamba; or its
            positions are not relative; or it makes its attention masks by itself.

    >>> from mlx_fp import nn
    >>> args = mlx_lm("mlx_lm.models.llama").ModelArgs(
    ...     model_type="llama", hidden_size=8, num_hidden_layers=1, intermediate_size=8, num_attention_heads=2,
    ...     rms_norm_eps=1e-5, vocab_size=11,
    ... )
    >>> packed(nn.lift(mlx_lm("mlx_lm.models.llama").Model, args)).name
    'packed(Model)'
    """
    call = require_layer(target, "lm.packed").apply.run
    if not isinstance(call, ModuleCall) or "cache" not in call.names_of_method():
        raise TypeError(
            f"lm.packed takes a lifted model of mlx-lm, whose call has a `cache`; got {target.name}: use it first, and "
            "wrap its result"
        )
    _check_positions(call.template)
    run = _fitting(target, PackedCall(call.template, call.method, _count_caches(call.template)))
    return renamed(replace(target, apply=Apply(run), takes=run.takes), "packed({})")


@dataclass(frozen=True, slots=True, eq=False)
class PackedCall(ModuleCall):
    """The computation of a lifted model of mlx-lm that may get segments.

    `caches` is its number of caches, and `mask_axes` the number of axes of the masks that its attention takes. Other
    methods of the model get segments, too, if they take a `cache`: for example, the body without the head.
    """

    caches: int = 0
    mask_axes: int = 4

    @property
    def takes(self) -> frozenset[str]:
        """Return the names of the inputs beside the tokens that the method takes by name."""
        names = self.names_of_method()
        return names - {"cache"} | {"segments", "positions"} if "cache" in names else names

    def __call__(self, params: Params, xs: Inputs, kw: Keywords, train: bool, /) -> Result:
        """Run the model, or another method of it."""
        if "cache" not in self.names_of_method():
            return ModuleCall.__call__(self, params, xs, kw, train)
        tokens, segments, rest = _divided(*xs, **kw)
        if segments is None:
            return ModuleCall.__call__(self, params, (tokens,), rest, train)
        cache = SegmentCache(segments, self.mask_axes)
        result = ModuleCall.__call__(self, params, (tokens,), {**rest, "cache": [cache] * self.caches}, train)
        if not cache.masks:
            model = type(self.template).__module__
            raise ValueError(f"{model} makes its attention masks by itself, so lm.packed cannot keep segments apart")
        return result


class SegmentCache:
    """The stand-in for the cache of each layer: it keeps no keys, and its mask is that of the segments."""

    def __init__(self, segments: Array, mask_axes: int) -> None:
        self.segments, self.mask_axes, self.offset = segments, mask_axes, 0
        self.masks: dict[int | None, Array] = {}

    def update_and_fetch(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Return the keys and values of the call."""
        return keys, values

    def make_mask(self, tokens: int, return_array: bool = False, window_size: int | None = None) -> Array:
        """Return the mask of a layer, `(n, 1, …, tokens, tokens)`; layers with one window share it."""
        if window_size not in self.masks:
            mask = segment_mask(self.segments, window=window_size)
            self.masks[window_size] = mx.expand_dims(mask, list(range(1, self.mask_axes - 3)))
        return self.masks[window_size]


def _divided(
    tokens: Array, segments: Array | None = None, positions: Array | None = None, **rest: Any
) -> tuple[Array, Array | None, Keywords]:
    """Divide the inputs of a call into tokens, segments, and the other inputs of the model; positions are left out."""
    return tokens, segments, rest


def _fitting(target: Layer, call: PackedCall) -> PackedCall:
    """Return the call with as many axes of masks as the attention of the model broadcasts; compute no array.

    Attention on heads in groups has scores of five axes. Where the number of rows is no number of heads, a mask of
    another number of axes is an error, and does not pass for a mask of heads.
    """
    params, tokens = shapes(target), mx.zeros((_ROWS, 2), mx.int32)
    errors: list[Exception] = []
    for mask_axes in (4, 5):
        fitting = replace(call, mask_axes=mask_axes)
        try:
            fitting(params, (tokens, tokens), {}, False)
        except Exception as error:  # whatever the model raises, another number of axes may fit
            errors.append(error)
        else:
            return fitting
    raise ValueError(f"lm.packed cannot pass masks of segments to {type(call.template).__module__}") from errors[0]


def _count_caches(model: mlx_nn.Module) -> int:
    """Return the number of caches of a model; ValueError if one is not a plain cache of keys and values."""
    made: Any = mlx_lm("mlx_lm.models.cache").make_prompt_cache(model)
    kinds = [type(cache).__name__ for cache in made]
    others = sorted(set(kinds) - set(_PLAIN_CACHES))
    if others:
        raise ValueError(
            f"{type(model).__module__} keeps {', '.join(others)} beside or in place of keys and values, and such a "
            "state goes on from one segment to the next: train it on one sequence a row, with data.bucket and data.pad"
        )
    return len(kinds)


def _check_positions(model: mlx_nn.Module) -> None:
    """Raise ValueError for a model that depends on the place of a token in its row."""
    name = type(model).__module__
    tables = [path for path, _ in model.named_modules() if path.rpartition(".")[2] in _LEARNED_POSITIONS]
    cause = f"has learned positions, {tables[0]}" if tables else "has gates that depend on positions"
    if tables or name in _ABSOLUTE_POSITIONS:
        raise ValueError(
            f"{name} {cause}, which it counts from the first token of a row: train it on one sequence a row, with "
            "data.bucket and data.pad"
        )
