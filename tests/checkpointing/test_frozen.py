"""Frozen weights may stay out of the files of a run, which goes on with the same ones and to the same bits."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import assert_same_bits, assert_same_run
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._errors import CheckpointError

X = mx.random.normal((24, 4), key=mx.random.key(3))
TRAIN = pipe(data.arrays(x=X, y=(X[:, 0] > 0).astype(mx.int32)), data.shuffle(seed=5), data.batch(8))
WHOLE = nn.sequential(
    nn.linear(4, 64), nn.batch_norm(64), nn.relu, nn.linear(64, 64), nn.dropout(0.1), nn.linear(64, 2)
)
MODEL = nn.freeze(["layers.0", "layers.3"])(WHOLE)
FROZEN = ("layers.0.weight", "layers.0.bias", "layers.3.weight", "layers.3.bias")
BEGUN = nn.init(7)(WHOLE)
SUFFIXES = (".safetensors", ".npz")


def fit(*verbs, model=MODEL, **options):
    target = pipe(fp.trainer(model, fp.classification()), fp.with_optimizer(optim.adam(1e-2)), *verbs)
    return pipe(target, fp.fit(TRAIN, **{"epochs": 3, "quiet": True, **options}))


def saving(folder, suffix=".safetensors", **options):
    return fp.checkpoints(folder / ("{step}" + suffix), every_steps=1, **{"trainable_only": True, **options})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usual(".npz")
def test_the_file_holds_what_trains_and_buffers_and_names_the_rest(suffix, tmp_path):
    report = fit(saving(tmp_path / "some", suffix), params=BEGUN)
    fit(saving(tmp_path / "all", suffix, trainable_only=False), params=BEGUN)
    held = fp.load(report.checkpoints[-1])
    assert sorted(held.left_out) == sorted(FROZEN)
    assert sorted(fp.flat(held.params)) == sorted(path for path in fp.flat(BEGUN) if path not in FROZEN)
    assert "layers.1.running_mean" in fp.flat(held.params)
    small, large = ((tmp_path / name / f"9{suffix}").stat().st_size for name in ("some", "all"))
    assert large - small > 4 * (64 * 64 + 4 * 64) - 2_000
    whole = fp.merge(held.params, fp.partition(list(held.left_out))(BEGUN)[0])
    assert_same_bits(whole, report.params)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", [1, 3, 5, 9])
@pytest.mark.usual("1-.safetensors")
def test_a_run_goes_on_with_the_weights_that_it_is_given_to_the_same_end(step, suffix, tmp_path):
    alone = fit(params=BEGUN)
    fit(saving(tmp_path, suffix), params=BEGUN)
    assert_same_run(fit(resume=tmp_path / str(step), params=BEGUN), alone)


def test_a_run_from_a_seed_goes_on_with_the_weights_of_the_same_seed(tmp_path):
    alone = fit(seed=9)
    fit(saving(tmp_path), seed=9)
    assert_same_run(fit(saving(tmp_path), resume=tmp_path / "5", seed=9), alone)


@pytest.mark.parametrize("options", [{}, {"seed": 3}, {"params": nn.init(8)(WHOLE)}])
@pytest.mark.usual("options2")
def test_other_weights_are_an_error_with_their_paths(options, tmp_path):
    fit(saving(tmp_path), params=BEGUN)
    with pytest.raises(
        CheckpointError, match=r"5\.safetensors leaves frozen weights out.*layers\.3\.weight.*as params="
    ):
        fit(resume=tmp_path / "5", **options)


def test_one_changed_bit_of_a_weight_that_was_left_out_is_named(tmp_path):
    fit(saving(tmp_path), params=BEGUN)
    bits = fp.flat(BEGUN)["layers.3.weight"].view(mx.uint32)
    other = fp.swap("layers.3.weight", (bits ^ (mx.arange(64 * 64).reshape(64, 64) == 77)).view(mx.float32))(BEGUN)
    with pytest.raises(CheckpointError, match=r"none or others at layers\.3\.weight: give the weights"):
        fit(resume=tmp_path / "5", params=other)


def test_the_best_parameters_are_whole_again(tmp_path):
    alone = fit(params=BEGUN, keep_best=True)
    fit(saving(tmp_path), params=BEGUN, keep_best=True)
    assert set(fp.flat(fp.load(tmp_path / "5").metadata["best_params"])).isdisjoint(FROZEN)
    again = fit(resume=tmp_path / "5", params=BEGUN, keep_best=True)
    assert_same_bits(again.best_params, alone.best_params)


@pytest.mark.slow
def test_a_model_of_which_all_trains_leaves_nothing_out(tmp_path):
    fit(saving(tmp_path), model=WHOLE)
    assert fp.load(tmp_path / "9").left_out == ()
    assert_same_run(fit(model=WHOLE, resume=tmp_path / "5"), fit(model=WHOLE))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32, mx.int8, mx.bool_, mx.complex64])
def test_the_mark_of_an_array_is_of_its_bits_and_places(dtype):
    from mlx_fp.loop._frozen import _fingerprint

    rows = mx.array([[1, 0, 1], [1, 0, 0]]).astype(dtype)
    others = [rows, rows.T, rows[::-1], mx.zeros((2, 3), dtype), mx.zeros((0, 3), dtype), rows[0, 0]]
    assert len({_fingerprint(one).item() for one in others}) == 6
    assert (
        _fingerprint(rows).item() == _fingerprint(mx.array(rows)).item() == _fingerprint(mx.contiguous(rows.T).T).item()
    )
