"""Parameters come as a tree, in a report, or in a checkpoint, which may leave out weights that files have."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_same_bits
from language_models import model, model_folder, tokenizer

import mlx_fp as fp
from mlx_fp import lm, nn
from mlx_fp.lm._given_params import given_params


def saved(path, layer, params):
    """Save the parameters of a layer that train."""
    return fp.load(fp.save(path, select=layer.trainable(params))(params))


def test_a_checkpoint_without_frozen_weights_gets_those_of_the_files(tmp_path):
    layer = nn.lora(rank=2)(lm.load(model_folder(tmp_path / "base", bits=4))[0])
    start = nn.init(0)(layer)
    params = fp.restore_like(start, {p: x + 1 if "lora" in p else x for p, x in fp.flat(start).items()})
    assert_same_bits(given_params(layer, saved(tmp_path / "a", layer, params)), params)
    assert given_params(layer, params) is params
    whole = fp.load(fp.save(tmp_path / "b")(params))
    assert_same_bits(given_params(layer, whole), params)


def test_weights_that_no_files_have_are_an_error(tmp_path):
    layer = nn.lora(rank=2)(nn.split(model()[0])[0])
    checkpoint = saved(tmp_path / "a", layer, nn.init(0)(layer))
    with pytest.raises(ValueError, match=r"leaves out \S+ and other weights of Model, which no files have"):
        lm.generate(layer, tokenizer(), mx.array([1]))(checkpoint)
