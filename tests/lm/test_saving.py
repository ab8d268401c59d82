"""A whole model goes out in the layout of mlx-lm, and mlx-lm reads the same numbers."""

from __future__ import annotations

import json
import os

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx_lm
import pytest
from helpers import assert_same_bits
from language_models import model, model_folder, tokenizer
from mlx_lm import utils
from safetensors import safe_open

import mlx_fp as fp
from mlx_fp import lm, nn

TOKENS = mx.array([[4, 5, 6, 9, 10]])


def shifted(params):
    """Return parameters as a training would leave them: other floats, the same quantised integers."""
    return fp.restore_like(params, {p: x + 0.01 if x.dtype != mx.uint32 else x for p, x in fp.flat(params).items()})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"dtype": mx.bfloat16, "tie_word_embeddings": True}),
        ("qwen2", {"bits": 4}),
        ("qwen2", {"bits": 4, "dtype": mx.bfloat16}),
        ("qwen2_moe", {}),
        ("qwen2_moe", {"bits": 4}),
    ],
)
@pytest.mark.parametrize("shard_bytes", [5 << 30, 9_000])
@pytest.mark.usual("5368709120-llama-options0")
def test_mlx_lm_loads_the_same_model(tmp_path, kind, options, shard_bytes):
    layer, params, _ = lm.load(model_folder(tmp_path / "base", kind, **options))
    params = shifted(params)
    saved = lm.save(tmp_path / "out", layer, shard_bytes=shard_bytes)(params)
    module, words = mlx_lm.load(str(saved))
    assert_same_bits(module(TOKENS), layer.apply(params, TOKENS)[0])
    assert_same_bits(module.parameters(), params)
    assert words.encode("w1 w2") == [9, 10]


class Bytes(int):
    """A limit that mlx-lm takes as gigabytes, and that stands for bytes."""

    def __lshift__(self, bits):
        return int(self)


def test_shards_and_their_index_are_as_mlx_lm_writes_them(tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "base", bits=4)
    layer, params, _ = lm.load(folder)
    module, _ = utils.load_model(folder)
    make_shards = utils.make_shards
    monkeypatch.setattr(utils, "make_shards", lambda weights: make_shards(weights, Bytes(3_000)))
    utils.save_model(tmp_path / "theirs", module)
    mine = lm.save(tmp_path / "mine", layer, shard_bytes=3_000)(params)
    index = "model.safetensors.index.json"
    assert json.loads((mine / index).read_text()) == json.loads((tmp_path / "theirs" / index).read_text())
    names = [name for name in os.listdir(mine) if name.startswith("model-")]
    assert len(names) > 2
    for name in names:
        with safe_open(mine / name, "np") as file:
            assert file.metadata() == {"format": "mlx"}
        arrays, theirs = mx.load(str(mine / name)), mx.load(str(tmp_path / "theirs" / name))
        assert_same_bits(arrays, {path: theirs[path] for path in arrays})


def test_modules_with_settings_of_their_own_keep_them(tmp_path):
    module, config = model("llama", hidden_size=64)
    eight = {"group_size": 64, "bits": 8, "mode": "affine"}
    mlx_nn.quantize(
        module, group_size=32, bits=4, class_predicate=lambda path, m: eight if "lm_head" in path else "mlp" in path
    )
    layer, params = nn.split(module)
    saved = lm.save(tmp_path / "out", layer, config=config, tokenizer=tokenizer())(params)
    entry = json.loads((saved / "config.json").read_text())["quantization"]
    assert entry == {"group_size": 32, "bits": 4, "mode": "affine", "lm_head": eight}
    loaded, _ = mlx_lm.load(str(saved))
    assert (loaded.lm_head.bits, loaded.model.layers[0].mlp.up_proj.bits) == (8, 4)
    assert_same_bits(loaded(TOKENS), module(TOKENS))
    assert_same_bits(lm.load(saved)[0].init(), params)


