"""An error in a function of the user's says which function it was, and where the run was."""

from __future__ import annotations

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

X = mx.random.normal((32, 4), key=mx.random.key(0))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.batch(8))
HELD = pipe(data.arrays(x=X[:16], y=Y[:16]), data.batch(8))


def broken(*values):
    raise LookupError("broken")


def fails_at(call, fn=lambda *values: mx.array(0.0)):
    """Return a function that fails at one of its calls, counted from 1."""
    calls = []

    def function(*values, **named):
        calls.append(values)
        return broken() if len(calls) == call else fn(*values)

    return function


def count(**parts):
    usual = {
        "init": lambda: mx.array(0.0),
        "update": lambda memory, output, x, y: memory,
        "value": lambda memory: memory,
    }
    return fp.Metric("count", **{**usual, **parts})


def notes(*verbs, task=None, **options):
    """Return the notes of the error with which a run ends."""
    target = pipe(fp.trainer(nn.linear(4, 2), task or fp.classification()), *verbs)
    with pytest.raises(LookupError, match="broken") as caught:
        fp.fit(TRAIN, validation=HELD, epochs=2, quiet=True, **options)(target)
    return caught.value.__notes__


@pytest.mark.parametrize(
    ("function", "call", "place"),
    [
        ("init", 3, "at split=validation, epoch=0, batch=0, stage=validation"),
        ("update", 1, "at split=train, epoch=0, batch=0, stage=step"),
        ("update", 2, "at split=validation, epoch=0, batch=0, stage=validation"),
        ("value", 1, "at split=train, epoch=0, batch=4, stage=figures"),
        ("value", 4, "at split=validation, epoch=1, batch=2, stage=figures"),
    ],
)
def test_functions_of_a_metric(function, call, place):
    task = fp.classification(metrics=[count(**{function: fails_at(call)})])
    assert notes(task=task) == [f"at metric=count, function={function}", place]


def test_the_first_memory_of_a_metric_has_no_place_in_the_data():
    assert notes(task=fp.classification(metrics=[count(init=broken)])) == ["at metric=count, function=init"]


@pytest.mark.parametrize(
    ("option", "place"),
    [("reduce", "split=train, epoch=0, batch=4"), ("validation_reduce", "split=validation, epoch=0, batch=2")],
)
def test_reducers(option, place):
    assert notes(**{option: broken}) == ["at reducer=broken", f"at {place}, stage=figures"]


def test_an_error_in_the_figures_of_an_epoch_loses_no_step(tmp_path):
    found = notes(fp.checkpoints(tmp_path / "s{step}"), reduce=broken)
    assert found[2].startswith(f"the run so far, 4 steps, is in {tmp_path / 's4.safetensors'}")


def test_a_resume_function(tmp_path):
    def elsewhere():
        return broken()

    assert notes(fp.checkpoints(tmp_path / "s{step}"), resume=elsewhere) == ["at resume_function=elsewhere"]


@pytest.mark.parametrize("background", [False, True])
def test_a_path_function(tmp_path, background):
    def path(step, epoch):
        return broken() if step == 8 else tmp_path / f"{step}-{epoch}"

    found = notes(fp.checkpoints(path, background=background))
    assert found == ["at path_function=path", "at epoch=1, step=8, stage=checkpoint"]


@pytest.mark.parametrize("background", [False, True])
def test_hooks_that_hear_of_a_checkpoint(tmp_path, background):
    found = notes(fp.checkpoints(tmp_path / "s{step}", background=background), fp.on("after_checkpoint", broken))
    assert found[:2] == ["at hook=on('after_checkpoint', broken)", "at epoch=0, step=4, stage=after_checkpoint"]


def test_a_schedule():
    schedule = fails_at(2, lambda step: mx.array(0.1))
    assert notes(fp.with_optimizer(optim.sgd(schedule)))[-1] == "at split=train, epoch=0, batch=0, stage=step"


def test_functions_of_an_evaluation():
    for function, batch in (("init", 0), ("value", 2)):
        target = fp.trainer(nn.linear(4, 2), fp.classification(metrics=[count(**{function: broken})]))
        with pytest.raises(LookupError) as caught:
            fp.evaluate(HELD, params=nn.init(0)(target.model))(target)
        assert caught.value.__notes__ == [f"at metric=count, function={function}", f"at split=test, batch={batch}"]
