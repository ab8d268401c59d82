"""Options that a resumed run does not follow, because the file holds, are told of."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_same_bits

import mlx_fp as fp
from mlx_fp import nn

PAIR = (mx.ones((8, 4)), mx.zeros((8,), mx.int32))
MODEL = nn.linear(4, 2)


def run(folder, epochs, **options):
    target = fp.checkpoints(folder / "{step}")(fp.trainer(MODEL, fp.classification()))
    return fp.fit([PAIR] * 2, epochs=epochs, quiet=True, **options)(target)


@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        ({}, {"params": nn.init(7)(MODEL)}, "the parameters of the file hold"),
        ({"seed": 1}, {"seed": 2}, "the seed was 1, is 2, and the random stream of the file holds"),
        ({"keep_losses": False}, {}, "report.losses begins here"),
    ],
    ids=["params", "seed", "keep_losses"],
)
def test_an_option_that_does_not_hold_is_told_of(tmp_path, caplog, first, later, words):
    run(tmp_path, 1, **first)
    report = run(tmp_path, 2, resume="latest", **later)
    assert words in caplog.text
    whole = run(tmp_path / "whole", 2, **first)
    assert_same_bits(report.params, whole.params)


def test_the_same_options_are_not_told_of(tmp_path, caplog):
    run(tmp_path, 1, seed=mx.random.key(3))
    run(tmp_path, 2, seed=mx.random.key(3), resume="latest")
    assert "goes on from" not in caplog.text
