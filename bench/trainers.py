"""Language models in the trainers of mlx-lm and of this library: `trainers.py peak mlx_lm|ours` prints peak bytes."""

import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import numpy as np
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tuner import trainer as theirs
from mlx_lm.tuner.utils import linear_to_lora_layers

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

ADAPTERS = ["self_attn.q_proj", "self_attn.v_proj"]
RATE = 1e-4


def llama(*, vocabulary=1024, dims=128, layers=4):
    """A llama of mlx-lm with LoRA of rank 8 on its queries and values, as mlx-lm makes it."""
    mx.random.seed(0)
    sizes = {"hidden_size": dims, "intermediate_size": 3 * dims, "num_hidden_layers": layers}
    config = {"model_type": "llama", **sizes, "num_attention_heads": 4, "rms_norm_eps": 1e-5, "vocab_size": vocabulary}
    module = Model(ModelArgs.from_dict({**config, "tie_word_embeddings": False}))
    module.freeze()
    linear_to_lora_layers(module, layers, {"rank": 8, "scale": 20.0, "dropout": 0.0, "keys": ADAPTERS})
    mx.eval(module.parameters())
    return module


def rows_of(lengths, vocabulary=1024):
    """Rows of random tokens, as mlx-lm's trainer takes them: pairs of tokens and the length of the prompt."""
    draw = np.random.default_rng(0)
    return [(draw.integers(1, vocabulary, int(n)).tolist(), 0) for n in lengths]


def mixed_lengths(count=256, longest=255):
    """Lengths of a log-normal distribution, with a median of 55."""
    return np.clip(np.random.default_rng(1).lognormal(4.0, 0.7, count), 8, longest)


class Report:
    """The loss, the seconds and the tokens of each step, as mlx-lm's trainer reports them."""

    def __init__(self):
        self.losses, self.seconds, self.tokens = [], [], []

    def on_train_loss_report(self, info):
        self.losses.append(info["train_loss"])
        self.seconds.append(1 / info["iterations_per_second"])
        self.tokens.append(info["trained_tokens"] - sum(self.tokens))

    def on_val_loss_report(self, info):
        """Nothing is validated."""


def train_theirs(rows, steps, *, batch=4, length=256, checkpoint=False, rate=RATE, **sizes):
    """Run mlx-lm's trainer for some steps. Return its report."""
    report = Report()
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        args = theirs.TrainingArgs(
            batch_size=batch,
            iters=steps,
            steps_per_report=1,
            steps_per_save=10**9,
            max_seq_length=length,
            adapter_file=str(Path(folder) / "adapters.safetensors"),
            grad_checkpoint=checkpoint,
        )
        theirs.train(llama(**sizes), mlx.optimizers.Adam(rate), rows, None, args, training_callback=report)
    return report


def their_batches(rows, steps, *, batch=4, length=256):
    """The batches that mlx-lm's trainer takes, as tokens and a mask. It counts one place of padding in each row."""
    np.random.seed(0)
    found = []
    for _, (tokens, bounds) in zip(range(steps), theirs.iterate_batches(rows, batch, length, loop=True), strict=False):
        places = mx.arange(tokens.shape[1])
        found.append({"tokens": tokens, "mask": (places <= bounds[:, 1:]).astype(mx.int8)})
    return found


def loss_of_mlx(forward, x, y, mask):
    """The loss of mlx-lm's trainer. On Linux CPUs the task's own loss rounds otherwise."""
    return fp.mean(mlx.nn.losses.cross_entropy(forward(x), y), where=mask)


def trainer_of(layer, *, head=None, loss=None, rate=RATE):
    """The trainer of a language model with the same optimiser."""
    task = fp.language_modeling(head=head, loss=loss, metrics=())
    return pipe(fp.trainer(layer, task), fp.with_optimizer(optim.adam(rate)))


def train_ours(layer, params, batches, *, head=None, loss=None, rate=RATE, **options):
    """Run `fit` over batches. Return the report, and the seconds of each epoch."""
    options = {"epochs": 1, "quiet": True, "params": params, **options}
    return pipe(trainer_of(layer, head=head, loss=loss, rate=rate), fp.fit(batches, **options))


def packed_rows(rows, *, length=256, batch=4):
    """The rows, packed and in batches."""
    tokens = [tokens for tokens, _ in rows]
    return pipe(data.source(tokens), data.pack(length, lengths=[len(each) for each in tokens]), data.batch(batch))


def peak(way):
    """The peak bytes of steps on a vocabulary of 32,768, above the bytes of the model before."""
    sizes = {"vocabulary": 32_768, "dims": 256, "layers": 8}
    rows = rows_of([512] * 16, sizes["vocabulary"])
    if way.startswith("mlx_lm"):
        mx.reset_peak_memory()
        train_theirs(rows, 4, length=513, checkpoint=way.endswith("checkpoint"), **sizes)
        return mx.get_peak_memory()
    layer, params = nn.split(llama(**sizes))
    batches = their_batches(rows, 4, length=513)
    head = None
    if way != "ours_plain":
        layer, head = nn.remat("model.layers")(layer), "lm_head"
    mx.reset_peak_memory()
    train_ours(layer, params, batches, head=head)
    return mx.get_peak_memory()


if __name__ == "__main__":
    fp.cpu.blas()
    start = time.perf_counter()
    print(peak(sys.argv[2]), round(time.perf_counter() - start, 2))
