"""Fine-tune a language model of mlx-lm with LoRA on packed rows; mlx-lm loads the adapters and writes text with them.

The model is tiny: `tiny_model` makes it, and it only knows how to count. With a real model, `train` stays the same.
"""

import json
import random
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx_lm import generate, load
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

import mlx_fp as fp
from mlx_fp import data, lm, nn, optim, pipe


def train(folder: Path, steps: int) -> tuple[fp.Report, str]:
    """Train on the rows of `train.jsonl`, save the adapters, and let mlx-lm continue a prompt with them."""
    base, _, tokenizer = lm.load(folder / "base")
    model = pipe(base, nn.lora("model.layers", rank=8), lm.packed)
    tokens = lm.tokenize(tokenizer, mask_prompt=True)
    rows = pipe(data.jsonl(folder / "train.jsonl"), tokens, data.cache(folder / "tokens"))
    rows, held_out = data.split((0.9, 0.1), seed=1)(rows)
    train_data = pipe(rows, data.shuffle(seed=1), data.pack(64), data.batch(8))
    held_out = pipe(held_out, data.pack(64), data.batch(8))
    report = pipe(
        fp.trainer(model, fp.language_modeling(head=True)),
        fp.with_optimizer(pipe(optim.adam(2e-3), optim.clip_norm(1.0))),
        fp.early_stop(patience=3),
        fp.fit(train_data, validation=held_out, steps=steps, validate_every=20),
    )
    lm.save_adapters(folder / "adapters", model)(report)
    again, tokenizer = load(str(folder / "base"), adapter_path=str(folder / "adapters"))[:2]
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "count from 40"}], add_generation_prompt=True)
    return report, generate(again, tokenizer, prompt, max_tokens=6)


def tiny_model(folder: Path) -> None:
    """Write a llama that was trained to count, and a tokenizer that knows the words of the rows."""
    words = ["<unk>", "</s>", "user", "assistant", ":", "count", "from", *map(str, range(100))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    added: list[str | AddedToken] = [AddedToken(word, single_word=True, normalized=False) for word in words[2:]]
    tokenizer.add_tokens(added)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", **sizes, "vocab_size": len(words), "rms_norm_eps": 1e-5, "eos_token_id": 1}
    model = nn.lift(Model, ModelArgs.from_dict(config))
    numbers = mx.arange(len(words) - 100, len(words))
    counting = data.arrays(mx.stack([numbers[start : start + 12] for start in range(89)]))
    trainer = fp.trainer(model, fp.language_modeling(), optimizer=optim.adam(3e-3))
    batches = pipe(counting, data.shuffle(seed=1), data.batch(32))
    report = pipe(trainer, fp.fit(batches, steps=100, seed=1, quiet=True))
    pipe(report, lm.save(folder, model, config=config, tokenizer=tokenizer, overwrite=True))


def write_rows(path: Path, count: int = 2_000) -> None:
    """Write rows such as `{"prompt": "count from 7", "completion": "8 9 10"}`."""
    draw = random.Random(1)
    starts = [draw.randrange(90) for _ in range(count)]
    rows = (
        {"prompt": f"count from {n}", "completion": " ".join(str(n + i) for i in range(1, draw.randint(3, 9)))}
        for n in starts
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(steps: int = 400) -> tuple[float | None, str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_model(folder / "base")
        write_rows(folder / "train.jsonl")
        report, text = train(folder, steps)
    print(f"validation perplexity {report.best_value}; count from 40: {text}")
    return report.best_value, text


if __name__ == "__main__":
    main()
