"""Metrics find their output, target and mask in batches of more columns and in outputs of several arrays."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import metrics, nn, optim
from mlx_fp.task._folds import values

ARGUMENTS = {"top_k": (2,), "precision": (3,), "recall": (3,), "f1": (3,)}
BINARY = ("binary_accuracy", "multilabel_accuracy")
APART = ("auroc", "confusion")
"""NaN of a single row, and a table: see test_binary.py."""
NAMES = [name for name in metrics.__all__ if name not in APART]
MAKERS = {name: partial(getattr(metrics, name), *ARGUMENTS.get(name, ())) for name in NAMES}
NUMBERS = ("mse", "mae", "r2")


@pytest.fixture(params=NAMES)
def case(request):
    """A maker of a metric, outputs, targets, other targets, and the values that it has of each."""
    make, name = MAKERS[request.param], request.param
    if name in NUMBERS:
        output, y, other = mx.array([1.0, 2.0, 4.0]), mx.array([1.0, 2.0, 3.0]), mx.array([3.0, 2.0, 2.5])
    elif name in BINARY:
        output, y, other = mx.array([1.0, -2.0, 3.0]), mx.array([1, 0, 0]), mx.array([0, 1, 0])
    else:
        output = mx.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 1.0, 2.0]])
        y, other = mx.array([0, 1, 0]), mx.array([1, 0, 1])
    of = partial(value, make(), output)
    assert of(None, y) != of(None, other)
    return make, output, y, other


class Outputs(NamedTuple):
    """What a model with two heads returns."""

    first: mx.array
    second: mx.array


def value(m, output, /, *places, **named):
    return m.value(m.update(m.init(), output, *places, **named)).item()


def test_further_columns_are_left_alone(case):
    make, output, y, other = case
    wanted = value(make(), output, None, y)
    assert value(make(), output, x=None, id=other, y=y, memory=0, output=1) == wanted
    mask = mx.array([1, 1, 1])
    assert value(make(), output, None, y, mask, other, "more") == wanted
    assert value(make(), output, None, y, 0 * mask + mx.array([1, 0, 0]), other) == value(
        make(), output[:1], None, y[:1]
    )


def test_a_target_has_a_name_or_in_a_tuple_an_index(case):
    make, output, y, other = case
    wanted = value(make(), output, None, other)
    assert value(make(target="kind"), output, x=None, y=y, kind=other) == wanted
    assert value(make(target=3, mask=None), output, None, y, y, other) == wanted
    assert value(make(target="x"), output, other, y) == wanted


def test_an_output_has_a_name_or_in_a_tuple_an_index(case):
    make, output, y, _ = case
    wanted = value(make(), output, None, y)
    assert value(make(output="logits"), {"hidden": 0 * output, "logits": output}, None, y) == wanted
    assert value(make(output=1), (0 * output, output), None, y) == wanted
    assert value(make(output=1), Outputs(0 * output, output), None, y) == wanted


def test_a_mask_has_a_name_too_and_may_be_left_out(case):
    make, output, y, _ = case
    first = value(make(), output[:1], None, y[:1])
    assert value(make(mask="known"), output, x=None, y=y, mask=y, known=mx.array([1, 0, 0])) == first
    assert value(make(mask=3), output, None, y, y, mx.array([1, 0, 0])) == first
    assert value(make(mask=None), output, x=None, y=y, mask=mx.array([1, 0, 0])) == value(make(), output, None, y)


def test_what_is_not_there_is_an_error_that_names_what_is(case):
    make, output, y, _ = case
    with pytest.raises(ValueError, match=r"unknown target 'labels': did you mean 'label'\? known: x, label"):
        value(make(target="labels"), output, x=None, label=y)
    with pytest.raises(ValueError, match="unknown target '3': known: x, y, 0, 1"):
        value(make(target=3), output, None, y)
    with pytest.raises(ValueError, match="unknown target 'y': known: x, 0"):
        value(make(), output, None)
    with pytest.raises(ValueError, match="unknown mask 'known': known: x, y"):
        value(make(mask="known"), output, x=None, y=y)
    with pytest.raises(ValueError, match="unknown output 'logit': did you mean 'logits'"):
        value(make(output="logit"), {"logits": output}, None, y)
    with pytest.raises(ValueError, match="unknown output '2': known: 0, 1"):
        value(make(output=2), (output, output), None, y)


def test_an_output_of_several_arrays_has_to_be_chosen(case):
    make, output, y, _ = case
    with pytest.raises(ValueError, match="the model returns a dict with logits, hidden: say which.*output='logits'"):
        value(make(), {"logits": output, "hidden": output}, None, y)
    with pytest.raises(ValueError, match="the model returns a tuple with 0, 1: say which, as in output=0"):
        value(make(), (output, output), None, y)
    with pytest.raises(ValueError, match="takes output 'logits', and the model returns one array"):
        value(make(output="logits"), output, None, y)


def test_metrics_of_two_heads_fold_in_the_compiled_step():
    model = nn.define(lambda m, x: {"kind": m.kind(x), "size": m.size(x)}, kind=nn.linear(3, 2), size=nn.linear(3, 1))

    def loss(model, x, kind, size, output):
        out = model(x)
        return nn.losses.cross_entropy(out["kind"], kind, reduction="mean") + mx.square(out["size"] - size).mean()

    folds = [metrics.accuracy(output="kind", target="kind"), metrics.mse(output="size", target="size")]
    step = fp.train_step(model, loss, optim.sgd(0.0), metrics=folds)
    params, opt_state = step.init(0)
    x = mx.random.normal((8, 3), key=mx.random.key(0))
    batch = {
        "x": x,
        "kind": (x[:, 0] > 0).astype(mx.int32),
        "size": x.sum(axis=1, keepdims=True),
        "output": mx.arange(8),
    }
    out = model.apply(params, x)[0]
    wanted = {
        "accuracy": (mx.argmax(out["kind"], axis=1) == batch["kind"]).mean().item(),
        "mse": mx.square(out["size"] - batch["size"]).mean().item(),
    }
    for _ in range(2):
        params, opt_state, _ = step(params, opt_state, batch)
    assert values(step.metrics, opt_state["metrics"]) == pytest.approx(wanted, rel=1e-5)
    assert step.traces == 1


# shapes of numbers


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(("output", "y"), [((3,), (3, 1)), ((3, 1), (1, 3)), ((2, 3), (3,)), ((3,), (1,))])
def test_targets_that_would_be_broadcast_are_refused_with_both_shapes(name, output, y):
    shapes = re.escape(f"{name} needs targets of the predictions' shape; they are {output}, y is {y}")
    with pytest.raises(ValueError, match=shapes):
        value(MAKERS[name](), mx.zeros(output), None, mx.zeros(y))
    with pytest.raises(ValueError, match=shapes.replace(name, "regression", 1)):
        fp.regression().loss(lambda x: mx.zeros(output), None, mx.zeros(y))
