"""The tokens of one row, and the mask of the tokens that count."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

__all__ = ["Columns", "TokenRow", "check_tokenizer", "row_tokenizer", "tokenizer_fingerprint"]

Message = Mapping[str, Any]
"""One message of a conversation: a dict with `role` and `content`."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The mark in a chat template before tokens that the assistant generates."""


class TokenRow(NamedTuple):
    """The tokens of a row, 1 for each token that counts and 0 for the others, and the number of tokens cut off."""

    tokens: Sequence[int]
    mask: Sequence[int]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """The keys of the columns of a row."""

    text: str
    prompt: str
    completion: str
    messages: str
    tools: str

    def by_name(self) -> dict[str, str]:
        """Return the key of each column by the name of its option; TypeError where a key is no text."""
        keys = asdict(self)
        for name, key in keys.items():
            if not isinstance(key, str):
                raise TypeError(f"{name} of tokenize is the key of a column, as in {name}={name!r}; got {key!r}")
        return keys


def check_tokenizer(tokenizer: Any) -> None:
    """Raise TypeError unless an object has the methods of a tokenizer.

    >>> check_tokenizer("gpt2")
    Traceback (most recent call last):
    TypeError: tokenize takes a tokenizer of Hugging Face or of mlx-lm; got 'gpt2', which has no apply_chat_template
    """
    for method in ("apply_chat_template", "encode"):
        if not callable(getattr(tokenizer, method, None)):
            got = f"{tokenizer!r}, which has no {method}"
            raise TypeError(f"tokenize takes a tokenizer of Hugging Face or of mlx-lm; got {got}")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return a text that changes with the vocabulary, the rules or the chat template of a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules = {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}  # calls set these
    else:
        rules = getattr(tokenizer, "get_vocab", dict)()
    parts = [rules, str(getattr(tokenizer, "chat_template", None)), getattr(tokenizer, "eos_token_id", None)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def row_tokenizer(
    tokenizer: Any, columns: Columns, mask_prompt: bool, assistant_only: bool
) -> Callable[[object], TokenRow]:
    """Return the function that makes tokens and a mask of a row."""

    def tokens_of(row: object) -> TokenRow:
        if not isinstance(row, Mapping):
            raise TypeError(f"tokenize takes rows that are dicts; got {type(row).__name__}")
        has = {name for name, key in columns.by_name().items() if row.get(key) is not None}
        if not has & {"messages", "text"} and not {"prompt", "completion"} <= has:
            raise ValueError(_no_column(columns, row))
        if {"prompt", "completion"} <= has:
            user, assistant = row[columns.prompt], row[columns.completion]
            turns: Sequence[Message] = [
                {"role": "user", "content": user},
                {"role": "assistant", "content": assistant},
            ]
        elif "messages" in has:
            turns = row[columns.messages]
        elif mask_prompt or assistant_only:
            option = "mask_prompt" if mask_prompt else "assistant_only"
            raise ValueError(f"a row of {columns.text!r} has no prompt that {option} could mask")
        else:
            return _text_tokens(tokenizer, row[columns.text])
        if not turns or not all(isinstance(turn, Mapping) and "role" in turn for turn in turns):
            raise ValueError(f"{columns.messages!r} is a list of dicts with a role; got {turns!r}")
        conversation = _Conversation(tokenizer, turns, row.get(columns.tools))
        tokens = conversation.render(len(turns))
        if assistant_only:
            return TokenRow(tokens, conversation.assistant_mask(tokens))
        return TokenRow(tokens, _mask(len(tokens), [(conversation.prompt_length(tokens) if mask_prompt else 0, None)]))

    return tokens_of


def _no_column(columns: Columns, row: Mapping[Any, object]) -> str:
    expected = f"{columns.prompt!r} and {columns.completion!r}, {columns.messages!r}, or {columns.text!r}"
    described = ", ".join(f"{key!r}" + (" (None)" if value is None else "") for key, value in row.items())
    return f"a row has {expected}; its columns are {described or 'none'}: name yours, as in tokenize(…, text='body')"


def _text_tokens(tokenizer: Any, text: str) -> TokenRow:
    """Return the tokens of a text with the end token."""
    tokens, end = list(tokenizer.encode(text)), tokenizer.eos_token_id
    if end is None:
        raise ValueError("the tokenizer has no end token, which a text needs: set tokenizer.eos_token")
    if not tokens or tokens[-1] != end:
        tokens.append(end)
    return TokenRow(tokens, _mask(len(tokens), [(0, None)]))


def _mask(size: int, spans: Sequence[tuple[int, int | None]]) -> list[int]:
    """Return a mask that is 1 within the spans, and 0 for the first token, which no token precedes."""
    mask = [0] * size
    for start, end in spans:
        stop = size if end is None else end
        mask[start:stop] = [1] * max(stop - start, 0)
    mask[:1] = [0] * bool(mask)
    return mask


@dataclass(frozen=True, slots=True)
class _Conversation:
    """Messages, and how the tokenizer's chat template renders the first of them."""

    tokenizer: Any
    messages: Sequence[Message]
    tools: Any

    def render(self, count: int, *, generate: bool = False, tokenize: bool = True) -> Any:
        """Render the first messages; with `generate`, up to the point where the assistant begins the next message."""
        options = {"add_generation_prompt": True} if generate else {}
        template = self.tokenizer.apply_chat_template
        options |= {} if tokenize else {"tokenize": False}
        return template(self.messages[:count], tools=self.tools, return_dict=False, **options)

    def prompt_length(self, tokens: Sequence[int]) -> int:
        """Return the number of tokens before the last message."""
        last = len(self.messages) - 1
        return self.boundary(tokens, last, generate=self.messages[last].get("role") == "assistant")

    def boundary(self, tokens: Sequence[int], count: int, *, generate: bool) -> int:
        """Return the number of tokens of the first messages; ValueError where they are not the beginning of all.

        A token that begins before the boundary and ends behind it does not belong to the first messages.
        """
        if not count:
            if generate:
                raise ValueError("the first message is the assistant's, so no prompt comes before it: leave it out")
            return 0
        beginning = self.render(count, generate=generate)
        if list(tokens[: len(beginning)]) == list(beginning):
            return len(beginning)
        whole = self.render(len(self.messages), tokenize=False)
        if not whole.startswith(self.render(count, generate=generate, tokenize=False)):
            raise ValueError(
                f"alone, the first {count} of {len(self.messages)} messages do not give the beginning of the whole "
                "conversation under this chat template, so a mask would be wrong: take a template with "
                "{% generation %} marks and assistant_only=True, or another template"
            )
        pairs = zip(tokens, beginning, strict=False)
        return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(tokens), len(beginning)))

    def assistant_mask(self, tokens: Sequence[int]) -> list[int]:
        """Return the mask of the assistant's messages, by the marks of the template or by its prefixes."""
        marked = self.marked_mask(tokens)
        if marked is not None:
            return marked
        spans = []
        for i, message in enumerate(self.messages):
            if message["role"] == "assistant":
                last = i + 1 == len(self.messages)
                start = self.boundary(tokens, i, generate=True)
                spans.append((start, None if last else self.boundary(tokens, i + 1, generate=False)))
        return _mask(len(tokens), spans)

    def marked_mask(self, tokens: Sequence[int]) -> list[int] | None:
        """Return the mask by the marks of the template; None where there are none, or where the tokens differ."""
        inner: Any = getattr(self.tokenizer, "_tokenizer", None)
        inner = inner if hasattr(inner, "apply_chat_template") else self.tokenizer  # mlx-lm's wrapper returns no masks
        if not _MARKS.search(str(getattr(inner, "chat_template", ""))):
            return None
        wrapper = inner is not self.tokenizer and hasattr(self.tokenizer, "has_thinking")
        thinking = {"enable_thinking": self.tokenizer.has_thinking} if wrapper else {}
        marked = inner.apply_chat_template(
            self.messages, tools=self.tools, return_dict=True, return_assistant_tokens_mask=True, **thinking
        )
        if list(marked["input_ids"]) != list(tokens):
            return None
        mask = list(map(int, marked["assistant_masks"]))
        mask[:1] = [0] * bool(mask)
        return mask
