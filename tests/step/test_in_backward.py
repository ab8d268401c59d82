"""Updates during the backward pass have the bits of updates at the end, and need less memory."""

from __future__ import annotations

from importlib.util import find_spec

import mlx.core as mx
import pytest
from helpers import assert_same_bits, mean_square
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim, rng

X = mx.random.normal((8, 16), key=rng.key(0))

OPTIMIZERS = {
    "adamw": optim.adamw(optim.cosine_decay(1e-2, 10)),
    "sgd": optim.sgd(0.1, momentum=0.9),
    "muon": optim.muon(1e-2),
    "adafactor": optim.adafactor(1e-2),
    "clipped and averaged": pipe(optim.adam(1e-2), optim.clip_value(1e-3), optim.ema(0.9)),
    "groups": optim.groups(("head", optim.sgd(0.1)), (None, optim.ema(0.5)(optim.adamw(1e-3)))),
}


def model(wrap=nn.remat):
    block = nn.residual(nn.linear(16, 32), nn.dropout(0.2), nn.batch_norm(32), nn.relu, nn.linear(32, 16))
    tied = nn.share(2, nn.linear(16, 16))
    return nn.sequential(nn.freeze("layers.0.bias")(wrap(block)), wrap(block), wrap(tied), head=nn.linear(16, 4))


def trained(layer, optimizer, steps=3, **options):
    step = fp.train_step(layer, mean_square, optimizer, **options)
    params, state = step.init(0)
    for _ in range(steps):
        params, state, logs = step(params, state, X)
    return params, state, logs


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.usual("sgd")
def test_the_same_bits(name):
    plain = trained(model(), OPTIMIZERS[name])
    assert_same_bits(list(plain), list(trained(model(), OPTIMIZERS[name], update="in_backward")))


def test_the_same_bits_without_compilation_and_without_recomputed_parts():
    plain = trained(model(lambda layer: layer), OPTIMIZERS["adamw"], compile=False)
    for options in ({"compile": False}, {"measure": True}):
        params, state, logs = trained(model(lambda layer: layer), OPTIMIZERS["adamw"], update="in_backward", **options)
        if not options.get("compile", True):
            assert_same_bits(list(plain), [params, state, logs])
        assert "measure" not in options or logs["grad_norm"].item() > 0


def test_a_parameter_that_the_loss_does_not_use_decays():
    layer = nn.sequential(used=nn.remat(nn.linear(16, 4)), idle=nn.linear(16, 4))
    ends = []
    for update in ("at_end", "in_backward"):
        step = fp.train_step(layer, lambda m, x: m.used(x).square().mean(), optim.adamw(0.1), update=update)
        params, state, _ = step(*step.init(0), X)
        ends.append([params, state])
    assert_same_bits(*ends)
    assert not mx.array_equal(ends[0][0]["idle"]["weight"], step.init(0)[0]["idle"]["weight"])


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (optim.clip_norm(1.0)(optim.sgd(0.1)), {}, "clip_norm needs all gradients"),
        (optim.ema(0.9)(optim.skip_nonfinite()(optim.sgd(0.1))), {}, "skip_nonfinite needs all gradients"),
        (optim.Optimizer(optim.sgd(0.1).init, optim.sgd(0.1).update), {}, "by_leaf is False"),
        (optim.sgd(0.1), {"parts": 2}, "parts changes them"),
        (optim.sgd(0.1), {"streams": 2}, "streams changes them"),
        (optim.sgd(0.1), {"through": [fp.passes.in_parts(2)]}, "through changes them"),
    ],
    ids=["clip_norm", "skip_nonfinite inside", "own", "parts", "streams", "through"],
)
def test_all_gradients_at_once_are_refused(optimizer, options, message):
    with pytest.raises(ValueError, match=message):
        fp.train_step(model(), mean_square, optimizer, update="in_backward", **options)


def test_other_values_and_several_batches_are_refused():
    with pytest.raises(ValueError, match="unknown update 'soon'.*at_end, in_backward"):
        fp.train_step(model(), mean_square, optim.sgd(0.1), update="soon")
    step = fp.train_step(model(), mean_square, optim.sgd(0.1), update="in_backward")
    with pytest.raises(ValueError, match="accumulate takes several"):
        step.accumulate(*step.init(0), [X, X])


def test_in_a_run():
    trainer = pipe(
        fp.trainer(model(), fp.regression()),
        fp.with_optimizer(optim.adamw(1e-2)),
    )
    train = pipe(data.arrays(x=X, y=mx.zeros((8, 4))), data.batch(4))
    plain, other = (fp.fit(train, epochs=2, update=update)(trainer) for update in ("at_end", "in_backward"))
    assert_same_bits(plain.params, other.params)
    assert plain.losses == other.losses
    with pytest.raises(ValueError, match="accumulate"):
        fp.fit(train, epochs=2, update="in_backward", accumulate=2)(trainer)
    with pytest.raises(ValueError, match="skip_nonfinite"):
        fp.fit(train, epochs=2, update="in_backward", nonfinite="skip")(trainer)
    with pytest.raises(ValueError, match="after_backward"):
        pipe(trainer, fp.on("after_backward", lambda event: None), fp.fit(train, epochs=2, update="in_backward"))


@pytest.mark.skipif(find_spec("mlx_fp.cpu") is None, reason="MLX's queue holds the memory without the backend")
def test_the_gradients_of_one_part_at_a_time_are_in_memory():
    """With a batch of two rows nearly all memory is gradients and new parameters, which take the place of old ones."""
    layer, x = nn.remat("layers")(nn.repeat(8, nn.residual(nn.linear(64, 1024), nn.linear(1024, 64)))), X[:2, :1]
    x = mx.broadcast_to(x, (2, 64)) + 0
    peaks = []
    for update in ("at_end", "in_backward"):
        step = fp.train_step(layer, mean_square, optim.sgd(0.1), update=update)
        state = step.init(0)
        mx.eval(state, x)
        for _ in range(2):
            mx.synchronize()
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            *state, _ = step(*state, x)
            mx.eval(state)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < peaks[0] / 2
