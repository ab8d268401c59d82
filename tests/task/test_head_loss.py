"""Language modeling without logits is language modeling: one loss, one gradient, for native models and mlx-lm's."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest

import mlx_fp as fp
from mlx_fp import metrics, nn, optim

VOCABULARY, DIMS = 19, 8
TOKENS = mx.random.randint(0, VOCABULARY, (3, 7), key=mx.random.key(1))
BATCH = {"x": TOKENS[:, :-1], "y": TOKENS[:, 1:], "mask": mx.arange(6)[None] < mx.array([[6], [4], [5]])}


def mlx_lm_model(name, **options):
    module = pytest.importorskip(f"mlx_lm.models.{name}")
    sizes = {"hidden_size": DIMS, "num_hidden_layers": 1, "intermediate_size": 12, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 1, "head_dim": 4, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY}
    sizes |= {"model_type": name, "rope_theta": 1e4, "max_position_embeddings": 16, **options}
    return nn.split(module.Model(module.ModelArgs.from_dict(sizes)))[0]


def tied():
    def forward(m, x):
        return m.embed.as_linear(mx.tanh(m.body(m.embed(x))))

    return nn.define(forward, embed=nn.embedding(VOCABULARY, DIMS), body=nn.linear(DIMS, DIMS))


def untied():
    return nn.sequential(
        embed=nn.embedding(VOCABULARY, DIMS),
        body=nn.remat(nn.sequential(nn.linear(DIMS, DIMS), nn.dropout(0.3))),
        out=nn.sequential(nn.layer_norm(DIMS), nn.linear(DIMS, VOCABULARY)),
    )


MODELS = {
    "tied": (tied, "embed"),
    "untied": (untied, "out.layers.1"),
    "llama": (lambda: mlx_lm_model("llama", tie_word_embeddings=False), "lm_head"),
    "llama, tied": (lambda: mlx_lm_model("llama", tie_word_embeddings=True), "model.embed_tokens"),
    "qwen3": (lambda: mlx_lm_model("qwen3", tie_word_embeddings=False), "lm_head"),
    "gemma2": (
        lambda: mlx_lm_model(
            "gemma2", final_logit_softcapping=0.5, attn_logit_softcapping=5.0, query_pre_attn_scalar=4
        ),
        "model.embed_tokens",
    ),
    "cohere": (lambda: mlx_lm_model("cohere", logit_scale=0.25), "model.embed_tokens"),
}


def step_of(model, head, **options):
    task = fp.language_modeling(head=head, ignore=3, metrics=None if head else [metrics.perplexity(ignore=3)])
    return fp.train_step(model, task.loss, optim.sgd(1.0), metrics=task.metrics, **options)


def stepped(model, head, **options):
    step = step_of(model, head, **options)
    params, state = step.init(0)
    after, state, logs = step(params, state, BATCH)
    figures = [logs["loss"].item(), metrics.perplexity().value(state["metrics"]["perplexity"]).item()]
    return {path: fp.flat(after)[path] - leaf for path, leaf in fp.flat(params).items()}, figures


def assert_same_step(one, other, tolerance):
    assert one[1] == pytest.approx(other[1], rel=tolerance)
    for path, change in one[0].items():
        assert mx.abs(change - other[0][path]).max().item() <= tolerance * max(1e-2, mx.abs(change).max().item()), path


@pytest.mark.parametrize("name", MODELS)
def test_the_step_is_that_of_the_logits(name):
    make, head = MODELS[name]
    model = make()
    plain, ours = stepped(model, None, compile=False), stepped(model, head, compile=False)
    assert_same_step(plain, ours, 1e-4)
    assert_same_step(ours, stepped(model, True, compile=False), 1e-6)


@pytest.mark.parametrize("options", [{}, {"parts": 3}, {"dtype": mx.bfloat16}])
@pytest.mark.usual("options1")
def test_the_compiled_step_is_that_of_the_logits(options):
    tolerance = 5e-2 if "dtype" in options else 1e-4
    assert_same_step(stepped(tied(), None, **options), stepped(tied(), "embed", **options), tolerance)


def test_a_trainer_reports_the_perplexity_of_training_and_validation():
    def report(head):
        task = fp.language_modeling(head=head)
        trainer = fp.with_optimizer(optim.sgd(0.1))(fp.trainer(tied(), task))
        data = [{"x": BATCH["x"], "y": BATCH["y"]}] * 2
        return fp.fit(data, validation=data, epochs=1, quiet=True, accumulate=2)(trainer).rows[-1]

    plain, ours = report(None).figures(), report("embed").figures()
    for name in ("loss", "val_loss", "perplexity", "val_perplexity"):
        assert ours[name] == pytest.approx(plain[name], rel=1e-4)


def test_a_frozen_head_has_the_gradient_of_the_body():
    model = nn.freeze("out")(untied())
    assert_same_step(stepped(model, None, compile=False), stepped(model, "out.layers.1", compile=False), 1e-4)


def test_a_quantised_head_has_the_gradient_of_the_body():
    class Model(mlx_nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body = mlx_nn.Embedding(VOCABULARY, 32), mlx_nn.Linear(32, 32)
            self.head = mlx_nn.QuantizedLinear(32, VOCABULARY, bias=False, group_size=32, bits=4)

        def __call__(self, x):
            return self.head(mx.tanh(self.body(self.embed(x))))

    model = nn.split(Model())[0]
    assert_same_step(stepped(model, None, compile=False), stepped(model, "head", compile=False), 1e-4)


def test_a_label_out_of_range_ends_a_run():
    step = step_of(tied(), "embed", compile=False)
    params, state = step.init(0)
    labels = mx.where(mx.arange(6) == 0, VOCABULARY, BATCH["y"])
    after, _, logs = step(params, state, {"x": BATCH["x"], "y": labels})
    assert mx.isnan(logs["loss"]).item()
    assert mx.all(mx.isnan(fp.flat(after)["body.weight"])).item()


def _masked(m, x):
    return mx.where(mx.arange(VOCABULARY) == 5, -1e9, m.head(m.embed(x)))


def _biased(m, x):
    return m.head(m.embed(x)) + m.bias


def _twice(m, x):
    return m.head(m.embed(x)) + m.head(m.embed(x))


PARTS = {"embed": nn.embedding(VOCABULARY, DIMS), "head": nn.linear(DIMS, VOCABULARY)}


@pytest.mark.parametrize(
    ("model", "head", "error", "text"),
    [
        (nn.define(_masked, **PARTS), "head", ValueError, "not the logits of its head 'head'"),
        (nn.define(_biased, **PARTS, bias=nn.param(VOCABULARY)), "head", ValueError, "not the logits of its head"),
        (nn.define(_biased, **PARTS, bias=nn.param(VOCABULARY, init=0.0)), "head", ValueError, "not the logits of its"),
        (nn.define(_twice, **PARTS), "head", ValueError, "2 times"),
        (nn.sequential(**PARTS), "haed", ValueError, "did you mean.*head"),
        (nn.remat(nn.sequential(**PARTS)), "head", ValueError, r"nn\.remat"),
        (nn.define(lambda m, x: m.table[x], table=nn.param((VOCABULARY, 3))), True, ValueError, "called none"),
    ],
)
def test_a_model_without_such_a_head_is_an_error(model, head, error, text):
    step = step_of(model, head, compile=False)
    with pytest.raises(error, match=text):
        step(*step.init(0), BATCH)


def test_a_head_of_another_kind_is_an_error():
    class Doubled(mlx_nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model = nn.sequential(embed=PARTS["embed"], head=nn.lift(Doubled, DIMS, VOCABULARY))
    step = step_of(model, "head", compile=False)
    with pytest.raises(TypeError, match="the head 'head' is Doubled"):
        step(*step.init(0), BATCH)


def test_options_that_need_logits_are_errors():
    with pytest.raises(ValueError, match="'token_accuracy' needs the output"):
        fp.language_modeling(head="head", metrics=[metrics.token_accuracy()])
    with pytest.raises(ValueError, match="give one of the two"):
        fp.language_modeling(head="head", loss=lambda model, x: model(x).mean())
    with pytest.raises(TypeError, match="head is the path"):
        fp.language_modeling(head=3)


def test_packed_rows_have_the_loss_of_the_logits():
    lm = pytest.importorskip("mlx_fp.lm")
    model = lm.packed(mlx_lm_model("llama", tie_word_embeddings=True))
    segments = mx.array([[1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 3, 3, 3]])

    def loss(head):
        task = fp.language_modeling(head=head, metrics=None if head else [])
        step = fp.train_step(model, task.loss, optim.sgd(1.0), compile=False)
        return step(*step.init(0), task.collate({"tokens": TOKENS, "segments": segments}))[2]["loss"].item()

    assert loss("model.embed_tokens") == pytest.approx(loss(None), rel=1e-5)


def test_a_head_with_an_adapter_is_an_error():
    model = nn.lora("head")(nn.sequential(**PARTS))
    step = step_of(model, "head", compile=False)
    with pytest.raises(TypeError, match="the head 'head' is LoRALinear"):
        step(*step.init(0), BATCH)


def test_adapters_on_the_body_train_before_a_quantised_head():
    model = nn.sequential(embed=nn.embedding(VOCABULARY, 32), body=nn.linear(32, 32), head=nn.linear(32, VOCABULARY))
    model = nn.lora("body")(nn.quantized("head", group_size=32)(model))
    assert_same_step(stepped(model, None, compile=False), stepped(model, "head", compile=False), 1e-4)
