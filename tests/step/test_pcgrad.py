"""Gradients without conflicts against projections by hand."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, random_batch
from mlx.utils import tree_flatten

import mlx_fp as fp
from mlx_fp import metrics, nn, optim, passes

X, Y = random_batch(8)
MODEL = nn.sequential(trunk=nn.linear(3, 3), act=nn.tanh, head=nn.linear(3, 2))
NAMES = ("a", "b", "c")


def several(model, x, y):
    out = fp.outputs(model(x))
    losses = {"a": ((out[:, 0] - y[:, 0]) ** 2).mean(), "b": ((out[:, 0] + y[:, 0]) ** 2).mean(), "c": out[:, 1].mean()}
    return sum(losses.values()), losses


def figure(name, x=X, y=Y):
    return lambda params: several(lambda x: MODEL.apply(params, x)[0], x, y)[1][name]


def vector(tree):
    return np.concatenate([np.array(leaf).ravel() for _, leaf in tree_flatten(tree)]).astype(np.float64)


def by_hand(params, names=NAMES, x=X, y=Y):
    gradients = [vector(mx.grad(figure(name, x, y))(params)) for name in names]
    total = 0
    for i, own in enumerate(gradients):
        for j, other in enumerate(gradients):
            if i != j and (product := own @ other) < 0:
                own = own - product / (other @ other) * other
        total = total + own
    return total


def taken(names=NAMES, loss=several, **options):
    options.setdefault("through", [passes.pcgrad(*names)])
    options.setdefault("compile", False)
    step = fp.train_step(MODEL, loss, optim.sgd(1.0), **options)
    params, opt_state = step.init(0)
    after, opt_state, logs = step(params, opt_state, (X, Y))
    assert step.traces == (options["compile"] is not False)
    return params, vector(params) - vector(after), opt_state, logs


def test_a_step_is_that_by_hand_and_differs_from_the_sum():
    params, moved, _, logs = taken(compile=True)
    np.testing.assert_allclose(moved, by_hand(params), atol=2e-6)
    assert np.abs(moved - taken(through=[])[1]).max() > 1e-2
    plain = taken(through=[])[3]
    assert_close(logs, plain)


def test_without_conflicts_a_step_is_the_plain_one():
    def agreeing(model, x, y):
        error = ((model(x) - y) ** 2).mean()
        return error + 2 * error, {"a": error, "b": 2 * error}

    results = [taken(loss=agreeing, through=verbs)[1] for verbs in ([passes.pcgrad("a", "b")], [])]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_parts_inside_change_nothing_with_means_of_other_weights_too():
    def masked(model, x, y):
        out = model(x)
        a = fp.mean((out[:, 0] - y[:, 0]) ** 2, where=y[:, 1] > 0)
        return fp.mean((out - y) ** 2), {"a": a, "b": fp.mean((out[:, 0] + y[:, 0]) ** 2)}

    for names, loss in ((NAMES, several), (("a", "b"), masked)):
        _, whole, _, logs = taken(names, loss)
        _, parts, _, other = taken(loss=loss, through=[passes.in_parts(2), passes.pcgrad(*names)])
        np.testing.assert_allclose(parts, whole, atol=2e-6)
        assert_close(logs, other)


def test_metrics_and_random_numbers_are_those_of_one_pass():
    error = metrics.mae()
    _, _, state, _ = taken(metrics=[error])
    _, _, plain, _ = taken(metrics=[error], through=[])
    assert_close(state, plain)


def test_a_step_with_sharpness_has_one_trace():
    taken(through=[passes.pcgrad("a", "b"), passes.sam(0.1)], compile=True)
    taken(through=[passes.sam(0.1), passes.pcgrad("a", "b")])


def test_names_are_two_figures_of_the_loss():
    with pytest.raises(ValueError, match="two names or more"):
        passes.pcgrad("a")
    with pytest.raises(ValueError, match="each once"):
        passes.pcgrad("a", "a", "b")
    with pytest.raises(TypeError, match="names of figures"):
        passes.pcgrad(several, several)
    with pytest.raises(ValueError, match="unknown figure of the loss 'bb': did you mean 'b'"):
        taken(("a", "bb"))
