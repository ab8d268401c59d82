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


def test_a_function_that_reduces_from_a_resumed_run_on_gets_the_losses_of_each_epoch(tmp_path):
    run(tmp_path, 1)
    seen = []
    report = run(tmp_path, 3, resume="latest", reduce=lambda losses: seen.append(losses) or max(losses))
    assert [len(losses) for losses in seen] == [2, 2]
    assert seen[0] + seen[1] == list(report.losses[2:])
    assert [row.epoch_loss for row in report.rows[1:]] == [max(losses) for losses in seen]
    assert run(tmp_path, 4, resume="latest").rows[3].epoch_loss == pytest.approx(sum(run(tmp_path, 4).losses[6:]) / 2)


def test_a_function_that_reduces_from_within_an_epoch_on_is_an_error_where_losses_are_missing(tmp_path):
    target = fp.trainer(MODEL, fp.classification())
    stop = fp.on("after_step", lambda event: fp.Stop("cut", final=False) if event.step == 2 else None)
    fp.fit([PAIR] * 2, epochs=2, quiet=True)(fp.checkpoints(tmp_path / "{step}")(stop(target)))
    with pytest.raises(
        ValueError, match=r"reduce= takes the losses of steps, and .*3\.safetensors lacks those .* 1 of"
    ):
        run(tmp_path, 2, resume="latest", reduce=max)
    assert run(tmp_path, 2, resume=tmp_path / "2", reduce=max).epochs_completed == 2
