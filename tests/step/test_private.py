"""Private gradients against a loop over rows."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, cross_entropy, random_batch
from mlx.utils import tree_flatten, tree_map

import mlx_fp as fp
from mlx_fp import metrics, nn, optim, passes

X, _ = random_batch(6)
Y = mx.array([0, 1, 0, 1, 1, 0])
MODEL = nn.sequential(nn.linear(3, 4), nn.tanh, nn.linear(4, 2))


def by_hand(params, clip, noise, key, model=MODEL, x=X, y=Y):
    """Return the gradient of DP-SGD, row by row, with the noise of a step whose key is `key`."""

    def value(params, x, y):
        return nn.losses.cross_entropy(model.apply(params, x)[0], y, reduction="mean")

    total = tree_map(mx.zeros_like, params)
    for i in range(len(x)):
        g = mx.grad(value)(params, x[i : i + 1], y[i : i + 1])
        length = mx.sqrt(sum((leaf**2).sum() for _, leaf in tree_flatten(g))).item()
        share = min(1.0, clip / length)
        total = tree_map(lambda t, d, s=share: t + s * d, total, g)
    keys = iter(mx.random.split(mx.random.split(key, 3)[2], len(tree_flatten(params))))
    return tree_map(lambda t: (t + noise * clip * mx.random.normal(t.shape, key=next(keys))) / len(x), total)


def taken(*verbs, model=MODEL, batch=(X, Y), **options):
    loss = options.pop("loss", cross_entropy)
    options.setdefault("compile", False)
    step = fp.train_step(model, loss, optim.sgd(1.0), through=verbs, **options)
    params, opt_state = step.init(0)
    after, after_state, logs = step(params, opt_state, batch)
    assert step.traces == (options["compile"] is not False)
    return params, opt_state, tree_map(lambda p, q: p - q, params, after), after_state, logs


@pytest.mark.parametrize("noise", [0, 1.5])
@pytest.mark.usual("1.5")
def test_a_step_is_that_by_hand(noise):
    params, state, moved, after, logs = taken(passes.private(0.2, noise), compile=True)
    assert_close(moved, by_hand(params, 0.2, noise, state["key"]))
    assert state["key"].tolist() != after["key"].tolist()
    assert logs["loss"].item() == pytest.approx(taken()[-1]["loss"].item(), rel=1e-6)


def test_a_convolution_is_that_by_hand():
    model = nn.sequential(nn.conv2d(2, 4, 3, groups=2), nn.relu, nn.fn(lambda x: x.mean((1, 2))), nn.linear(4, 2))
    x = mx.random.normal((6, 5, 5, 2), key=mx.random.key(3))
    params, state, moved, *_ = taken(passes.private(0.2, 1.0), model=model, batch=(x, Y))
    assert_close(moved, by_hand(params, 0.2, 1.0, state["key"], model, x))


def test_rows_are_computed_in_turn_where_mlx_has_no_vmap():
    parts = [nn.conv2d(2, 4, 3), nn.relu, nn.conv2d(4, 3, 3), nn.fn(lambda x: x.mean((1, 2))), nn.linear(3, 2)]
    model, x = nn.sequential(*parts), mx.random.normal((6, 6, 6, 2), key=mx.random.key(3))
    with pytest.warns(RuntimeWarning, match="private computes 6 rows one after another, .* for AsStrided"):
        params, state, moved, *_ = taken(passes.private(0.2, 1.0), model=model, batch=(x, Y))
    assert_close(moved, by_hand(params, 0.2, 1.0, state["key"], model, x))


def test_without_clipping_and_noise_a_step_is_the_plain_one():
    _, _, private, state, logs = taken(passes.private(1e6, 0), metrics=[metrics.accuracy()])
    _, _, plain, other, same = taken(metrics=[metrics.accuracy()])
    assert_close(private, plain)
    assert_close(logs, same)
    assert_close(state["metrics"], other["metrics"])


def test_the_noise_has_its_size_and_differs_from_step_to_step():
    model = nn.linear(3, 4000, bias=False)
    step = fp.train_step(model, lambda m, x: m(x).mean(), optim.sgd(1.0), through=[passes.private(2.0, 3.0)])
    params, opt_state = step.init(0)
    seen = []
    for _ in range(2):
        after, opt_state, _ = step(params, opt_state, X)
        seen.append(np.array(params["weight"] - after["weight"]))
    assert seen[0].std() == pytest.approx(2.0 * 3.0 / 6, rel=0.03)
    assert np.abs(seen[0] - seen[1]).max() > 0.5


def test_rows_draw_their_own_numbers_and_a_row_without_weight_counts_as_a_row():
    model = nn.sequential(nn.dropout(0.5), nn.linear(3, 2))
    ones = mx.ones((6, 3))
    step = fp.train_step(model, lambda m, x: m(x).sum(-1).mean(), optim.sgd(1.0), through=[passes.private(1e6, 0)])
    params, opt_state = step.init(0)
    after, *_ = step(params, opt_state, ones)
    kept = np.array(params["layers"][1]["weight"] - after["layers"][1]["weight"])[0] * 6 / 2
    assert np.allclose(kept, kept.round(), atol=1e-5)
    assert not np.allclose(kept, 0)
    assert not np.allclose(kept, 6)

    def masked(model, x, y, mask):
        return fp.mean(nn.losses.cross_entropy(model(x), y), where=mask)

    mask = mx.array([1, 1, 1, 0, 0, 0])
    _, _, private, _, logs = taken(passes.private(1e6, 0), loss=masked, batch=(X, Y, mask))
    _, _, plain, _, other = taken(loss=masked, batch=(X, Y, mask))
    assert_close(private, tree_map(lambda g: g / 2, plain))
    assert_close(logs, other)


def test_sharpness_of_each_row_has_one_trace():
    _, _, moved, *_ = taken(passes.sam(1e-5), passes.private(0.2, 0), compile=True)
    assert_close(moved, taken(passes.private(0.2, 0))[2], atol=1e-4)


@pytest.mark.parametrize(
    ("verbs", "options", "words"),
    [
        ([passes.private(1, 1), passes.in_parts(2)], {}, r"in_parts\(2\) encloses private\(1, 1\).*noise of a whole"),
        ([passes.private(1, 1), passes.abreast(2)], {}, r"abreast\(2\) encloses"),
        ([passes.in_parts(2), passes.private(1, 1)], {}, r"one by one.*leave in_parts\(2\) out"),
        ([passes.private(1, 1)], {"parts": 2}, r"leave in_parts\(2\) out"),
        ([passes.private(1, 1)], {"streams": 2}, r"leave abreast\(2\) out"),
        ([passes.private(1, 1), passes.sam(0.1)], {}, r"same noise: put private\(1, 1\) last"),
        ([passes.private(1, 1), passes.pcgrad("a", "b")], {}, "put private"),
        ([passes.private(1, 1)] * 2, {}, "leave the other out"),
        ([passes.sam(0.1), passes.in_parts(2), passes.sam(0.1)], {}, r"sam\(0.1\) encloses sam\(0.1\)"),
        ([passes.private(1, 1)], {"across": fp.World(0, 2, None)}, "across=2"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(verbs, options, words):
    with pytest.raises(ValueError, match=words):
        fp.train_step(MODEL, cross_entropy, optim.sgd(0.1), through=verbs, **options)


def test_what_has_no_private_gradients_is_refused():
    with pytest.raises(ValueError, match=r"layers.1 is batch norm: use nn.group_norm"):
        taken(passes.private(1, 1), model=nn.sequential(nn.linear(3, 2), nn.batch_norm(2)))
    with pytest.raises(ValueError, match="private takes the gradient of each row.*this batch has"):
        taken(passes.private(1, 1), loss=lambda m, x, y: fp.mean(m(x)), batch=(X, Y[:3]))
    step = fp.train_step(MODEL, cross_entropy, optim.sgd(0.1), through=[passes.private(1, 1)])
    with pytest.raises(ValueError, match="private.* adds noise to each: use larger batches"):
        step.accumulate(*step.init(0), [(X, Y), (X, Y)])
    with pytest.raises(ValueError, match="clip of private"):
        passes.private(0, 1)
    with pytest.raises(ValueError, match="noise of private"):
        passes.private(1, -1)
