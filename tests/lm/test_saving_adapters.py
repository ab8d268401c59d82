"""Adapters go out in the layout of mlx-lm, and mlx-lm's own functions read the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mlx.core as mx
import mlx_lm
import pytest
from helpers import assert_same_bits, child_env
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


def by_mlx_lm(folder, *, num_layers=-1, dora=False, rank=4, scale=2.0, dropout=0.0, keys=None):
    """Return the layer of a model on which mlx-lm has put its own adapters."""
    module, _ = utils.load_model(folder)
    module.freeze()
    options = {"rank": rank, "scale": scale, "dropout": dropout, **({"keys": keys} if keys else {})}
    linear_to_lora_layers(module, num_layers, options, use_dora=dora)
    return nn.split(module)[0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"num_layers": 1, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}),
        ("llama", {"keys": ["model.layers.0.mlp.up_proj", "model.embed_tokens"]}),
        ("qwen2", {"dora": True, "scale": 0.5, "num_layers": 1}),
        ("qwen2_moe", {"num_layers": 1, "rank": 3}),
    ],
)
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.usual(
    "None-llama-options0", "None-llama-options1", "4-llama-options0", "4-llama-options1", "4-qwen2-options3"
)
@pytest.mark.usual("None-llama-options1")
def test_mlx_lm_loads_the_adapters_of_a_run(tmp_path, kind, options, bits):
    if bits and "model.embed_tokens" in options.get("keys", ()):
        options = {**options, "keys": ["model.layers.0.mlp.up_proj"]}
    base = model_folder(tmp_path / "base", kind, bits=bits)
    layer = by_mlx_lm(base, **options)
    report = trained(layer)
    assert report.losses[-1] < report.losses[0]
    saved = lm.save_adapters(tmp_path / "adapters", layer)(report)
    module, _ = mlx_lm.load(str(base), adapter_path=str(saved))
    assert_same_bits(module(TOKENS), layer.apply(report.params, TOKENS)[0])
    file = mx.load(str(saved / "adapters.safetensors"))
    assert {path.rpartition(".")[2] for path in file} == {"lora_a", "lora_b", *(["m"] if options.get("dora") else [])}
    leaves = fp.flat(report.params)
    frozen = {path.replace(".linear.", "."): leaf for path, leaf in leaves.items() if path not in file}
    module_leaves = mx.load(str(base / "model.safetensors"))
    assert_same_bits(
        {p.replace(".embedding.", "."): leaf for p, leaf in frozen.items()},
        {p.replace(".embedding.", "."): module_leaves[p.replace(".embedding.", ".")] for p in frozen},
    )


def test_the_config_has_the_names_of_mlx_lm(tmp_path):
    base = model_folder(tmp_path / "base")
    layer = by_mlx_lm(base, num_layers=1, rank=3, scale=2.5, dropout=0.05, keys=["self_attn.q_proj"])
    saved = lm.save_adapters(tmp_path / "adapters", layer)(nn.init(0)(layer))
    assert json.loads((saved / "adapter_config.json").read_text()) == {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": 3, "scale": 2.5, "dropout": 0.05, "keys": ["self_attn.q_proj"]},
    }


def test_full_fine_tuning_is_saved_as_the_leaves_that_train(tmp_path):
    base = model_folder(tmp_path / "base")
    layer = fp.freeze(["model.embed_tokens", "model.layers.0"])(lm.load(base)[0])
    report = trained(layer)
    saved = lm.save_adapters(tmp_path / "adapters", layer)(report)
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config == {"model": str(base), "fine_tune_type": "full", "num_layers": 2}
    file = mx.load(str(saved / "adapters.safetensors"))
    assert set(file) == set(fp.paths(layer.trainable(report.params))(report.params))
    module, _ = mlx_lm.load(str(base), adapter_path=str(saved))
    assert_same_bits(module.parameters(), report.params)


@pytest.mark.slow
def test_the_command_fuse_of_mlx_lm_reads_the_folder(tmp_path):
    base = model_folder(tmp_path / "base", bits=4)
    layer = by_mlx_lm(base, keys=["self_attn.q_proj", "mlp.down_proj"])
    report = trained(layer)
    saved = lm.save_adapters(tmp_path / "adapters", layer)(report)
    command = [sys.executable, "-m", "mlx_lm", "fuse", "--model", base, "--adapter-path", saved]
    offline = child_env(HF_HUB_OFFLINE="1")
    command += ["--save-path", tmp_path / "fused"]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    module, _ = mlx_lm.load(str(base), adapter_path=str(saved))
    fused = {path: part.fuse() for path, part in module.named_modules() if hasattr(part, "fuse")}
    expected = mx.load(str(tmp_path / "fused" / "model.safetensors"))
    for path, part in fused.items():
        assert_same_bits(expected[f"{path}.weight"], part.weight)
    assert_same_bits(lm.load(tmp_path / "fused")[0].init(), mlx_lm.load(str(tmp_path / "fused"))[0].parameters())


def test_adapters_that_differ_are_an_error(tmp_path):
    base = model_folder(tmp_path / "base")
    module, _ = utils.load_model(base)
    module.freeze()
    for rank, key in ((2, "self_attn.q_proj"), (3, "self_attn.v_proj")):
        linear_to_lora_layers(module, -1, {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": [key]})
    layer, params = nn.split(module)
    words = r"\S*_proj has lora of rank ., scale 1, dropout 0, and \S*_proj has lora of rank ."
    with pytest.raises(ValueError, match=words):
        lm.save_adapters(tmp_path / "adapters", layer)(params)
    assert os.listdir(tmp_path) == ["base"]


def test_parameters_that_train_beside_adapters_are_an_error(tmp_path):
    layer = fp.unfreeze("model.norm.weight")(by_mlx_lm(model_folder(tmp_path / "base")))
    with pytest.raises(ValueError, match=r"mlx-lm reads adapters alone, and model\.norm\.weight trains beside them"):
        lm.save_adapters(tmp_path / "adapters", layer)(nn.init(0)(layer))
    bare = fp.freeze()(lm.load(tmp_path / "base")[0])
    with pytest.raises(ValueError, match="there is nothing to save"):
        lm.save_adapters(tmp_path / "adapters", bare)(bare.init())


def test_a_model_that_is_none_of_mlx_lm_is_refused(tmp_path):
    layer = nn.linear(2, 2)
    with pytest.raises(TypeError, match="models of mlx-lm, which have blocks"):
        lm.save_adapters(tmp_path, layer)(nn.init(0)(layer))
    with pytest.raises(TypeError, match="save_adapters takes a Layer"):
        lm.save_adapters(tmp_path, {})


def test_a_second_save_replaces_the_first(tmp_path):
    base = model_folder(tmp_path / "base")
    first, second = by_mlx_lm(base, rank=2), by_mlx_lm(base, rank=3, num_layers=1)
    folder = tmp_path / "adapters"
    lm.save_adapters(folder, first)(nn.init(0)(first))
    (folder / "notes.txt").write_text("mine")
    report = trained(second)
    lm.save_adapters(folder, second)(report)
    assert sorted(os.listdir(folder)) == ["adapter_config.json", "adapters.safetensors", "notes.txt"]
    module, _ = mlx_lm.load(str(base), adapter_path=str(folder))
    assert_same_bits(module(TOKENS), second.apply(report.params, TOKENS)[0])


def test_a_crash_leaves_no_weights_beside_the_config_of_others(tmp_path, monkeypatch):
    from mlx_fp.lm import _saving_adapters

    base = model_folder(tmp_path / "base")
    first, second = by_mlx_lm(base, rank=2), by_mlx_lm(base, rank=2, scale=9.0)
    folder = lm.save_adapters(tmp_path / "adapters", first)(nn.init(0)(first))

    def interrupted(path, content):
        if str(path).endswith(".safetensors"):
            raise KeyboardInterrupt
        return write_whole(path, content)

    write_whole = _saving_adapters.write_whole
    monkeypatch.setattr(_saving_adapters, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lm.save_adapters(folder, second)(nn.init(0)(second))
    assert os.listdir(folder) == ["adapter_config.json"]
    with pytest.raises(RuntimeError, match=r"adapters\.safetensors"):
        mlx_lm.load(str(base), adapter_path=str(folder))
