"""Rows of preferences as tokens, with a tokenizer of whole words."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import Tokenizer, models, pre_tokenizers
from toolz import pipe
from transformers import PreTrainedTokenizerFast

import mlx_fp as fp
from mlx_fp import data, lm, nn, optim

WORDS = ["<unk>", "</s>", "user", "assistant", "system", ":", *"abcdefgh"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
TEXTS = [{"prompt": "a b", "chosen": "c d", "rejected": "e"}, {"prompt": "f", "chosen": "g", "rejected": "h a b"}]


def said(role, content):
    return {"role": role, "content": content}


def tokenizer(template=None):
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = template
    return fast


def tokens_of(rows, template=None, wrap=lambda made: made, **columns):
    """List the words of each side of each row, and those that count."""
    return [
        {side: (" ".join(WORDS[t] for t in row[side]), _counted(row, side)) for side in ("chosen", "rejected")}
        for row in pipe(data.source(rows), lm.preferences(wrap(tokenizer(template)), **columns))
    ]


def _counted(row, side):
    return " ".join(WORDS[t] for t, counts in zip(row[side], row[f"{side}_mask"], strict=True) if counts)


def test_without_a_template_the_completion_and_the_end_follow_the_prompt():
    assert tokens_of(TEXTS) == [
        {"chosen": ("a b c d </s>", "c d </s>"), "rejected": ("a b e </s>", "e </s>")},
        {"chosen": ("f g </s>", "g </s>"), "rejected": ("f h a b </s>", "h a b </s>")},
    ]


@pytest.mark.parametrize("wrap", [lambda made: made, TokenizerWrapper], ids=["transformers", "mlx-lm"])
def test_with_a_template_texts_are_messages(wrap):
    assert tokens_of(TEXTS[:1], TEMPLATE, wrap) == [
        {
            "chosen": ("user : a b </s> assistant : c d </s>", "c d </s>"),
            "rejected": ("user : a b </s> assistant : e </s>", "e </s>"),
        }
    ]


def test_messages_and_whole_conversations_are_the_same_rows():
    before, ends = [said("system", "h"), said("user", "a")], ([said("assistant", "b")], [said("assistant", "c d")])
    apart = {"prompt": before, "chosen": ends[0], "rejected": ends[1]}
    whole = {"chosen": before + ends[0], "rejected": before + ends[1]}
    (row,) = tokens_of([apart], TEMPLATE)
    assert row["rejected"] == ("system : h </s> user : a </s> assistant : c d </s>", "c d </s>")
    assert tokens_of([whole], TEMPLATE) == [row]


def test_columns_have_the_names_that_are_given():
    renamed = [{"question": row["prompt"], "good": row["chosen"], "bad": row["rejected"]} for row in TEXTS]
    assert tokens_of(renamed, prompt="question", chosen="good", rejected="bad") == tokens_of(TEXTS)


def test_a_template_that_writes_prompts_differently_before_an_answer_counts_from_the_first_difference():
    thinking = TEMPLATE.replace("assistant : {% endif %}", "assistant : a {% endif %}")
    assert tokens_of(TEXTS[:1], thinking)[0]["chosen"][1] == "c d </s>"


def test_the_rows_train_a_model():
    train = pipe(
        data.source(TEXTS * 4), lm.preferences(tokenizer()), data.batch(4, stack=list), data.pad(multiple_of=4)
    )
    model = nn.sequential(nn.embedding(len(WORDS), 8), nn.linear(8, len(WORDS)))
    params = nn.init(0)(model)
    mx.eval(params)
    pair = nn.with_frozen(reference=(model, params))(model)
    trainer = pipe(fp.trainer(pair, lm.dpo()), fp.with_optimizer(optim.adam(3e-2)))
    start = {**params, "reference": params}
    report = pipe(trainer, fp.fit(train, validation=train, epochs=6, quiet=True, params=start))
    assert report.rows[-1].val_accuracy == 1.0
    assert report.rows[-1].val_loss < report.rows[0].val_loss < 0.7


def test_rows_that_fit_nothing_are_refused():
    messages = [said("user", "a")]
    for rows, template, error, text in (
        ([{"prompt": "a", "chosen": "b", "refused": "c"}], None, ValueError, "'rejected'"),
        ([{"chosen": "b", "rejected": "c"}], None, ValueError, "a row of texts needs a prompt"),
        ([{"prompt": messages, "chosen": "b", "rejected": "c"}], TEMPLATE, TypeError, "they are list, str, str"),
        ([{"chosen": messages, "rejected": messages}], None, ValueError, "chat template"),
        ([{"chosen": messages, "rejected": messages}], TEMPLATE, ValueError, "has no token"),
        ([("a", "b")], None, TypeError, "a row of preferences is a dict"),
    ):
        with pytest.raises(error, match=text):
            tokens_of(rows, template)


def test_a_cache_of_another_tokenizer_or_of_other_columns_is_refused(tmp_path):
    rows, cache = data.source(TEXTS), data.cache(tmp_path / "pairs")
    assert len(list(pipe(rows, lm.preferences(tokenizer()), cache))) == 2
    assert len(list(pipe(rows, lm.preferences(tokenizer()), cache))) == 2
    swapped = lm.preferences(tokenizer(), chosen="rejected", rejected="chosen")
    for other in (lm.preferences(tokenizer(TEMPLATE)), swapped):
        with pytest.raises(ValueError, match="another pipeline"):
            list(pipe(rows, other, data.cache(tmp_path / "pairs")))
