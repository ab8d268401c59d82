"""The keys of a config name the modules that mlx-lm would adapt, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_models import model
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_fp.lm._adapter_keys import adapted_paths, blocks_of, default_keys, keys_of

MODULE, _ = model("qwen2_moe")
NAMES = [path for path, _ in MODULE.named_modules()]
BLOCKS = blocks_of(MODULE)
DENSE = sorted(path for path, part in MODULE.named_modules() if hasattr(part, "to_quantized"))


def adapted_by_mlx_lm(keys, num_layers):
    """Return the places where mlx-lm puts adapters."""
    module, _ = model("qwen2_moe")
    options = {"rank": 2, "scale": 1.0, "dropout": 0.0, **({} if keys is None else {"keys": keys})}
    linear_to_lora_layers(module, num_layers, options)
    return {path for path, part in module.named_modules() if "lora_a" in part}


def test_the_blocks_are_those_of_the_model():
    assert BLOCKS == ["model.layers.0", "model.layers.1"]


@given(places=st.sets(st.sampled_from(DENSE), min_size=1))
def test_any_places_have_keys_that_name_exactly_these(places):
    keys, num_layers = keys_of(NAMES, BLOCKS, places)
    assert adapted_paths(NAMES, BLOCKS, keys, num_layers) == places


@pytest.mark.parametrize("num_layers", [-1, 0, 1, 2, 5])
@pytest.mark.parametrize(
    "keys", [["self_attn.q_proj", "mlp.switch_mlp.up_proj", "lm_head"], ["model.layers.0.self_attn.q_proj"], None]
)
def test_mlx_lm_adapts_the_same_modules(keys, num_layers):
    names = default_keys(MODULE, BLOCKS) if keys is None else keys
    places = adapted_paths(NAMES, BLOCKS, names, num_layers)
    assert places == adapted_by_mlx_lm(keys, num_layers)
    assert adapted_by_mlx_lm(*keys_of(NAMES, BLOCKS, places)) == places


def test_the_last_blocks_have_short_keys():
    places = ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj", "lm_head"]
    assert keys_of(NAMES, BLOCKS, places) == (["lm_head", "self_attn.q_proj", "self_attn.v_proj"], 1)
    assert keys_of(NAMES, BLOCKS, ["lm_head"]) == (["lm_head"], 0)
    first = ["model.layers.0.self_attn.q_proj"]
    assert keys_of(NAMES, BLOCKS, first) == (first, 2)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(TypeError, match="models of mlx-lm, which have blocks; MLP has none"):
        blocks_of(MODULE.model.layers[0].mlp.shared_expert)