def test_a_model_that_is_quantised_no_more_says_so(tmp_path):
    folder = model_folder(tmp_path / "base", bits=4)
    module = utils.dequantize_model(utils.load_model(folder)[0])
    config = json.loads((folder / "config.json").read_text())
    assert "quantization" in config
    layer, params = nn.split(module)
    saved = lm.save(tmp_path / "out", layer, config=config, tokenizer=tokenizer())(params)
    assert json.loads((saved / "config.json").read_text()).keys() & {"quantization", "quantization_config"} == set()
    assert_same_bits(mlx_lm.load(str(saved))[0](TOKENS), module(TOKENS))


def test_a_lifted_model_needs_its_config_and_a_tokenizer(tmp_path):
    module, config = model()
    layer, params = nn.split(module)
    with pytest.raises(TypeError, match="save needs config="):
        lm.save(tmp_path / "out", layer, tokenizer=tokenizer())(params)
    with pytest.raises(TypeError, match="save needs tokenizer="):
        lm.save(tmp_path / "out", layer, config=config)(params)
    lm.save(tmp_path / "out", layer, config=config, tokenizer=tokenizer())(params)
    assert_same_bits(lm.load(tmp_path / "out")[0].init(), params)


@pytest.mark.parametrize("wrong", [{"num_hidden_layers": 3}, {"hidden_size": 64, "head_dim": 16}, {"vocab_size": 63}])
def test_a_config_of_another_model_leaves_no_folder(tmp_path, wrong):
    module, config = model()
    layer, params = nn.split(module)
    with pytest.raises(ValueError, match="the config does not describe this model"):
        lm.save(tmp_path / "out", layer, config={**config, **wrong}, tokenizer=tokenizer())(params)
    with pytest.raises(ValueError, match="no model type 'lama'; nearest: llama"):
        lm.save(tmp_path / "out", layer, config={**config, "model_type": "lama"}, tokenizer=tokenizer())(params)
    assert os.listdir(tmp_path) == []


def test_an_old_folder_is_replaced_on_request_only(tmp_path):
    folder = model_folder(tmp_path / "base")
    layer, params, _ = lm.load(folder)
    before = layer.apply(params, TOKENS)[0]
    with pytest.raises(FileExistsError, match="has a model: .* overwrite=True"):
        lm.save(folder, layer)(params)
    lm.save(folder, layer, shard_bytes=9_000, overwrite=True)(params)
    assert "model-00001-of-00012.safetensors" in os.listdir(folder)  # which mlx-lm would load, too, if it stayed
    lm.save(folder, layer, overwrite=True)(shifted(params))  # the layer reads this folder
    assert "model-00001-of-00012.safetensors" not in os.listdir(folder)
    assert_same_bits(layer.init(), shifted(params))
    assert_same_bits(layer.apply(params, TOKENS)[0], before)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="has files that are no model"):
        lm.save(tmp_path / "notes", layer, overwrite=True)(params)


def test_a_report_is_saved_as_its_parameters(tmp_path):
    layer, _, _ = lm.load(model_folder(tmp_path / "base"))
    train = fp.pipe(fp.data.arrays(TOKENS), fp.data.batch(1))
    trainer = fp.trainer(layer, fp.language_modeling(), optimizer=fp.optim.sgd(0.1))
    report = fp.fit(train, epochs=1, quiet=True)(trainer)
    saved = lm.save(tmp_path / "out", layer)(report)
    assert_same_bits(lm.load(saved)[0].init(), report.params)


def test_files_of_the_model_beside_its_weights_are_kept(tmp_path):
    folder = model_folder(tmp_path / "base")
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 9]}')
    layer, params, words = lm.load(folder)
    saved = lm.save(tmp_path / "out", layer, tokenizer=words)(params)
    assert (saved / "generation_config.json").read_text() == '{"eos_token_id": [2, 9]}'
    assert mlx_lm.load(str(saved))[1].eos_token_ids == {2, 9} == words.eos_token_ids


def test_saving_holds_the_model_once(tmp_path):
    layer, _, words = lm.load(model_folder(tmp_path / "base", hidden_size=64, intermediate_size=1024))
    params = nn.init(0)(layer)
    size = sum(leaf.nbytes for leaf in fp.flat(params).values())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    lm.save(tmp_path / "out", layer, tokenizer=words)(params)
    assert mx.get_peak_memory() - before < 0.1 * size
