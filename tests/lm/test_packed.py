"""Models of mlx-lm on packed rows: the loss and the gradients are those of the sequences one by one."""

from __future__ import annotations

from importlib import import_module

import mlx.core as mx
import mlx.nn
import pytest
from helpers import assert_packed_as_single, assert_same_bits

pytest.importorskip("mlx_lm")

import mlx_fp as fp
from mlx_fp import lm, nn

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}
SLIDING = {"num_hidden_layers": 3, "sliding_window": 3, "sliding_window_pattern": 3}
MODELS = {
    "llama with windows": ("llama", {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}),
    "qwen3": ("qwen3", {}),
    "gemma2, heads in groups": ("gemma2", {}),
    "gemma3 with windows": ("gemma3_text", SLIDING),
    "phi3": ("phi3", {}),
}


def model_of(name, **options):
    """A tiny model of mlx-lm with random parameters."""
    module = import_module(f"mlx_lm.models.{name}")
    args = module.ModelArgs.from_dict({**SIZES, "model_type": name, **options})
    return nn.lift(module.Model, args)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_packed_sequences_train_a_model_as_the_sequences_one_by_one(name):
    architecture, options = MODELS[name]
    model = model_of(architecture, **options)
    assert_packed_as_single(lm.packed(model), model)


def test_it_may_be_wrapped():
    model = model_of("llama")
    assert_packed_as_single(nn.remat(lm.packed(model)), model, compile=False)


def test_without_segments_it_is_the_plain_call():
    model = model_of("llama")
    params, tokens = nn.init(0)(model), mx.array([[1, 2, 3, 4]])
    for inputs in ({}, {"segments": None}, {"positions": mx.array([[0, 1, 2, 3]])}):
        assert_same_bits(lm.packed(model).apply(params, tokens, **inputs)[0], model.apply(params, tokens)[0])


def test_segments_come_by_place_or_by_name():
    model = lm.packed(model_of("llama"))
    params, tokens, segments = nn.init(0)(model), mx.array([[1, 2, 3, 4]]), mx.array([[1, 1, 2, 2]])
    by_name = model.apply(params, tokens, segments=segments, positions=mx.array([[0, 1, 0, 1]]))[0]
    assert_same_bits(model.apply(params, tokens, segments)[0], by_name)
    other = model.apply(params, mx.array([[9, 9, 3, 4]]), segments)[0]
    assert mx.allclose(other[:, 2:], by_name[:, 2:], rtol=1e-4, atol=1e-5).item()
    assert not mx.allclose(other[:, :2], by_name[:, :2], rtol=1e-2).item()


def test_it_lowers_to_the_model_of_mlx_lm_and_keeps_its_methods():
    model = model_of("llama")
    packed = lm.packed(model)
    params = nn.init(0)(packed)
    assert type(nn.lower(packed, params)).__module__ == "mlx_lm.models.llama"
    tokens = mx.array([[1, 2]])
    assert_same_bits(
        nn.method(packed, "model").apply(params, tokens)[0], nn.method(model, "model").apply(params, tokens)[0]
    )
    assert packed.name == "packed(Model)"
    assert {"segments", "positions"} <= packed.takes


def test_the_body_without_the_head_keeps_segments_apart_too():
    packed = lm.packed(model_of("llama"))
    body, params = nn.method(packed, "model"), nn.init(0)(packed)
    segments = mx.array([[1, 1, 2, 2]])
    one, two = (body.apply(params, mx.array([[a, 2, 3, 4]]), segments=segments)[0] for a in (1, 9))
    assert {"segments", "positions"} <= body.takes
    assert mx.allclose(one[:, 2:], two[:, 2:], rtol=1e-4, atol=1e-5).item()
    assert not mx.allclose(one[:, :2], two[:, :2], rtol=1e-2).item()


def test_a_model_that_is_not_packed_refuses_segments():
    model = model_of("llama")
    loss = fp.language_modeling().loss
    step = fp.train_step(model, loss, fp.optim.sgd(0.1), compile=False)
    x = mx.array([[1, 2, 3]])
    with pytest.raises(ValueError, match="wrap a model of mlx-lm by lm.packed"):
        step(*step.init(0), {"x": x, "y": x, "segments": mx.array([[1, 1, 2]])})


def test_models_with_states_or_positions_that_are_not_relative_are_refused_by_name():
    mamba = {"state_size": 4, "conv_kernel": 2, "time_step_rank": 2, "use_bias": False, "use_conv_bias": True}
    with pytest.raises(
        ValueError, match=r"mlx_lm.models.mamba keeps ArraysCache beside or in place of keys and values"
    ):
        lm.packed(model_of("mamba", **mamba))
    gpt2 = {"n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 16, "layer_norm_epsilon": 1e-5}
    with pytest.raises(ValueError, match=r"mlx_lm.models.gpt2 has learned positions, model.wpe, which"):
        lm.packed(model_of("gpt2", num_key_value_heads=2, **gpt2))
    with pytest.raises(ValueError, match="iquestloopcoder has gates that depend on positions, which it counts from"):
        lm.packed(model_of("iquestloopcoder", loop_num=2, loop_window_size=4))


def test_a_model_that_makes_its_masks_by_itself_is_refused():
    class Own(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [mlx.nn.Linear(4, 4)]

        def __call__(self, inputs, cache=None):
            return self.layers[0](mx.zeros((*inputs.shape, 4)))

    with pytest.raises(ValueError, match="lm.packed cannot pass masks of segments to") as error:
        lm.packed(nn.lift(Own))
    assert "makes its attention masks by itself" in str(error.value.__cause__)


@pytest.mark.parametrize("layer", [nn.linear(2, 2), nn.remat(nn.linear(2, 2)), nn.fn(abs)])
def test_other_layers_are_refused(layer):
    with pytest.raises(TypeError, match="lm.packed takes a lifted model of mlx-lm"):
        lm.packed(layer)


def test_a_composition_with_a_packed_part_keeps_segments_apart_when_it_is_lowered():
    inner = lm.packed(model_of("llama"))
    model = nn.define(lambda m, tokens, segments=None: m.inner(tokens, segments=segments), inner=inner)
    params, tokens, segments = nn.init(0)(model), mx.array([[1, 2, 3, 4]]), mx.array([[1, 1, 2, 2]])
    y = nn.lower(model, params)(tokens, segments=segments)
    assert mx.allclose(y, model.apply(params, tokens, segments=segments)[0], rtol=1e-4, atol=1e-6).item()
    assert not mx.allclose(y, model.apply(params, tokens)[0], rtol=1e-2).item()
