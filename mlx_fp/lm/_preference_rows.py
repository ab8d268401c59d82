"""Rows of preferences as tokens: a prompt with the completion that was chosen, and with the one that was rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core._errors import unknown
from ..data import Operation
from ..data._call_text import call_text
from ..data._rows import row_operation
from ..data._types import Item
from ._token_rows import tokenizer_fingerprint

__all__ = ["preferences"]

_SIDES = ("chosen", "rejected")

Message = Mapping[str, Any]


def preferences(
    tokenizer: Any, *, prompt: str = "prompt", chosen: str = "chosen", rejected: str = "rejected"
) -> Operation:
    """Make rows of tokens for `lm.dpo` and `lm.orpo` from rows with a prompt and two completions.

    Prompt and completions are texts, or lists of messages, `{"role": …, "content": …}`. A row without a prompt has two
    conversations, and the messages with which both begin are the prompt. If the tokenizer has a chat template, a prompt
    is one message of the user, and a completion one of the assistant. Otherwise the completion follows the prompt, and
    the end-of-sequence token follows the completion.

    The rows have lists: `chosen` and `rejected`, the tokens of the prompt and of a completion, and `chosen_mask` and
    `rejected_mask`, which are True at the tokens of the completion. `data.batch(n, stack=list)` and `data.pad()` make
    batches of them. No row is cut: leave long rows out with `data.filter`, for example by `len(row["chosen"])`.

    Args:
        tokenizer: The tokenizer of mlx-lm or of transformers.
        prompt: The column of the prompt.
        chosen: The column of the chosen completion.
        rejected: The column of the rejected completion.

    Returns:
        An operation on rows that are dicts.

    Raises:
        ValueError: When the data are read: a row lacks a column, or a completion is empty.
        TypeError: When the data are read: a row is no dict, or has texts and messages together.

    >>> from mlx_fp import data
    >>> class Letters:
    ...     chat_template, eos_token_id = None, 0
    ...     def encode(self, text, add_special_tokens=True):
    ...         return [ord(letter) - 96 for letter in text]
    >>> rows = data.source([{"prompt": "ab", "chosen": "c", "rejected": "de"}])
    >>> next(iter(preferences(Letters())(rows)))["rejected_mask"]
    [False, False, True, True, True]
    """
    columns = {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    def tokenized(row: Item) -> Item:
        start, ends = _parts(row, columns)
        result: dict[str, list[int] | list[bool]] = {}
        for side, completion in zip(_SIDES, ends, strict=True):
            before, whole = _encoded(tokenizer, start, completion)
            if len(whole) == before:
                raise ValueError(f"the completion {columns[side]!r} has no token: {completion!r}")
            result[side], result[f"{side}_mask"] = whole, [index >= before for index in range(len(whole))]
        return result

    label = call_text("preferences", type(tokenizer), **{name: key for name, key in columns.items() if name != key})
    operation = row_operation(label, lambda epoch_read: tokenized)
    return replace(operation, fingerprint=lambda: tokenizer_fingerprint(tokenizer))


def _parts(row: Item, columns: Mapping[str, str]) -> tuple[Any, tuple[Any, Any]]:
    """Return the prompt of a row and its two completions."""
    if not isinstance(row, Mapping):
        raise TypeError(f"a row of preferences is a dict with two completions; got {type(row).__name__}")
    for side in _SIDES:
        if columns[side] not in row:
            raise ValueError(unknown("column of a row of preferences,", columns[side], row))
    ends = (row[columns["chosen"]], row[columns["rejected"]])
    start = row.get(columns["prompt"])
    if start is None:
        if not all(_is_messages(end) for end in ends):
            raise ValueError(f"a row of texts needs a prompt: {unknown('column', columns['prompt'], row)}")
        return _divided(*ends)
    kinds = {isinstance(part, str) for part in (start, *ends)}
    if len(kinds) != 1 or (kinds == {False} and not all(map(_is_messages, (start, *ends)))):
        got = ", ".join(type(part).__name__ for part in (start, *ends))
        raise TypeError(f"prompt and completions are three texts, or three lists of messages; they are {got}")
    return start, ends


def _is_messages(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(m, Mapping) for m in value)


def _divided(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Any, tuple[Any, Any]]:
    """Divide two conversations into the messages with which both begin, and the rest of each."""
    shared = _shared(chosen, rejected)
    return list(chosen[:shared]), (list(chosen[shared:]), list(rejected[shared:]))


def _encoded(tokenizer: Any, start: Any, completion: Any) -> tuple[int, list[int]]:
    """Return how many tokens come before a completion, and the tokens of prompt and completion."""
    has_template = getattr(tokenizer, "has_chat_template", getattr(tokenizer, "chat_template", None) is not None)
    if isinstance(start, str) and not has_template:
        before = list(tokenizer.encode(start))
        after = list(tokenizer.encode(completion, add_special_tokens=False))
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        return len(before), [*before, *after, *end]
    if isinstance(start, str):
        start, completion = [{"role": "user", "content": start}], [{"role": "assistant", "content": completion}]
    if not has_template:
        raise ValueError("messages need a tokenizer with a chat template, and this one has none: give texts")
    options = {"tokenize": True, "return_dict": False}
    before = tokenizer.apply_chat_template(start, add_generation_prompt=True, **options)
    whole = list(tokenizer.apply_chat_template([*start, *completion], **options))
    return _shared(before, whole), whole  # a template may write a prompt differently where a completion follows


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """Return with how many equal entries two lists begin.

    >>> _shared([1, 2, 3], [1, 2, 4, 5])
    2
    """
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
