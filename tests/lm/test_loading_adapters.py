"""Adapters of a folder come onto a layer, as mlx-lm puts them on its module, and runs go on from there."""

from __future__ import annotations

import json
import pickle

import mlx.core as mx
import mlx_lm
import pytest
from helpers import assert_same_bits, changed
from language_models import model_folder
from mlx_lm import utils
from mlx_lm.tuner.utils import linear_to_lora_layers

import mlx_fp as fp
from mlx_fp import lm, nn, optim

TOKENS = mx.array([[4, 5, 6, 9, 10, 3], [3, 2, 1, 0, 7, 8]])


def trained(layer, **options):
    """Train a layer for three steps."""
    train = fp.pipe(fp.data.arrays(TOKENS), fp.data.batch(2))
    trainer = fp.trainer(layer, fp.language_modeling(), optimizer=optim.adam(0.01))
    return fp.fit(train, epochs=3, quiet=True, **options)(trainer)


def folder_of_mlx_lm(base, folder, *, num_layers=-1, dora=False, keys=None):
    """Write a folder of random adapters by functions of mlx-lm; return the folder and its module."""
    folder.mkdir()
    module, _ = utils.load_model(base)
    module.freeze()
    options = {"rank": 3, "scale": 2.0, "dropout": 0.05, **({} if keys is None else {"keys": keys})}
    linear_to_lora_layers(module, num_layers, options, use_dora=dora)
    trains = fp.flat(module.trainable_parameters())
    weights = {path: leaf + 0.1 * mx.random.normal(leaf.shape) for path, leaf in trains.items()}
    module.load_weights(list(weights.items()), strict=False)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "dora" if dora else "lora", "num_layers": num_layers, "lora_parameters": options}
    utils.save_config(config, folder / "adapter_config.json")
    return folder, module.eval()


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"num_layers": 1, "keys": ["self_attn.q_proj", "lm_head"]}),
        ("qwen2", {"dora": True, "num_layers": 1}),
        ("qwen2_moe", {"num_layers": 1}),
    ],
)
@pytest.mark.usual(
    "llama-options0-None", "llama-options1-None", "llama-options1-4", "qwen2-options2-None", "qwen2_moe-options3-None"
)
@pytest.mark.usual("llama-options1-None")
def test_a_folder_of_mlx_lm_gives_its_numbers(tmp_path, kind, options, bits):
    base = model_folder(tmp_path / "base", kind, bits=bits)
    folder, module = folder_of_mlx_lm(base, tmp_path / "adapters", **options)
    layer, params, _ = lm.load(base, adapter_path=folder)
    assert_same_bits(layer.apply(params, TOKENS)[0], module(TOKENS))
    assert set(fp.paths(layer.trainable(params))(params)) == set(fp.flat(module.trainable_parameters()))
    again = lm.load_adapters(folder)(lm.load(base)[0])
    assert_same_bits(again.init(3), params)


@pytest.mark.parametrize("verb", [nn.lora, nn.dora])
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("spec", [None, fp.matching(r"layers\.1\..*(q|v)_proj"), ["model.layers.0.mlp", "lm_head"]])
@pytest.mark.usual("spec1-None-lora", "spec2-None-dora")
def test_a_run_of_three_steps_goes_to_mlx_lm_and_back(tmp_path, verb, bits, spec):
    base = model_folder(tmp_path / "base", bits=bits)
    layer = verb(spec, rank=4, scale=2.0)(lm.load(base)[0])
    start = nn.init(0)(layer)
    report = trained(layer)
    assert report.losses[-1] < report.losses[0]
    assert all(path.rpartition(".")[2] in ("lora_a", "lora_b", "m") for path in changed(start, report.params))
    folder = lm.save_adapters(tmp_path / "adapters", layer)(report)
    module, words = mlx_lm.load(str(base), adapter_path=str(folder))
    logits = layer.apply(report.params, TOKENS)[0]
    assert_same_bits(module(TOKENS), logits)
    again, params, tokenizer = lm.load(base, adapter_path=folder)
    assert_same_bits(params, report.params)
    assert_same_bits(again.apply(params, TOKENS)[0], logits)
    text = mlx_lm.generate(module, words, "w1 w2", max_tokens=8)
    assert lm.generate(layer, tokenizer, "w1 w2", max_tokens=8)(report) == text


@pytest.mark.slow
def test_a_run_goes_on_from_saved_adapters(tmp_path):
    base = model_folder(tmp_path / "base")
    layer = nn.lora("model", rank=4)(lm.load(base)[0])
    first = trained(layer)
    folder = lm.save_adapters(tmp_path / "adapters", layer)(first)
    again = lm.load_adapters(folder)(lm.load(base)[0])
    assert trained(again).losses == trained(layer, params=first.params).losses


@pytest.mark.slow
def test_a_checkpoint_of_adapters_resumes_without_the_base_in_it(tmp_path):
    base = model_folder(tmp_path / "base", hidden_size=64, intermediate_size=512)
    layer = nn.lora(r"model", rank=2)(lm.load(base)[0])
    train = fp.pipe(fp.data.arrays(TOKENS), fp.data.shuffle(seed=1), fp.data.batch(1))

    def run(folder, epochs, **options):
        trainer = fp.trainer(layer, fp.language_modeling(), optimizer=optim.adam(0.01))
        files = fp.checkpoints(folder / "step-{step}", trainable_only=True)
        return fp.pipe(trainer, files, fp.fit(train, epochs=epochs, quiet=True, **options))

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "cut", 2)
    assert_same_bits(run(tmp_path / "cut", 4, resume="latest").params, whole.params)
    adapters = lm.save_adapters(tmp_path / "adapters", layer)(whole) / "adapters.safetensors"
    checkpoint = tmp_path / "whole" / "step-8.safetensors"
    exported = lm.save_adapters(tmp_path / "exported", layer)(fp.load(checkpoint))
    assert_same_bits(mx.load(str(exported / "adapters.safetensors")), mx.load(str(adapters)))
    assert checkpoint.stat().st_size < 3 * adapters.stat().st_size + 60_000  # weights, two moments, the record of a run
    assert checkpoint.stat().st_size < 0.5 * (base / "model.safetensors").stat().st_size


