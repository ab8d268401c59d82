"""A model of mlx-lm comes in as a layer that reads its files, with the numbers of mlx-lm."""

from __future__ import annotations

import json
import pickle

import mlx.core as mx
import mlx_lm
import pytest
from helpers import assert_same_bits
from language_models import model_folder

import mlx_fp as fp
from mlx_fp import lm, nn, optim

TOKENS = mx.array([[4, 5, 6, 9, 10], [3, 2, 1, 0, 7]])


def next_token(model, tokens):
    """Return the loss of the next token."""
    return nn.losses.cross_entropy(model(tokens)[:, :-1], tokens[:, 1:], reduction="mean")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen2_moe"])
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.usual("None-llama", "None-qwen2", "None-qwen2_moe", "4-llama")
def test_a_model_computes_as_in_mlx_lm(tmp_path, kind, bits):
    folder = model_folder(tmp_path / "base", kind, bits=bits)
    layer, params, tokenizer = lm.load(folder)
    module, its_tokenizer = mlx_lm.load(str(folder))
    assert_same_bits(layer.apply(params, TOKENS)[0], module(TOKENS))
    assert_same_bits(params, module.parameters())
    assert tokenizer.encode("w1 w2") == its_tokenizer.encode("w1 w2")


def test_quantised_weights_do_not_train(tmp_path):
    layer, params, _ = lm.load(model_folder(tmp_path / "base", bits=4))
    assert {path.rpartition(".")[2] for path in fp.paths(layer.trainable(params))(params)} == {"weight"}
    assert all("norm" in path for path in fp.paths(layer.trainable(params))(params))


def test_a_model_is_tuned_by_fit_from_the_weights_of_its_files(tmp_path):
    folder = model_folder(tmp_path / "base")
    layer, params, _ = lm.load(folder)
    before = next_token(lambda x: layer.apply(params, x)[0], TOKENS).item()
    train = fp.pipe(fp.data.arrays(tokens=TOKENS), fp.data.batch(2))
    tune = fp.fit(train, epochs=3, quiet=True)
    report = tune(fp.trainer(layer, next_token, optimizer=optim.sgd(0.1)))
    assert report.losses[0] == before
    assert report.losses[-1] < before
    given = fp.fit(train, epochs=3, quiet=True, params=params, seed=5)
    assert_same_bits(report.params, given(fp.trainer(layer, next_token, optimizer=optim.sgd(0.1))).params)


def test_full_fine_tuning_holds_one_copy_of_the_weights(tmp_path):
    layer, params, _ = lm.load(model_folder(tmp_path / "base", hidden_size=64, intermediate_size=256))
    step = fp.train_step(layer, next_token, optim.sgd(0.1))
    start = mx.get_active_memory()
    trained, state = step.init(0)
    for _ in range(2):
        trained, state, logs = step(trained, state, {"tokens": TOKENS})
        mx.eval(trained, state, logs)
    held, size = mx.get_active_memory() - start, nbytes(params)
    assert nbytes(trained, state) <= held < nbytes(trained, state) + 0.1 * size
    mx.eval(params)  # the loaded tree was alive, and had read nothing
    assert mx.get_active_memory() - start > held + 0.9 * size


def nbytes(*trees):
    """Count the bytes of the arrays in some trees."""
    return sum(leaf.nbytes for tree in trees for leaf in fp.flat(tree).values())


def test_a_layer_is_small_and_goes_to_another_process(tmp_path):
    layer, params, _ = lm.load(model_folder(tmp_path / "base", bits=4))
    text = pickle.dumps(layer)
    assert len(text) < 30_000
    again = pickle.loads(text)
    assert_same_bits(again.init(3), params)
    assert_same_bits(again.apply(params, TOKENS)[0], layer.apply(params, TOKENS)[0])


def test_loading_and_building_do_not_move_the_random_stream(tmp_path):
    folder = model_folder(tmp_path / "base")
    mx.random.seed(7)
    expected = mx.random.uniform().item()
    mx.random.seed(7)
    layer, _, _ = lm.load(folder)
    layer.init(0)
    assert mx.random.uniform().item() == expected


def test_options_reach_the_loader(tmp_path):
    folder = model_folder(tmp_path / "base")
    layer, params, tokenizer = lm.load(
        folder, lazy=False, model_config={"rope_theta": 100.0}, tokenizer_config={"eos_token": "w3"}
    )
    module, _ = mlx_lm.load(str(folder), model_config={"rope_theta": 100.0})
    assert_same_bits(layer.apply(params, TOKENS)[0], module(TOKENS))
    assert_same_bits(layer.init(), params)
    assert tokenizer.eos_token == "w3"
    with pytest.raises(TypeError, match="lazy of load is True or False"):
        lm.load(folder, lazy=1)


def test_a_folder_that_is_not_there_comes_back_with_the_nearest(tmp_path):
    model_folder(tmp_path / "llama-tiny")
    with pytest.raises(FileNotFoundError, match=r"no folder .*llama_tiny; nearest: llama-tiny"):
        lm.load(tmp_path / "llama_tiny")
    with pytest.raises(FileNotFoundError, match="there is no folder nothing"):
        lm.load("./nothing")
    with pytest.raises(FileNotFoundError, match="is a file"):
        lm.load(tmp_path / "llama-tiny" / "config.json")


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        lm.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="give it as adapter_path="):
        lm.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"model_type": "lama"}', "mlx-lm has no model type 'lama'; nearest: llama"),
        ("{}", "has no model_type"),
        ("[1", "is no config of a model"),
    ],
)
def test_a_config_that_mlx_lm_cannot_use_is_an_error_with_candidates(tmp_path, content, words):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=words):
        lm.load(tmp_path)


def test_a_folder_without_weights_is_an_error(tmp_path):
    folder = model_folder(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="No safetensors"):
        lm.load(folder)


def test_the_config_is_that_of_the_folder(tmp_path):
    folder = model_folder(tmp_path / "base", bits=4)
    saved = lm.save(tmp_path / "copy", lm.load(folder)[0])(lm.load(folder)[1])
    assert json.loads((saved / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


def test_a_name_is_looked_up_on_the_hub(tmp_path, monkeypatch):
    from mlx_lm import utils

    folder, asked = model_folder(tmp_path / "base"), []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        if name == "mlx-community/nothing":
            raise OSError("404")
        return str(folder)

    monkeypatch.setattr(utils, "snapshot_download", download)
    layer, params, _ = lm.load("mlx-community/tiny-4bit", revision="v2")
    assert asked == [("mlx-community/tiny-4bit", "v2")]
    assert_same_bits(layer.init(), params)
    with pytest.raises(OSError, match="404") as caught:
        lm.load("mlx-community/nothing")
    assert caught.value.__notes__ == [
        "'mlx-community/nothing' is no folder here, so it was looked up on the Hugging Face Hub"
    ]
    assert len(asked) == 2
