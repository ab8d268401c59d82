"""Generate text by mlx-lm on a model and its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ..compile import rng
from ..core._errors import unknown
from ..core._mlx import mlx_nn
from ..core._options import check_options, count
from ..core._types import Array, Params
from ..nn._layer import Layer, require_layer
from ..nn._lowered import lower
from ._given_params import Given, given_params
from ._loading import Tokenizer
from ._mlx_lm import mlx_lm

__all__ = ["generate", "stream"]

Prompt: TypeAlias = "str | Sequence[int] | Sequence[Mapping[str, Any]] | Array"
"""A text, its tokens, or messages for the chat template of the tokenizer."""


def generate(
    model: Layer, tokenizer: Tokenizer, prompt: Prompt, *, max_tokens: int = 256, seed: int = 0, **options: Any
) -> Callable[[Given], str]:
    """Generate text by mlx-lm; the call is `generate(model, tokenizer, prompt)(params)`.

    The text is that of `mlx_lm.generate` after `mx.random.seed(seed)`. The random stream of the caller does not move.

    Args:
        model: A Layer from `lm.load`, with or without adapters, or a lifted model of mlx-lm.
        tokenizer: The tokenizer from `lm.load`.
        prompt: A text, a list of tokens, or a list of messages, each a dict with "role" and "content". Messages go
            through the chat template of the tokenizer.
        max_tokens: The largest number of tokens to generate. Default: 256.
        seed: The seed of the sampler. Default: 0.
        options: Options of mlx-lm: those of its `make_sampler`, such as `temp` (default 0, the most likely token),
            `top_p`, `min_p` and `top_k`; of its `make_logits_processors`, such as `repetition_penalty`; and of its
            `stream_generate` and `generate_step`, such as `max_kv_size`.

    Returns:
        A function of parameters, or of a report or checkpoint with them, that returns the text without the prompt.

    Raises:
        TypeError: An option is unknown (the message has candidates), or the model is none of mlx-lm.
        ValueError: A value is out of range, or the parameters are not those of the model.
    """
    responses = stream(model, tokenizer, prompt, max_tokens=max_tokens, seed=seed, **options)
    return lambda params: "".join(response.text for response in responses(params))


def stream(
    model: Layer, tokenizer: Tokenizer, prompt: Prompt, *, max_tokens: int = 256, seed: int = 0, **options: Any
) -> Callable[[Given], Iterator[Any]]:
    """Generate text as `generate` does, and yield each part of the text as soon as it is there.

    Args:
        model: The Layer, as for `generate`.
        tokenizer: The tokenizer.
        prompt: A text, a list of tokens, or a list of messages.
        max_tokens: The largest number of tokens to generate. Default: 256.
        seed: The seed of the sampler. Default: 0.
        options: Options of mlx-lm, as for `generate`.

    Returns:
        A function of parameters, or of a report or checkpoint with them. It returns an iterator of mlx-lm's
        `GenerationResponse`: `text` is the part, `token` its last token, `generation_tps` the tokens per second.

    Raises:
        TypeError: An option is unknown, or the model is none of mlx-lm.
        ValueError: A value is out of range, or the parameters are not those of the model.
    """
    check_options("generate", {"max_tokens": max_tokens}, {"max_tokens": count(1)})
    rng.check_seed(seed)
    require_layer(model, "generate")
    step_options = _with_sampler(options)
    wrapper = mlx_lm("mlx_lm.tokenizer_utils").TokenizerWrapper
    wrapped = tokenizer if isinstance(tokenizer, wrapper) else wrapper(tokenizer)
    tokens = _tokens(wrapped, prompt)

    def run(params: Given) -> Iterator[Any]:
        module = _generator_module(model, given_params(model, params))
        stream_generate = mlx_lm("mlx_lm.generate").stream_generate
        return _seeded(stream_generate(module, wrapped, tokens, max_tokens=max_tokens, **step_options), seed)

    return run


def _seeded(responses: Iterator[Any], seed: int) -> Iterator[Any]:
    """Advance a generator under a random stream of its own."""
    key, end = rng.key(seed), object()
    while True:
        response, key = rng.run(key, lambda: next(responses, end))
        if response is end:
            return
        yield response


def _generator_module(model: Layer, params: Params) -> mlx_nn.Module:
    module = lower(model, params)
    if not hasattr(module, "layers"):
        raise TypeError(f"generate takes a model of mlx-lm, which has layers with caches; {model.name} has none")
    return module.eval()


def _tokens(tokenizer: Tokenizer, prompt: Prompt) -> Any:
    """Return a text unchanged, tokens as they are, and messages as the tokens of the chat template."""
    if isinstance(prompt, str) or not isinstance(prompt, Sequence):
        return prompt
    if prompt and all(isinstance(message, Mapping) for message in prompt):
        return tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True)
    return list(prompt)


def _with_sampler(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the options of samplers and logits processors into a sampler and processors; check the names of the rest."""
    samplers, generation = mlx_lm("mlx_lm.sample_utils"), mlx_lm("mlx_lm.generate")
    makers = {"sampler": samplers.make_sampler, "logits_processors": samplers.make_logits_processors}
    takers = [*makers.values(), generation.stream_generate, generation.generate_step]
    names = {name for taker in takers for name in _option_names(taker)} - _OWN
    for name in options:
        if name not in names:
            raise TypeError(unknown("option of generate", name, sorted(names)))
    rest = dict(options)
    for name, maker in makers.items():
        given = {option: rest.pop(option) for option in _option_names(maker) if option in rest}
        if given and name in rest:
            raise TypeError(f"{name} and {', '.join(given)} exclude each other: {name} replaces them")
        if given:
            rest[name] = maker(**given)
    return rest


_OWN = {"model", "tokenizer", "prompt", "max_tokens", "kwargs", "stream"}
"""Parameters of mlx-lm's functions that are no options here."""


def _option_names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
