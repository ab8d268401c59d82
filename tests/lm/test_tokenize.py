"""Tokens and masks of rows: those of mlx-lm where it has them, and masks over several turns."""

from __future__ import annotations

import json
import logging
import types

import datasets
import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import assert_same_bits, read
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models import llama
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tuner.datasets import create_dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from toolz import pipe
from transformers import PreTrainedTokenizerFast

import mlx_fp as fp
from mlx_fp import data, lm, nn, optim
from mlx_fp.data._fingerprint import fingerprint
from mlx_fp.lm._token_rows import tokenizer_fingerprint

SPECIAL = ["<|user|>", "<|assistant|>", "<|tool|>", "<|system|>", "<|tools|>", "<|end|>"]
WORDS = ["<unk>", "</s>", *SPECIAL, *"abcdefghij", "ab"]
CHAT = (
    "{% if tools %}<|tools|>{{ ' ' ~ tools[0].function.name ~ ' ' }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ ' ' ~ m.content ~ ' ' }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}{{ ' ' ~ m.content ~ ' ' }}"
    "<|end|>{% endgeneration %}{% else %}{{ ' ' ~ m.content ~ ' ' }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}<|{{ m.role }}|>{{ ' ' ~ (m.content if loop.last else 'j') ~ ' ' }}<|end|>{% endfor %}"
)
"""A template that renders earlier messages in another way than the last one."""


