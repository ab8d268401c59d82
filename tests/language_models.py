"""Tiny language models in folders, as mlx-lm itself writes them: random weights, a tokenizer with a chat template."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import mlx.core as mx
import mlx.nn as mlx_nn
from mlx.utils import tree_map
from mlx_lm import utils
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", "</s>", "<pad>", "user", "assistant", "system", ":", *(f"w{i}" for i in range(56))]
"""The vocabulary of the tokenizer: 64 words, which a text separates by spaces."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} : {{ message['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "vocab_size": len(WORDS),
    "max_position_embeddings": 128,
    "head_dim": 8,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}
"""The sizes of every model. A model may take more options; `config` adds them."""

OPTIONS = {
    "qwen2_moe": {
        "num_experts_per_tok": 2,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}


def tokenizer():
    """Return a tokenizer of whole words with a chat template.

    transformers reads the files of some models, such as qwen2, with the tokenizer of that model, which knows words only
    as added tokens. So the words are added tokens, too.
    """
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in WORDS[4:]])
    fast.chat_template = CHAT_TEMPLATE
    return fast


def config(kind="llama", **options):
    """Return the config of a tiny model of a type of mlx-lm."""
    return {"model_type": kind, **SIZES, **OPTIONS.get(kind, {}), **options}


def model(kind="llama", *, seed=0, bits=None, dtype=mx.float32, **options):
    """Return a module of mlx-lm with random weights, and its config; `bits` quantises its linear layers."""
    settings = config(kind, **options)
    arch = import_module(f"mlx_lm.models.{kind}")
    mx.random.seed(seed)
    module = arch.Model(arch.ModelArgs.from_dict(settings))
    module.update(tree_map(lambda leaf: leaf.astype(dtype), module.parameters()))
    if bits:
        mlx_nn.quantize(module, group_size=32, bits=bits)
        settings["quantization"] = {"group_size": 32, "bits": bits, "mode": "affine"}
    mx.eval(module.parameters())
    return module, settings


def model_folder(folder, kind="llama", **options):
    """Write a tiny model and its tokenizer into a new folder, by functions of mlx-lm; return the folder.

    The options are those of `model`. For example, `model_folder(tmp_path / "base", "qwen2", bits=4)`.
    """
    folder = Path(folder)
    module, settings = model(kind, **options)
    utils.save_model(folder, module)
    utils.save_config(settings, folder / "config.json")
    tokenizer().save_pretrained(folder)
    return folder


def jsonl(path, rows):
    """Write rows as a file of JSON lines; return its path."""
    path = Path(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
