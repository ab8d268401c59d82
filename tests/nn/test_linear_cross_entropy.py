"""The loss without logits is the cross entropy of the logits: values and gradients, for every option."""

from __future__ import annotations

import mlx.core as mx
import pytest
from drawn import examples
from helpers import run_python
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.nn.losses import cross_entropy, linear_cross_entropy

ROWS, DIMS, CLASSES = 7, 8, 11
HIDDEN, WEIGHT, BIAS, LABELS, WEIGHTS = (
    mx.random.normal((ROWS, DIMS), key=mx.random.key(1)),
    mx.random.normal((CLASSES, DIMS), key=mx.random.key(2)),
    mx.random.normal((CLASSES,), key=mx.random.key(3)),
    mx.array([0, 3, 10, 5, 5, 1, 9]),
    mx.array([1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 1.0]),
)


def of_logits(hidden, weight, bias, weights, *, label_smoothing, soft_cap, scale, reduction):
    logits = scale * (hidden @ weight.T + bias)
    logits = logits if soft_cap is None else soft_cap * mx.tanh(logits / soft_cap)
    return cross_entropy(logits, LABELS, weights, label_smoothing=label_smoothing, reduction=reduction)


def close(one, other, tolerance=1e-5):
    size = max(1.0, mx.abs(one).max().item())
    return mx.abs(one.astype(mx.float32) - other.astype(mx.float32)).max().item() <= tolerance * size


@examples(25)
@given(
    st.sampled_from(["none", "sum", "mean"]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, 2.0]),
    st.sampled_from([1.0, 0.5]),
    st.integers(1, ROWS + 1),
)
def test_it_is_the_cross_entropy_of_the_logits(reduction, label_smoothing, soft_cap, scale, chunk):
    options = {"reduction": reduction, "label_smoothing": label_smoothing, "soft_cap": soft_cap, "scale": scale}

    def loss(hidden, weight, bias, weights):
        each = linear_cross_entropy(hidden, weight, LABELS, bias=bias, weights=weights, chunk=chunk, **options)
        return (each * mx.arange(each.size)).sum()

    def expected(*arrays):
        each = of_logits(*arrays, **options)
        return (each * mx.arange(each.size)).sum()

    results = [mx.value_and_grad(f, argnums=(0, 1, 2, 3))(HIDDEN, WEIGHT, BIAS, WEIGHTS) for f in (loss, expected)]
    for ours, plain in zip(*(fp.flat(list(result)).values() for result in results), strict=True):
        assert close(plain, ours)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.usual("sum")
def test_a_compiled_step_trains_as_on_logits(reduction):
    model = nn.define(lambda m, x: m.body(x), body=nn.linear(DIMS, DIMS), head=nn.linear(DIMS, CLASSES))

    def loss(model, x, y):
        head = model.params["head"]
        each = linear_cross_entropy(model(x), head["weight"], y, bias=head["bias"], chunk=3, reduction=reduction)
        return each.sum() if reduction == "none" else each

    def plain(model, x, y):
        return cross_entropy(model(x) @ model.params["head"]["weight"].T + model.params["head"]["bias"], y).sum()

    updated = []
    for function in (loss, plain):
        step = fp.train_step(model, function, optim.sgd(0.1))
        params, state = step.init(0)
        updated.append(fp.flat(step(params, state, (HIDDEN, LABELS))[0]))
    assert all(close(updated[1][path], leaf) for path, leaf in updated[0].items())


def test_large_scores_keep_their_digits():
    hidden, weight = mx.array([[1.0]]), mx.array([[1e6], [1e6 - 0.5]])
    assert linear_cross_entropy(hidden, weight, mx.array([1])).item() == pytest.approx(0.974077, abs=1e-6)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_a_label_out_of_range_is_nan_and_has_no_gradient(reduction):
    labels = mx.array([1, CLASSES, -1, 2, 3, 4, 5])

    def loss(hidden):
        each = linear_cross_entropy(hidden, WEIGHT, labels, chunk=2, reduction=reduction)
        return each, mx.where(mx.isnan(each), 0.0, each).sum()

    assert mx.isnan(loss(HIDDEN)[0]).astype(mx.int32).sum().item() == (2 if reduction == "none" else 1)
    assert not mx.any(mx.grad(lambda hidden: loss(hidden)[1])(HIDDEN)[1:3]).item()


def test_an_ignored_label_does_not_count():
    labels = mx.where(mx.arange(ROWS) < 2, -100, LABELS)
    loss = linear_cross_entropy(HIDDEN, WEIGHT, labels, ignore=-100, chunk=3)
    assert loss[:2].tolist() == [0.0, 0.0]
    rest = linear_cross_entropy(HIDDEN[2:], WEIGHT, LABELS[2:], reduction="mean")
    assert close(rest, linear_cross_entropy(HIDDEN, WEIGHT, labels, ignore=-100, reduction="mean"))