def test_merged_adapters_are_saved_as_a_whole_model(tmp_path):
    base = model_folder(tmp_path / "base", bits=4)
    layer = nn.lora(rank=4)(lm.load(base)[0])
    report = trained(layer)
    with pytest.raises(ValueError, match=r"has an adapter.*nn\.merged"):
        lm.save(tmp_path / "out", layer)(report)
    merged = nn.merged(report.params)(layer)
    saved = lm.save(tmp_path / "out", merged)(merged.init())
    assert_same_bits(mlx_lm.load(str(saved))[0](TOKENS), merged.apply(merged.init(), TOKENS)[0])
    folder = lm.save_adapters(tmp_path / "adapters", layer)(report)
    module, _ = mlx_lm.load(str(base), adapter_path=str(folder))
    fused = {path: part.fuse().parameters() for path, part in module.named_modules() if hasattr(part, "fuse")}
    weights = mx.load(str(saved / "model.safetensors"))
    for path, arrays in fused.items():
        assert_same_bits({name: weights[f"{path}.{name}"] for name in arrays}, arrays)


def test_adapters_on_a_base_that_was_quantised_after_loading_need_that_base_in_files(tmp_path):
    base = model_folder(tmp_path / "base")
    quantised = nn.quantized("model.layers", group_size=32)(lm.load(base)[0])
    layer = nn.lora(rank=2)(quantised)
    with pytest.raises(ValueError, match=r"the base is not the model of .*base, .* save the base with lm\.save"):
        lm.save_adapters(tmp_path / "adapters", layer)(nn.init(0)(layer))
    saved = lm.save(tmp_path / "quantised", quantised)(nn.init(0)(quantised))
    assert_same_bits(mlx_lm.load(str(saved))[0](TOKENS), quantised.apply(quantised.init(), TOKENS)[0])
    layer = nn.lora(rank=2)(lm.load(saved)[0])
    report = trained(layer)
    folder = lm.save_adapters(tmp_path / "adapters", layer)(report)
    module, _ = mlx_lm.load(str(saved), adapter_path=str(folder))
    assert_same_bits(module(TOKENS), layer.apply(report.params, TOKENS)[0])


def test_full_fine_tuning_comes_back_as_it_was(tmp_path):
    base = model_folder(tmp_path / "base")
    layer = fp.freeze("model.embed_tokens")(lm.load(base)[0])
    report = trained(layer)
    folder = lm.save_adapters(tmp_path / "adapters", layer)(report)
    again, params, _ = lm.load(base, adapter_path=folder)
    assert_same_bits(params, report.params)
    assert_same_bits(again.apply(params, TOKENS)[0], mlx_lm.load(str(base), adapter_path=str(folder))[0](TOKENS))


def test_a_layer_with_adapters_is_small(tmp_path):
    base = model_folder(tmp_path / "base", hidden_size=64, intermediate_size=512)
    layer = nn.lora(rank=2)(lm.load(base)[0])
    folder = lm.save_adapters(tmp_path / "adapters", layer)(nn.init(0)(layer))
    start = mx.get_active_memory()
    layer, params, _ = lm.load(base, adapter_path=folder)
    assert mx.get_active_memory() - start < 10_000
    text = pickle.dumps(layer)
    assert len(text) < 0.2 * (base / "model.safetensors").stat().st_size
    assert_same_bits(pickle.loads(text).init(), params)


def test_a_folder_without_a_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        lm.load_adapters(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        lm.load_adapters(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no adapters\.safetensors"):
        lm.load_adapters(tmp_path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"fine_tune_type": "lore"}, "unknown fine_tune_type 'lore': did you mean 'lora'"),
        ({"lora_parameters": {"rank": 3}}, "it has no scale, dropout"),
        ({"lora_parameters": None}, "is no config of adapters"),
        ({"num_layers": 1}, r"layers\.0\.\S* has no place"),
        (
            {"lora_parameters": {"rank": 3, "scale": 1.0, "dropout": 0.0, "keys": ["nothing"]}},
            "name no module of Model",
        ),
        ({"lora_parameters": {"rank": 2, "scale": 1.0, "dropout": 0.0}}, r"has shape \(32, 3\); expected \(32, 2\)"),
    ],
)
def test_a_config_that_does_not_fit_is_an_error(tmp_path, entries, words):
    base = model_folder(tmp_path / "base")
    folder, _ = folder_of_mlx_lm(base, tmp_path / "adapters")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
    with pytest.raises(ValueError, match=words):
        lm.load(base, adapter_path=folder)


def test_arrays_that_are_missing_are_an_error(tmp_path):
    base = model_folder(tmp_path / "base")
    folder, _ = folder_of_mlx_lm(base, tmp_path / "adapters", keys=["self_attn.q_proj"])
    file = str(folder / "adapters.safetensors")
    arrays = mx.load(file)
    mx.eval(arrays)
    arrays.pop("model.layers.0.self_attn.q_proj.lora_a")
    mx.save_safetensors(file, arrays)
    with pytest.raises(ValueError, match=r"model\.layers\.0\.self_attn\.q_proj\.lora_a is missing"):
        lm.load_adapters(folder)(lm.load(base)[0])
