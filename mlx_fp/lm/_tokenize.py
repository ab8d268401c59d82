"""Tokenise rows of text, of prompts and completions, or of messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from ..core._options import FLAG, FUNCTION, check_options, count, optional
from ..data import Operation
from ..data._call_text import call_text
from ..data._cursor import EpochRead, map_rows
from ..data._dataset import same_index
from ._token_rows import Columns, TokenRow, check_tokenizer, row_tokenizer, tokenizer_fingerprint

__all__ = ["TokenCounts", "tokenize"]

_LOG = logging.getLogger("mlx_fp.lm")

_RULES = {
    "length": optional(count(2)),
    "mask_prompt": FLAG,
    "assistant_only": FLAG,
    "drop_empty": FLAG,
    "report": optional(FUNCTION),
}


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The counts of one reading of `tokenize`, from its first row to its last.

    Args:
        rows: Number of rows that were read.
        tokens: Number of tokens in the rows that were handed out.
        counted: Number of these tokens that are predicted: their mask is 1.
        cut_rows: Number of rows that were longer than `length`.
        cut_tokens: Number of tokens that were cut off.
        dropped_rows: Number of rows that were left out, because none of their tokens counts.

    >>> TokenCounts(rows=2, tokens=9, counted=7, cut_rows=1, cut_tokens=3).dropped_rows
    0
    """

    rows: int = 0
    tokens: int = 0
    counted: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    dropped_rows: int = 0


def tokenize(
    tokenizer: Any,
    *,
    length: int | None = None,
    mask_prompt: bool = False,
    assistant_only: bool = False,
    drop_empty: bool = False,
    report: Callable[[TokenCounts], object] | None = None,
    text: str = "text",
    prompt: str = "prompt",
    completion: str = "completion",
    messages: str = "messages",
    tools: str = "tools",
) -> Operation:
    """Make tokens and a mask of each row, with the tokens that mlx-lm trains on.

    A row is a dict. It has a prompt and a completion, or messages, or a text; the first of these that a row has is
    taken. Values of None count as missing. A text gets the end token where it has none. The others go through the chat
    template of the tokenizer, with the `tools` of the row where it has any.

    The result is `{"tokens": int32 (n,), "mask": int8 (n,)}`, numpy arrays. The mask is 1 for each token that is to be
    predicted from the tokens before it, so it is 0 for the first token. To train on `x = tokens[:-1]` and
    `y = tokens[1:]`, take `mask[1:]`.

    With `assistant_only`, the marks `{% generation %}` of the chat template say which tokens count. Where a template
    has no such marks, the conversation is rendered up to each message of the assistant. This needs a template that
    renders the beginning of a conversation as the beginning of the whole; another template is an error.

    At the end of each reading, the log `mlx_fp.lm` has one warning if rows were cut or left out. Put `data.cache(path)`
    after this operation, and rows are tokenised once.

    Args:
        tokenizer: A tokenizer of Hugging Face, or mlx-lm's wrapper of one.
        length: Maximum number of tokens of a row, at least 2. Further tokens are cut off. None, the default, keeps all.
        mask_prompt: Whether only the completion, or the last message, counts. False by default.
        assistant_only: Whether only the messages of the assistant count, in all turns. False by default.
        drop_empty: Whether to leave out rows in which no token counts. The number of rows is then unknown, and a cursor
            does not seek. False by default: such a row is an error, because its loss would be NaN.
        report: Function of the `TokenCounts` of each reading, instead of the warning. It is called where the reading
            ends or is closed, in the thread that reads.
        text: Key of the text; `"text"` by default.
        prompt: Key of the prompt; `"prompt"` by default.
        completion: Key of the completion; `"completion"` by default.
        messages: Key of the messages, a list of dicts with `role` and `content`; `"messages"` by default.
        tools: Key of the tools; `"tools"` by default.

    Returns:
        An operation on a dataset.

    Raises:
        TypeError: `tokenizer` is no tokenizer, or an option is of another type.
        ValueError: `length` is less than 2, or both masks are requested. When the data are read: a row has none of the
            columns; no token of a row counts; a text is to be masked; or a template does not render prefixes.

    >>> from mlx_fp import data
    >>> class Letters:
    ...     eos_token_id = 0
    ...     def encode(self, text): return [ord(letter) - 96 for letter in text]
    ...     def apply_chat_template(self, messages, **options): ...
    >>> rows = pipe(data.source([{"text": "abc"}, {"text": "abcdefgh"}]), tokenize(Letters(), length=6, report=print))
    >>> [row["tokens"].tolist() for row in rows]
    TokenCounts(rows=2, tokens=10, counted=8, cut_rows=1, cut_tokens=3, dropped_rows=0)
    [[1, 2, 3, 0], [1, 2, 3, 4, 5, 6]]
    """
    options = {"length": length, "mask_prompt": mask_prompt, "assistant_only": assistant_only, "drop_empty": drop_empty}
    check_options("tokenize", {**options, "report": report}, _RULES)
    check_tokenizer(tokenizer)
    if mask_prompt and assistant_only:
        raise ValueError("tokenize takes mask_prompt or assistant_only: with assistant_only, prompts never count")
    columns = Columns(text, prompt, completion, messages, tools)
    renamed = {name: value for name, value in columns.by_name().items() if name != value}
    shown = {name: value or None for name, value in options.items()}
    label = call_text("tokenize", type(tokenizer), **shown, **renamed)
    tokens_of = row_tokenizer(tokenizer, columns, mask_prompt, assistant_only)

    def cut(row: object) -> TokenRow:
        whole = tokens_of(row)
        shortened = whole if length is None else TokenRow(whole.tokens[:length], whole.mask[:length])
        if not drop_empty and not any(shortened.mask):
            raise ValueError(_nothing_counts(whole, length))
        return shortened._replace(missing=len(whole.tokens) - len(shortened.tokens))

    def rows_out(rows: Iterator[Any], epoch_read: EpochRead) -> Iterator[Any]:
        return _count_rows(map_rows(cut, rows, epoch_read, label), report or (lambda counts: _warn(counts, length)))

    return Operation(
        label,
        on_rows=rows_out,
        size=lambda size: None if drop_empty else size,
        seek=None if drop_empty else same_index,
        fingerprint=lambda: tokenizer_fingerprint(tokenizer),
    )


