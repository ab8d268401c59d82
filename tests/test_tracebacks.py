"""The tracebacks of usual mistakes are short: they show the user's lines and few frames of the library."""

from __future__ import annotations

import traceback
from pathlib import Path

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

PACKAGE = str(Path(fp.__file__).parent)
LINES = 30
"""The lines of the longest traceback of a usual mistake."""


def columns():
    x = mx.random.normal((32, 4), key=mx.random.key(0))
    return {"x": x, "y": (x[:, 0] > 0).astype(mx.int32)}


def model(hidden=8, fed=None):
    return nn.sequential(nn.linear(4, hidden), nn.relu, nn.linear(fed or hidden, 2))


def trained(layer=None, task=None, batches=None, verb=lambda trainer: trainer, **options):
    batches = pipe(data.arrays(**columns()), data.batch(8)) if batches is None else batches
    trainer = pipe(fp.trainer(layer or model(), task or fp.classification()), fp.with_optimizer(optim.sgd(0.1)))
    return pipe(trainer, verb, fp.fit(batches, epochs=2, quiet=True, **options))


def wrong_shape(folder):
    trained(model(fed=9))


def wrong_dtype(folder):
    given = columns()
    trained(batches=pipe(data.arrays(x=given["x"], y=given["y"].astype(mx.float32)), data.batch(8)))


def missing_column(folder):
    trained(batches=pipe(data.arrays(x=columns()["x"]), data.batch(8)))


def nan_loss(folder):
    trained(task=lambda model, x, y: model(x).mean() * mx.nan)


def hook_raises(folder):
    def broken(event):
        raise KeyError("x")

    trained(verb=fp.on("after_step", broken))


def metric_raises(folder):
    def update(memory, output, x, y):
        return memory + output @ x

    metric = fp.Metric("mine", lambda: mx.array(0.0), update, lambda memory: memory)
    trained(task=fp.classification(metrics=[metric]))


def bad_option(folder):
    trained(epoch=3)


def not_batched(folder):
    trained(batches=data.arrays(**columns()))


def vector_loss(folder):
    trained(task=lambda model, x, y: nn.losses.cross_entropy(model(x), y))


def all_frozen(folder):
    trained(nn.freeze(fp.everything)(model()))


def unknown_path(folder):
    trained(nn.freeze("layers.9")(model()))


def other_checkpoint(folder):
    files = fp.checkpoints(folder / "step-{step}")
    trained(verb=files)
    trained(model(16), verb=files, resume="latest")


MISTAKES = [
    *(wrong_shape, wrong_dtype, missing_column, nan_loss, hook_raises, metric_raises),
    *(bad_option, not_batched, vector_loss, all_frozen, unknown_path, other_checkpoint),
]


def text_of(mistake, folder):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (the class is that of each mistake)
        mistake(folder)
    return caught.value, "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_traceback_of_a_usual_mistake_is_short(mistake, tmp_path):
    error, text = text_of(mistake, tmp_path)
    assert len(text.splitlines()) <= LINES, text
    frames = traceback.extract_tb(error.__traceback__)
    assert sum(frame.filename.startswith(PACKAGE) for frame in frames) <= 3, text
    assert mistake.__name__ in [frame.name for frame in frames]


def test_frames_of_functions_of_a_user_stay(tmp_path):
    assert "in broken" in text_of(hook_raises, tmp_path)[1]
    assert "in update" in text_of(metric_raises, tmp_path)[1]


def test_the_notes_say_where(tmp_path):
    error, _ = text_of(wrong_shape, tmp_path)
    assert error.__notes__ == ["in layers.2 (Linear)", "at split=train, epoch=0, batch=0, stage=step"]


def test_the_variable_shows_all_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_FP_TRACEBACK", "full")
    assert len(text_of(wrong_shape, tmp_path)[1].splitlines()) > 3 * LINES


def _callers():
    step = fp.train_step(model(fed=9), fp.classification().loss, optim.sgd(0.1))
    params, state = step.init(0)
    batch, stream = columns(), [columns()]
    trainer = fp.trainer(model(fed=9), fp.classification())
    return {
        "train_step": lambda: step(params, state, batch),
        "accumulate": lambda: step.accumulate(params, state, [batch, batch]),
        "eval_step": lambda: fp.eval_step(model(fed=9), fp.classification().loss)(params, {}, batch),
        "events": lambda: list(fp.events(stream)(trainer)),
        "evaluate": lambda: fp.evaluate(stream, params=params)(trainer),
        "predict": lambda: fp.predict(stream)(model(fed=9), params),
    }


@pytest.mark.parametrize("name", ["train_step", "accumulate", "eval_step", "events", "evaluate", "predict"])
def test_every_way_into_a_step_has_a_short_traceback(name):
    with pytest.raises(ValueError, match="addmm") as caught:
        _callers()[name]()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert sum(frame.filename.startswith(PACKAGE) for frame in frames) <= 2
