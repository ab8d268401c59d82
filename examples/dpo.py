"""Fine-tune a language model on preferences with LoRA.

The reference of DPO is the model without its adapters. ORPO needs no reference.
"""

import mlx.core as mx
from mlx_lm.models import llama
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import mlx_fp as fp
from mlx_fp import data, lm, nn, optim, pipe

WORDS = ["<unk>", "</s>", "repeat", *map(str, range(10))]


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words. With a model from a hub, `mlx_lm.load` gives model and tokenizer."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")


def small_llama() -> llama.Model:
    """Make a small model of mlx-lm."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2}
    options = {"model_type": "llama", **sizes, "rms_norm_eps": 1e-5, "vocab_size": len(WORDS)}
    mx.random.seed(0)
    return llama.Model(llama.ModelArgs.from_dict(options))


def preference(a: int, b: int) -> dict[str, str]:
    """Make a row: of two answers, the one that says everything once was chosen."""
    return {"prompt": f"repeat {a} {b}", "chosen": f"{a} {b}", "rejected": f"{a} {b} {a} {b}"}


def main() -> list[float]:
    rows = [preference(a, b) for a in range(10) for b in range(10)]
    pairs = pipe(data.source(rows), data.shuffle(seed=1), lm.preferences(small_tokenizer()))
    train_pairs, held_out = data.split([0.8, 0.2], seed=2)(pairs)
    batches = (data.batch(20, stack=list), data.pad(multiple_of=8))

    model, _ = nn.split(small_llama())
    adapted = nn.lora(rank=8, scale=10.0)(model)

    def train(task: fp.Task) -> fp.Report:
        trainer = pipe(fp.trainer(adapted, task), fp.with_optimizer(optim.adamw(1e-2)))
        run = fp.fit(pipe(train_pairs, *batches), validation=pipe(held_out, *batches), epochs=16, quiet=True)
        return pipe(trainer, run)

    report = train(lm.dpo(beta=0.1, reference=nn.without_adapters))
    for row in report.rows:
        print(
            f"epoch {row.epoch}: loss {row.val_loss:.3f}, accuracy {row.val_accuracy:.2f}, margin {row.val_margin:.2f}"
        )
    last, without_reference = report.rows[-1], train(lm.orpo()).rows[-1]
    print(f"rewards: chosen {last.val_chosen_reward:.2f}, rejected {last.val_rejected_reward:.2f}")
    print(f"ORPO, without a reference: accuracy {without_reference.val_accuracy:.2f}")
    return [last.val_accuracy, last.val_margin, without_reference.val_accuracy]


if __name__ == "__main__":
    main()