def tokenizer(template=CHAT, wrapped=False, **options):
    """Make a tokenizer of whole words, perhaps in mlx-lm's wrapper."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options = {"eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": SPECIAL, **options}
    made = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, **options)
    return TokenizerWrapper(made) if wrapped else made


NAME = type(tokenizer()).__name__


def turn(role, content):
    return {"role": role, "content": content}


TURNS = [
    turn("system", "a"),
    turn("user", "b c"),
    turn("assistant", "d"),
    turn("tool", "e"),
    turn("assistant", "f g"),
    turn("user", "h"),
    turn("assistant", "i j"),
]
TOOLS = [{"type": "function", "function": {"name": "c", "parameters": {}}}]
TEXTS = st.lists(st.sampled_from("abcdefghij"), max_size=6).map(" ".join)
TURN = st.builds(turn, st.sampled_from(["user", "assistant", "tool"]), TEXTS)
MORE = st.sampled_from([{}, {"tools": TOOLS}, {"tools": None}])
ROWS = {
    "text": st.builds(lambda text: {"text": text}, TEXTS.filter(bool) | st.just("a b </s>")),
    "completions": st.builds(lambda a, b, more: {"prompt": a, "completion": b, **more}, TEXTS, TEXTS, MORE),
    "messages": st.builds(
        lambda turns, more: {"messages": [turn("user", "a"), *turns], **more},
        st.lists(TURN, min_size=1, max_size=5),
        MORE,
    ),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["hugging face", "wrapper"])
@pytest.mark.parametrize(
    ("kind", "mask_prompt"), [(kind, flag) for kind in ROWS for flag in (False, True) if kind != "text" or not flag]
)
@given(draw=st.data())
@examples(15)
def test_tokens_and_masks_are_those_of_mlx_lm(kind, mask_prompt, wrapped, draw):
    words = tokenizer(wrapped=wrapped)
    rows = draw.draw(st.lists(ROWS[kind], min_size=1, max_size=3))
    theirs = create_dataset(rows, words, types.SimpleNamespace(mask_prompt=mask_prompt))
    ours = list(pipe(data.source(rows), lm.tokenize(words, mask_prompt=mask_prompt)))
    for row, mine in zip(rows, ours, strict=True):
        tokens, offset = theirs.process(row)
        assert mine["tokens"].tolist() == tokens
        assert mine["mask"][1:].tolist() == [int(i >= offset) for i in range(1, len(tokens))]
        assert (mine["tokens"].dtype, mine["mask"].dtype, mine["mask"][0]) == (np.int32, np.int8, 0)


def masked(row, template=CHAT, **options):
    """Return the words of a row, with those that count in upper case."""
    (made,) = pipe(data.source([row]), lm.tokenize(tokenizer(template), assistant_only=True, **options))
    words = [WORDS[token].strip("<|>") for token in made["tokens"]]
    return " ".join(word.upper() if counts else word for word, counts in zip(words, made["mask"], strict=True))


TURNED = "system a end user b c end assistant D END tool e end assistant F G END user h end assistant I J END"


@pytest.mark.parametrize("template", [CHAT, MARKED], ids=["prefixes", "marks"])
def test_only_the_assistants_turns_count(template):
    assert masked({"messages": TURNS}, template) == TURNED
    assert masked({"messages": TURNS[:-1]}, template) == TURNED.removesuffix(" assistant I J END")
    assert masked({"prompt": "a", "completion": "b"}, template) == "user a end assistant B END"


def test_the_tools_of_a_row_come_before_its_turns():
    assert masked({"messages": TURNS, "tools": TOOLS}) == f"tools c end {TURNED}"


def test_the_marks_count_through_the_wrapper_of_mlx_lm_too():
    row = {"messages": TURNS}
    plain, wrapped = (
        list(pipe(data.source([row]), lm.tokenize(words, assistant_only=True)))
        for words in (tokenizer(MARKED), tokenizer(MARKED, wrapped=True))
    )
    assert_same_bits(plain, wrapped)


@pytest.mark.parametrize("option", ["assistant_only", "mask_prompt"])
def test_a_template_without_prefixes_is_an_error_and_no_wrong_mask(option):
    flow = lm.tokenize(tokenizer(FORGETFUL), **{option: True})
    with pytest.raises(ValueError, match="messages do not give the beginning of the whole conversation") as caught:
        list(pipe(data.source([{"messages": TURNS}]), flow))
    assert "{% generation %} marks" in str(caught.value)
    assert any("index=0" in note for note in caught.value.__notes__)


def test_a_token_across_the_end_of_the_prompt_counts():
    """The end of the prompt and the beginning of the answer may be one token: `a` and `b` become `ab` here."""
    glued = "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %} a{% endif %}{% endfor %}"
    row = {"messages": [turn("user", "c d"), turn("assistant", "b e")]}
    (made,) = pipe(data.source([row]), lm.tokenize(tokenizer(glued), mask_prompt=True))
    assert [WORDS[token] for token in made["tokens"]] == ["c", "d", "ab", "e"]
    assert made["mask"].tolist() == [0, 0, 1, 1]


# rows that are cut, left out, or wrong


LONG = [{"text": "a b c d e"}, {"text": "a"}, {"text": "a b c d e f g"}, {"text": "a b c"}]


def test_truncation_is_counted_and_said_once_a_reading(caplog):
    cut = pipe(data.source(LONG), lm.tokenize(tokenizer(), length=4))
    assert [row["tokens"].size for row in cut] == [4, 2, 4, 4]
    assert caplog.messages == ["2 of 4 rows were longer than 4 tokens and cut: 6 tokens are missing"]
    assert caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    assert len(list(pipe(data.source(LONG), lm.tokenize(tokenizer(), length=8)))) == 4
    assert caplog.messages == []


@pytest.mark.parametrize("ahead", [[], [data.prefetch(2)]], ids=["here", "prefetched"])
def test_the_counts_of_a_reading_are_those_from_its_start_on(ahead, caplog):
    counts = []
    cut = pipe(data.source(LONG), lm.tokenize(tokenizer(), length=4, report=counts.append), *ahead)
    whole = list(cut)
    assert counts == [lm.TokenCounts(rows=4, tokens=14, counted=10, cut_rows=2, cut_tokens=6)]
    assert_same_bits(read(cut, index=2), whole[2:])
    assert counts[1:] == [lm.TokenCounts(rows=2, tokens=8, counted=6, cut_rows=1, cut_tokens=4)]
    assert caplog.messages == []


def test_a_reading_that_is_closed_reports_what_it_has_read():
    counts = []
    reader = iter(pipe(data.source(LONG), lm.tokenize(tokenizer(), length=4, report=counts.append)))
    next(reader)
    assert counts == []
    reader.close()
    assert counts == [lm.TokenCounts(rows=1, tokens=4, counted=3, cut_rows=1, cut_tokens=2)]


EMPTY = [{"prompt": "a b c d", "completion": "e"}, {"prompt": "a", "completion": "b"}]


def test_a_row_in_which_nothing_counts_is_an_error_or_left_out_by_request(caplog):
    options = {"length": 5, "mask_prompt": True}
    with pytest.raises(
        ValueError, match="no token counts among the first 5 of 9: give a larger length, or leave"
    ) as caught:
        list(pipe(data.source(EMPTY), lm.tokenize(tokenizer(), **options)))
    assert any("index=0" in note for note in caught.value.__notes__)
    dropped = pipe(data.source(EMPTY), lm.tokenize(tokenizer(), drop_empty=True, **options))
    assert [row["mask"].tolist() for row in dropped] == [[0, 0, 0, 0, 1]]
    assert caplog.messages[-1] == "1 of 2 rows were left out: none of their tokens counts"
    assert dropped.size is None
    with pytest.raises(ValueError, match="no token of the row counts; it has 1: leave such rows out"):
        list(pipe(data.source([{"text": ""}]), lm.tokenize(tokenizer())))


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"body": "a", "text": None}, {}, r"its columns are 'body', 'text' \(None\): name yours, as in tokenize"),
        ({"prompt": "a"}, {}, "a row has 'prompt' and 'completion', 'messages', or 'text'; its columns are 'prompt'"),
        ({}, {}, "its columns are none"),
        ({"text": "a"}, {"mask_prompt": True}, "a row of 'text' has no prompt that mask_prompt could mask"),
        ({"text": "a"}, {"assistant_only": True}, "a row of 'text' has no prompt that assistant_only could mask"),
        ({"messages": []}, {}, "'messages' is a list of dicts with a role; got"),
        ({"messages": ["a"]}, {}, "'messages' is a list of dicts with a role; got"),
        ({"messages": TURNS[2:]}, {"assistant_only": True}, "the first message is the assistant's"),
        ({"messages": TURNS[2:3]}, {"mask_prompt": True}, "the first message is the assistant's"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_row_is_an_error_with_its_number(row, options, message):
    flow = pipe(data.source([{"messages": TURNS}, row]), lm.tokenize(tokenizer(), **options))
    with pytest.raises(ValueError, match=message) as caught:
        list(flow)
    assert any(f"operation=tokenize({NAME}" in note and "index=1" in note for note in caught.value.__notes__)


def test_columns_may_have_other_names():
    flow = lm.tokenize(tokenizer(), text="body", prompt="q", completion="a", messages="chat", tools="calls")
    assert repr(flow) == (f"tokenize({NAME}, text='body', prompt='q', completion='a', messages='chat', tools='calls')")
    rows = [{"body": "a"}, {"q": "a", "a": "b"}, {"chat": TURNS, "calls": TOOLS}, {"text": 1, "body": "b"}]
    usual = [{"text": "a"}, {"prompt": "a", "completion": "b"}, {"messages": TURNS, "tools": TOOLS}, {"text": "b"}]
    assert_same_bits(list(pipe(data.source(rows), flow)), list(pipe(data.source(usual), lm.tokenize(tokenizer()))))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"length": 1}, ValueError, "length of tokenize is a count, 2 or more, or None; got 1"),
        ({"mask_prompt": 1}, TypeError, "mask_prompt of tokenize is True or False"),
        ({"mask_prompt": True, "assistant_only": True}, ValueError, "takes mask_prompt or assistant_only"),
        ({"report": 3}, TypeError, "report of tokenize is a function, or None; got 3"),
        ({"text": 3}, TypeError, "text of tokenize is the key of a column, as in text='text'; got 3"),
    ],
)
def test_wrong_options_are_errors(options, error, message):
    with pytest.raises(error, match=message):
        lm.tokenize(tokenizer(), **options)


def test_a_tokenizer_without_an_end_token_is_an_error_for_texts_alone():
    words = tokenizer(eos_token=None)
    assert len(list(pipe(data.source([{"messages": TURNS}]), lm.tokenize(words)))) == 1
    with pytest.raises(ValueError, match=r"no end token, which a text needs: set tokenizer\.eos_token"):
        list(pipe(data.source([{"text": "a"}]), lm.tokenize(words)))


def test_the_fingerprint_is_that_of_vocabulary_and_template_and_not_of_calls():
    words = tokenizer()
    before = tokenizer_fingerprint(words)
    words(["a", "b c"], padding=True, pad_to_multiple_of=4, truncation=True, max_length=8) if words.pad_token else None
    words.encode("a", truncation=True, max_length=2)
    assert tokenizer_fingerprint(words) == tokenizer_fingerprint(tokenizer(wrapped=True)) == before
    assert tokenizer_fingerprint(tokenizer(MARKED)) != before
    assert before in fingerprint(lm.tokenize(words)(data.source([])))


# whole pipelines


def written(folder, rows):
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "train.jsonl"


CHATS = [
    {"messages": [turn("user", " ".join("abcdefghij"[: 1 + i % 7])), turn("assistant", "abc"[i % 3])]}
    for i in range(24)
]


def shifted(batch):
    return {"x": batch["tokens"][:, :-1], "y": batch["tokens"][:, 1:], "mask": batch["mask"][:, 1:]}


def pipeline(folder, *operations):
    lines, words = data.jsonl(written(folder, CHATS)), tokenizer()
    tokens = pipe(lines, lm.tokenize(words, length=12, mask_prompt=True, report=lambda counts: None), *operations)
    padded = (data.batch(4, stack=list), data.pad(multiple_of=4), data.map(shifted))
    return pipe(tokens, *(padded if not tokens.indexed else (data.shuffle(seed=3), *padded)))


def test_a_hugging_face_dataset_gives_the_rows_of_a_file(tmp_path):
    table = datasets.load_dataset(
        "json", data_files=str(written(tmp_path, CHATS)), split="train", cache_dir=str(tmp_path / "hf")
    )
    flow = lm.tokenize(tokenizer(), assistant_only=True)
    assert_same_bits(list(flow(data.source(table))), list(flow(data.jsonl(tmp_path / "train.jsonl"))))
    cached = pipe(data.source(table), flow, data.cache(tmp_path / "tokens"))
    assert_same_bits(list(cached), list(flow(data.source(table))))
    with pytest.raises(ValueError, match="another pipeline"):
        pipe(data.source(table.select(range(24))), flow, data.cache(tmp_path / "tokens"))


@pytest.mark.parametrize("cached", [False, True], ids=["tokenised", "cached"])
def test_reading_goes_on_in_the_middle_of_an_epoch(tmp_path, cached):
    flow = pipeline(tmp_path, *([data.cache(tmp_path / "tokens")] if cached else []))
    whole = read(flow, epoch=1)
    assert len(whole) == 6
    for index in range(7):
        assert_same_bits(read(flow, epoch=1, index=index), whole[index:])


def tiny_llama():
    mx.random.seed(3)
    arguments = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": len(WORDS)}
    return nn.split(llama.Model(llama.ModelArgs(**arguments, **heads)))


@pytest.mark.slow
def test_a_model_of_mlx_lm_learns_from_cached_rows_and_resumes_with_the_same_bits(tmp_path):
    model, params = tiny_llama()
    trainer = pipe(fp.trainer(model, fp.language_modeling()), fp.with_optimizer(optim.adam(1e-2)))
    whole = fp.fit(pipeline(tmp_path, data.cache(tmp_path / "tokens")), epochs=4, params=params, quiet=True)(trainer)
    assert whole.rows[-1].loss < 0.5 * whole.rows[0].loss
    checkpointed = pipe(trainer, fp.checkpoints(tmp_path / "run" / "{step}", every=1))
    options = {"params": params, "quiet": True}
    fp.fit(pipeline(tmp_path, data.cache(tmp_path / "tokens")), steps=9, **options)(checkpointed)
    again = pipeline(tmp_path, data.cache(tmp_path / "tokens"))
    resumed = fp.fit(again, epochs=4, resume="latest", **options)(checkpointed)
    assert resumed.resumed_from_epoch is not None
    assert_same_bits(resumed.params, whole.params)


def test_only_tokens_that_count_are_in_the_loss(tmp_path):
    model, params = tiny_llama()
    (batch, *_) = pipeline(tmp_path)
    logits, _ = model.apply(params, mx.array(batch["x"]))
    loss = nn.losses.cross_entropy(logits, mx.array(batch["y"]))
    mask = mx.array(batch["mask"])
    evaluated = pipe(fp.trainer(model, fp.language_modeling()), fp.evaluate([batch], params=params))
    assert evaluated["loss"] == pytest.approx(((loss * mask).sum() / mask.sum()).item(), rel=1e-5)
    assert 0 < mask.sum().item() < mask.size