def _count_rows(
    rows: Iterator[TokenRow], report: Callable[[TokenCounts], object]
) -> Generator[dict[str, Any], None, None]:
    """Yield the rows in which a token counts as arrays, and report the counts where the reading ends."""
    import numpy as np

    read = tokens = counted = cut_rows = cut_tokens = dropped = 0
    try:
        for row in rows:
            read, cut_rows, cut_tokens = read + 1, cut_rows + bool(row.missing), cut_tokens + row.missing
            if not any(row.mask):
                dropped += 1
                continue
            tokens, counted = tokens + len(row.tokens), counted + sum(row.mask)
            yield {"tokens": np.array(row.tokens, np.int32), "mask": np.array(row.mask, np.int8)}
    finally:
        if read:
            report(TokenCounts(read, tokens, counted, cut_rows, cut_tokens, dropped))


def _warn(counts: TokenCounts, length: int | None) -> None:
    """Log the number of rows that were cut or left out."""
    if counts.cut_rows:
        message = "%d of %d rows were longer than %d tokens and cut: %d tokens are missing"
        _LOG.warning(message, counts.cut_rows, counts.rows, length, counts.cut_tokens)
    if counts.dropped_rows:
        _LOG.warning("%d of %d rows were left out: none of their tokens counts", counts.dropped_rows, counts.rows)


def _nothing_counts(whole: TokenRow, length: int | None) -> str:
    """Return the message for a row in which no token counts."""
    remedy = "leave such rows out with drop_empty=True"
    if any(whole.mask):
        return f"no token counts among the first {length} of {len(whole.tokens)}: give a larger length, or {remedy}"
    return f"no token of the row counts; it has {len(whole.tokens)}: {remedy}"