@pytest.mark.parametrize("mode", [{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 32}])
def test_a_quantised_weight_is_its_dense_weight(mode):
    hidden = mx.random.normal((ROWS, 32), key=mx.random.key(5))
    quantised = mx.quantize(mx.random.normal((CLASSES, 32), key=mx.random.key(6)), **mode)
    dense = mx.dequantize(*quantised, **mode)

    def loss(hidden):
        return linear_cross_entropy(hidden, quantised, LABELS, chunk=3, reduction="sum", **mode)

    expected = mx.value_and_grad(lambda hidden: cross_entropy(hidden @ dense.T, LABELS).sum())(hidden)
    for ours, plain in zip(mx.value_and_grad(loss)(hidden), expected, strict=True):
        assert close(plain, ours)


def test_a_frozen_head_gets_no_gradient():
    def loss(hidden, weight):
        return linear_cross_entropy(hidden, weight, LABELS, reduction="sum", frozen=True, chunk=3)

    of_hidden, of_weight = mx.grad(loss, argnums=(0, 1))(HIDDEN, WEIGHT)
    assert close(mx.grad(lambda hidden: cross_entropy(hidden @ WEIGHT.T, LABELS).sum())(HIDDEN), of_hidden)
    assert not mx.any(of_weight).item()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_narrow_inputs_give_sums_in_float32(dtype):
    hidden, weight = HIDDEN.astype(dtype), WEIGHT.astype(dtype)

    def loss(hidden, weight):
        return linear_cross_entropy(hidden, weight, LABELS, reduction="sum", chunk=2)

    value, grads = mx.value_and_grad(loss, argnums=(0, 1))(hidden, weight)
    wide = mx.value_and_grad(loss, argnums=(0, 1))(hidden.astype(mx.float32), weight.astype(mx.float32))
    assert value.dtype == mx.float32
    assert [grad.dtype for grad in grads] == [dtype, dtype]
    assert close(wide[0], value, 1e-2)
    assert all(close(a, b, 2e-2) for a, b in zip(wide[1], grads, strict=True))


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_second_derivatives_and_vmap_are_refused(reduction):
    def loss(hidden):
        return linear_cross_entropy(hidden, WEIGHT, LABELS, reduction=reduction).sum()

    with pytest.raises(NotImplementedError, match="first derivative only"):
        mx.grad(lambda hidden: mx.grad(loss)(hidden).square().sum())(HIDDEN)
    with pytest.raises(NotImplementedError, match=r"mx\.vmap"):
        mx.vmap(loss)(HIDDEN[None])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"labels": LABELS[:3]}, ValueError, r"labels of hidden \(7, 8\) are \(7,\); they are \(3,\)"),
        ({"labels": LABELS.astype(mx.float32)}, TypeError, "are classes, integers"),
        ({"weight": WEIGHT.T}, ValueError, r"the weight \(8, 11\)"),
        ({"bias": BIAS[:2]}, ValueError, r"is \(11,\); it is \(2,\)"),
        ({"weights": WEIGHTS[:2]}, ValueError, "a weight for each label"),
        ({"weight": (WEIGHT,)}, ValueError, "got 1 arrays"),
        ({"chunk": 0}, ValueError, "chunk of linear_cross_entropy"),
        ({"soft_cap": 0.0}, ValueError, "soft_cap of linear_cross_entropy"),
        ({"reduction": "max"}, TypeError, "reduction of linear_cross_entropy"),
    ],
)
def test_wrong_arguments_are_errors(change, error, text):
    with pytest.raises(error, match=text):
        linear_cross_entropy(**{"hidden": HIDDEN, "weight": WEIGHT, "labels": LABELS, **change})


def test_no_rows_have_no_loss():
    assert linear_cross_entropy(HIDDEN[:0], WEIGHT, LABELS[:0]).shape == (0,)
    assert linear_cross_entropy(HIDDEN[:0], WEIGHT, LABELS[:0], reduction="sum").item() == 0


PEAK = """
import mlx.core as mx
from mlx_fp import nn
from mlx_fp.core.backend import on_device
hidden, weight, labels = mx.ones((1024, 16)), mx.ones((8192, 16)) * 0.1, mx.zeros((1024,), mx.int32)
def peak(chunk):
    loss = lambda h, w: nn.losses.linear_cross_entropy(h, w, labels, reduction="mean", chunk=chunk)
    step = mx.compile(on_device(mx.value_and_grad(loss, argnums=(0, 1))))
    mx.eval(step(hidden, weight))
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(step(hidden, weight))
    return mx.get_peak_memory() - before
print(peak(32) / peak(1024))
"""


@pytest.mark.slow
def test_the_memory_is_that_of_a_chunk():
    assert float(run_python(PEAK)) < 0.3
