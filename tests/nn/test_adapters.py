"""LoRA, DoRA and merged layers by path, native and inside lifted modules, through the compiled step and a fit."""

from __future__ import annotations

import json
import pickle
import re

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close, assert_same_bits, changed, visible
from mlx.utils import tree_flatten
from mlx_lm.models import afm7, llama, mixtral
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

import mlx_fp as fp
from mlx_fp import nn, optim, pipe, rng

X = mx.random.normal((6, 8), key=rng.key(0))
TOKENS = mx.random.randint(0, 40, (4, 6), key=rng.key(1))


def tied(m, ids):
    return m.table.as_linear(m.body(m.table(ids)))


def native():
    """A model with layers in wrappers and a table that is also the head."""
    body = nn.sequential(
        nn.remat(nn.sequential(up=nn.linear(32, 32), act=nn.gelu, drop=nn.dropout(0.2))),
        nn.wide(nn.residual(nn.linear(32, 32))),
        nn.share(2, nn.linear(32, 32)),
        nn.frozen(nn.linear(32, 32)),
        nn.stack(2, nn.linear, 32, 32),
    )
    return nn.define(tied, table=nn.embedding(40, 32), body=body)


def llama_model(**options):
    """A tiny llama of mlx-lm."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    more = {"rms_norm_eps": 1e-5, "vocab_size": 40, "num_key_value_heads": 1, "tie_word_embeddings": True}
    mx.random.seed(0)
    return llama.Model(llama.ModelArgs(model_type="llama", **sizes, **more, **options))


def next_token(model, tokens):
    logits = model(tokens[:, :-1])
    return nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="mean")


MODELS = {"native": native, "llama": lambda: nn.split(llama_model())[0]}
"""Models of tokens with a table that is also the head."""

ADAPTED = {"native": ["body.layers.0", "body.layers.1"], "llama": re.compile("[qv]_proj")}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def trained_paths(layer):
    params = nn.shapes(layer)
    return fp.paths(layer.trainable(params))(params)


def with_values(params):
    """Return parameters of which no lora_b is 0."""
    return fp.restore_like(
        params,
        {
            path: mx.random.normal(leaf.shape, key=rng.key(i)) / 10 if path.endswith("lora_b") else leaf
            for i, (path, leaf) in enumerate(fp.flat(params).items())
        },
    )


# --- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
@pytest.mark.usual("native-lora")
def test_a_fresh_adapter_changes_nothing_and_only_adapters_train(name, verb):
    model = MODELS[name]()
    adapted = verb(rank=2)(model)
    params, before = nn.init(3)(adapted), nn.init(3)(model)
    assert_close(adapted.apply(params, TOKENS)[0], model.apply(before, TOKENS)[0], rtol=1e-4, atol=1e-5)
    if verb is nn.lora:
        assert_same_bits(adapted.apply(params, TOKENS)[0], model.apply(before, TOKENS)[0])
    leaves = {"lora_a", "lora_b", "m"} if verb is nn.dora else {"lora_a", "lora_b"}
    assert {path.rpartition(".")[2] for path in trained_paths(adapted)} == leaves
    bases = {
        path.replace(".linear.", "."): leaf
        for path, leaf in fp.flat(params).items()
        if path not in trained_paths(adapted)
    }
    assert_same_bits(bases, fp.flat(before))


@pytest.mark.usual("native")
def test_the_compiled_step_trains_adapters_and_keeps_all_else_bit_for_bit(name):
    base = nn.quantized(re.compile("layers.2|down_proj"), bits=8, group_size=32)(MODELS[name]())
    model = nn.dora(re.compile("layers.3|o_proj"), rank=2)(nn.lora(ADAPTED[name], rank=2, dropout=0.1)(base))
    step = fp.train_step(model, next_token, optim.adam(0.01))
    start, state = step.init(0)
    params = start
    for _ in range(3):
        params, state, logs = step(params, state, TOKENS)
    assert changed(start, params) == set(trained_paths(model))
    assert mx.isfinite(logs["loss"])
    moments = {path for path in fp.flat(state) if path.endswith(("lora_a.m", "lora_a.v", "weight.m", "weight.v"))}
    assert moments
    assert not any("weight" in path for path in moments)


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
def test_a_merged_layer_is_the_plain_layer_and_computes_the_same(name, verb):
    model = MODELS[name]()
    adapted = verb(ADAPTED[name], rank=2)(model)
    params = with_values(nn.init(0)(adapted))
    plain = nn.merged(params)(adapted)
    weights = nn.init(0)(plain)
    assert fp.paths()(weights) == fp.paths()(nn.shapes(model))
    assert_close(plain.apply(weights, TOKENS)[0], adapted.apply(params, TOKENS)[0], rtol=1e-3, atol=1e-4)
    assert_same_bits(model.apply(weights, TOKENS)[0], plain.apply(weights, TOKENS)[0])
    assert trained_paths(plain) == ()
    assert trained_paths(nn.unfreeze()(plain)) == trained_paths(nn.unfreeze()(model))


def test_a_merged_quantised_base_keeps_its_format_or_is_dequantised():
    model = nn.quantized(bits=8, group_size=32)(MODELS["llama"]())
    adapted = nn.lora(["model.embed_tokens", "model.layers.1"], rank=2, scale=1.0)(model)
    params = with_values(nn.init(0)(adapted))
    expected = adapted.apply(params, TOKENS)[0]
    for dequantize, near in ((False, 0.1), (True, 1e-3)):
        plain = nn.merged(params, dequantize=dequantize)(adapted)
        weights = nn.init(0)(plain)
        kinds = {leaf.dtype for path, leaf in fp.flat(weights).items() if path.startswith("model.layers.1.mlp.up_proj")}
        assert (mx.uint32 in kinds) is not dequantize
        assert_close(plain.apply(weights, TOKENS)[0], expected, rtol=near, atol=near)
        if not dequantize:
            assert fp.paths()(weights) == fp.paths()(nn.shapes(model))


def test_a_second_call_adds_adapters_and_keeps_the_first(name):
    model = MODELS[name]()
    first = nn.lora(ADAPTED[name], rank=2)(model)
    second = nn.lora(re.compile("layers.3|o_proj"), rank=3)(first)
    assert set(trained_paths(first)) < set(trained_paths(second))
    params = nn.init(0)(first)
    trained = fp.restore_like(nn.shapes(first), {path: leaf + 1 for path, leaf in fp.flat(params).items()})
    on_trained = nn.lora(re.compile("layers.3|o_proj"), rank=3)(nn.pretrained(trained)(first))
    start = nn.init(1)(on_trained)
    same = {path: leaf for path, leaf in fp.flat(start).items() if path in fp.flat(trained)}
    assert_same_bits(same, {path: fp.flat(trained)[path] for path in same})
    held = nn.lora(re.compile("layers.3|o_proj"), rank=3)(nn.freeze()(first))
    assert set(trained_paths(held)) == set(trained_paths(second)) - set(trained_paths(first))


def test_adapters_train_inside_a_composition_with_parts_that_train_in_full():
    model = nn.sequential(body=nn.lora(rank=2)(nn.linear(8, 8)), head=nn.linear(8, 2))
    assert trained_paths(model) == ("body.lora_a", "body.lora_b", "head.weight", "head.bias")
    assert trained_paths(
        nn.unfreeze("head")(nn.lora("body", rank=2)(nn.sequential(body=nn.linear(8, 8), head=nn.linear(8, 2))))
    ) == trained_paths(model)
    assert trained_paths(nn.freeze(re.compile("lora_a"))(model)) == ("body.lora_b", "head.weight", "head.bias")


# --- mlx-lm ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
@pytest.mark.usual("dora")
def test_the_paths_shapes_losses_and_files_are_those_of_mlx_lm(verb, tmp_path):
    keys = ["self_attn.q_proj", "mlp.up_proj"]
    theirs = llama_model()
    layer, _ = nn.split(theirs)
    theirs.freeze()
    config = {"rank": 2, "scale": 4.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(theirs, 1, config, use_dora=verb is nn.dora)
    model = verb([f"model.layers.1.{key}" for key in keys], rank=2, scale=4.0)(layer)
    params = fp.restore_like(nn.shapes(model), dict(tree_flatten(theirs.parameters())))
    assert set(trained_paths(model)) == set(dict(tree_flatten(theirs.trainable_parameters())))

    step = fp.train_step(model, next_token, optim.sgd(0.5))
    after, _, logs = step(*step.init(params), TOKENS)
    value, grads = mlx_nn.value_and_grad(theirs, next_token)(theirs, TOKENS)
    assert logs["loss"].item() == value.item()
    theirs.update(
        fp.restore_like(
            grads, {p: dict(tree_flatten(theirs.parameters()))[p] - 0.5 * g for p, g in tree_flatten(grads)}
        )
    )
    assert_close(after, theirs.parameters(), rtol=1e-5, atol=1e-6)

    adapters = {path: leaf for path, leaf in fp.flat(after).items() if path in trained_paths(model)}
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), adapters)
    kind = "dora" if verb is nn.dora else "lora"
    text = {"fine_tune_type": kind, "num_layers": 1, "lora_parameters": config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(text))
    loaded = load_adapters(llama_model(), str(tmp_path)).eval()
    assert_close(loaded(TOKENS), model.apply(after, TOKENS)[0], rtol=1e-4, atol=1e-5)


def test_experts_take_adapters_and_none_of_dora():
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    args = mixtral.ModelArgs(
        model_type="mixtral", vocab_size=40, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, **sizes
    )
    layer, _ = nn.split(mixtral.Model(args))
    for base in (layer, nn.quantized(re.compile("switch"), group_size=32)(layer)):
        model = nn.lora(re.compile("switch"), rank=2)(base)
        step = fp.train_step(model, next_token, optim.sgd(0.1))
        start, state = step.init(nn.init(0)(model))
        after = start
        for _ in range(2):
            after, state, _ = step(after, state, TOKENS)
        assert changed(start, after) == set(trained_paths(model))
        assert len(trained_paths(model)) == 6
    with pytest.raises(TypeError, match="SwitchLinear takes no DoRA adapter"):
        nn.dora(re.compile("switch"))(layer)


def test_a_module_that_knows_its_adapter_gets_it():
    module = afm7.FusedLinear(32, [32, 16])
    layer, params = nn.split(mlx_nn.Sequential(module))
    model = nn.lora(rank=2, scale=4.0)(nn.quantized("layers.0", group_size=32, bits=8)(layer))
    start = with_values(nn.init(0)(model))
    assert trained_paths(model) == tuple(f"layers.0.lora_{x}.{i}" for x in "ab" for i in (0, 1))
    plain = nn.merged(start, dequantize=True)(model)
    rows = mx.random.normal((3, 32), key=rng.key(4))
    assert_close(plain.apply(nn.init(0)(plain), rows)[0], model.apply(start, rows)[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(TypeError, match="FusedLinear takes no DoRA adapter, because it is no plain linear layer"):
        nn.dora()(layer)
    assert nn.init(0)(layer)["layers"][0]["weight"].tolist() == params["layers"][0]["weight"].tolist()


def test_adapters_of_mlx_lm_in_a_split_model_count_as_adapters():
    theirs = llama_model()
    theirs.freeze()
    linear_to_lora_layers(theirs, 2, {"rank": 2, "scale": 4.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]})
    layer, params = nn.split(theirs)
    more = nn.lora(re.compile("v_proj"), rank=2)(layer)
    assert len(trained_paths(more)) == 8
    with pytest.raises(ValueError, match=r"layers.0.self_attn.q_proj, .*: there is an adapter already"):
        nn.lora(re.compile("q_proj"))(layer)
    plain = nn.merged(params)(layer)
    assert fp.paths()(nn.shapes(plain)) == fp.paths()(nn.shapes(MODELS["llama"]()))


# --- with the rest of the library ------------------------------------------------------------------------------------


@pytest.mark.usual("native")
def test_a_fit_with_checkpoints_of_what_trains(name, tmp_path):
    model = nn.lora(ADAPTED[name], rank=2, dropout=0.1)(MODELS[name]())
    trainer = pipe(
        fp.trainer(model, next_token),
        fp.with_optimizer(optim.adam(0.01)),
        fp.checkpoints(tmp_path / "{epoch}", trainable_only=True),
    )
    report = pipe(trainer, fp.fit([TOKENS, TOKENS], epochs=2, quiet=True))
    start = pipe(trainer, fp.fit([TOKENS], epochs=0, quiet=True)).params
    assert changed(start, report.params) == set(trained_paths(model))
    saved = fp.load(tmp_path / "1")
    assert set(fp.flat(saved.params)) == set(trained_paths(model))
    assert visible(tmp_path) == ["0.safetensors", "1.safetensors"]
    predict = nn.predictor(report.params)(model)
    assert_same_bits(predict(TOKENS), model.apply(report.params, TOKENS)[0])
    summary = nn.summary(model, report.params)
    assert summary.trainable == sum(fp.flat(report.params)[path].size for path in trained_paths(model))


def test_adapted_layers_go_through_pickle(name):
    model = nn.quantized(re.compile("layers.2|down_proj"), group_size=32)(
        nn.lora(ADAPTED[name], rank=2)(MODELS[name]())
    )
    again = pickle.loads(pickle.dumps(model))
    params = nn.init(5)(model)
    assert_same_bits(nn.init(5)(again), params)
    assert_same_bits(again.apply(params, TOKENS)[0], model.apply(params, TOKENS)[0])
    assert trained_paths(again) == trained_paths(model)


def test_an_adapter_in_a_wide_part_is_wide():
    model = nn.lora(rank=2)(native())
    params = nn.shapes(model)
    assert {"body.layers.1.layers.0.lora_a", "body.layers.1.layers.0.linear.weight"} == {
        path for path in fp.paths(model.wide)(params) if "lora_a" in path or "weight" in path
    }
    step = fp.train_step(model, next_token, optim.sgd(0.1), dtype=mx.bfloat16)
    start, state = step.init(0)
    after, _, _ = step(start, state, TOKENS)
    assert {leaf.dtype for leaf in fp.flat(after).values()} == {mx.float32}


def test_a_lowered_adapted_model_is_one_of_mlx_nn(name):
    model = nn.lora(ADAPTED[name], rank=2)(MODELS[name]())
    params = with_values(nn.init(0)(model))
    module = nn.lower(model, params)
    assert set(dict(tree_flatten(module.trainable_parameters()))) == set(trained_paths(model))
    assert_same_bits(module.eval()(TOKENS), model.apply(params, TOKENS)[0])
    fused = [(path, each.fuse()) for path, each in module.named_modules() if hasattr(each, "fuse")]
    assert len(fused) == len(trained_paths(model)) // 2
    again, weights = nn.split(module)
    assert_same_bits(again.apply(weights, TOKENS)[0], model.apply(params, TOKENS)[0])


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: nn.lora("modl")(MODELS["llama"]()),
            KeyError,
            "'modl' matches no layer for an adapter of Model; nearest: model",
        ),
        (lambda: nn.lora("model.norm")(MODELS["llama"]()), KeyError, "'model.norm' matches no layer for an adapter"),
        (lambda: nn.lora()(nn.layer_norm(4)), ValueError, "lora finds no linear layer in LayerNorm"),
        (
            lambda: nn.dora()(nn.embedding(4, 2)),
            ValueError,
            "dora finds no linear layer in Embedding; give a spec for tables",
        ),
        (lambda: nn.lora()(nn.lora()(nn.linear(4, 4))), ValueError, "there is an adapter already; give lora a spec"),
        (lambda: nn.lora(rank=0), ValueError, "rank of lora is a count, 1 or more; got 0"),
        (lambda: nn.dora(dropout=1.0), ValueError, "dropout of dora is a finite number of at least 0 and below 1"),
        (lambda: nn.lora(scale="a"), TypeError, "scale of lora is a finite number"),
        (lambda: nn.lora()(mlx_nn.Linear(2, 2)), TypeError, "lora takes a Layer"),
        (lambda: nn.merged({})(nn.linear(4, 4)), ValueError, "the parameters are not those of Linear"),
        (lambda: nn.merged(nn.init(0)(nn.linear(4, 4)))(nn.linear(4, 4)), ValueError, "Linear has none"),
    ],
)
def test_wrong_use_is_told(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_layer_inside_an_adapter_takes_no_adapter():
    model = nn.lora("model.layers.0", rank=2)(MODELS["llama"]())
    with pytest.raises(ValueError, match="there is an adapter already"):
        nn.lora(re.compile(r"q_proj\.linear"))(model)


def test_a_changed_layer_keeps_no_parameters():
    lifted = nn.lift(mlx_nn.TransformerEncoder, 1, 128, 2)
    native = nn.sequential(nn.linear(300, 300))
    for model in (
        nn.lora("layers.0.linear1", rank=2)(lifted),
        nn.lora("layers.0", rank=2)(native),
        nn.replaced("layers.0.linear1", nn.residual)(lifted),
        nn.quantized("layers.0", group_size=32)(lifted),
    ):
        nn.init(0)(model)
        assert len(pickle.dumps(model)) < 30_000
