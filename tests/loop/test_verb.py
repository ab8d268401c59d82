"""Verbs of a trainer are records: they print as they were written, and go through pickle."""

from __future__ import annotations

import math
import pickle

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import metrics, nn, optim

PLAIN = fp.trainer(nn.sequential(body=nn.linear(4, 3), head=nn.linear(3, 2)), fp.classification())
PRESETS = fp.Registry("preset").add("slow", fp.with_optimizer(optim.sgd(1e-4)))


def watch(event):
    """A function that pickle finds by its name."""


def a_step(*args, **options):
    return fp.train_step(*args, **options)


WRITTEN = [
    (fp.early_stop(patience=3), "early_stop(patience=3)"),
    (fp.stop_on_divergence(every=2, above=100.0), "stop_on_divergence(every=2, above=100.0)"),
    (fp.stop_on_divergence(above=math.inf), "stop_on_divergence()"),
    (fp.plateau(0.5, patience=2), "plateau(0.5, patience=2)"),
    (fp.monitor("val_loss", min_delta=0.1), "monitor('val_loss', min_delta=0.1)"),
    (
        fp.checkpoints("runs/ep-{epoch}", best=True, keep_last=3),
        "checkpoints('runs/ep-{epoch}', best=True, keep_last=3)",
    ),
    (fp.on("after_epoch", watch, every=2), "on('after_epoch', watch, every=2)"),
    (fp.with_hooks(fp.hook("after_epoch", watch)), "with_hooks(on('after_epoch', watch))"),
    (fp.with_metrics(), "with_metrics()"),
    (fp.with_step(a_step), "with_step(a_step)"),
    (fp.with_options(epochs=3, accumulate=2), "with_options(epochs=3, accumulate=2)"),
    (fp.with_options(seed=mx.random.key(1)), "with_options(seed=array(…))"),
    (fp.with_options(params={"w": mx.zeros((2,))}), "with_options(params={'w': array(…)})"),
    (fp.with_named(PRESETS, "slow"), "with_named(Registry('preset': slow), 'slow')"),
]


@pytest.mark.parametrize(("verb", "text"), WRITTEN, ids=[text for _, text in WRITTEN])
def test_a_verb_prints_as_it_was_written(verb, text):
    assert repr(verb) == text


def test_a_verb_shows_optimisers_and_metrics_as_they_print():
    optimizer, metric = optim.sgd(0.1), metrics.top_k(2)
    assert repr(fp.with_optimizer(optimizer)) == f"with_optimizer({optimizer!r})"
    assert repr(fp.with_metrics(metric)).startswith("with_metrics(")
    assert "top_2" in repr(fp.with_metrics(metric))


@pytest.mark.parametrize("verb", [verb for verb, _ in WRITTEN[:-4]], ids=[text for _, text in WRITTEN[:-4]])
def test_a_verb_goes_through_pickle(verb):
    again = pickle.loads(pickle.dumps(verb))
    assert repr(again) == repr(verb)
    assert repr(again(PLAIN)) == repr(verb(PLAIN))


def test_a_verb_with_a_lambda_says_which_part_pickle_cannot_take():
    with pytest.raises(pickle.PicklingError, match="TrainerVerb.*hooks.*<lambda>, which pickle"):
        pickle.dumps(fp.on("after_epoch", lambda event: None))


@pytest.mark.parametrize("verb", [verb for verb, _ in WRITTEN], ids=[text for _, text in WRITTEN])
def test_a_verb_takes_nothing_but_a_trainer(verb):
    with pytest.raises(TypeError, match=rf"^{verb.name} takes a trainer; got int"):
        verb(7)


# the repr of a trainer


def test_a_trainer_shows_what_it_is_made_of():
    made = pipe(
        PLAIN,
        fp.freeze("body"),
        fp.early_stop(patience=3),
        fp.on("after_epoch", watch),
        fp.monitor("val_loss"),
        fp.checkpoints("runs/ep-{epoch}"),
        fp.with_step(a_step),
        fp.with_options(epochs=3),
    )
    lines = repr(made).splitlines()
    assert lines[:2] == ["trainer", "  model: sequential"]
    assert lines[4:] == [
        "  task: classification(accuracy)",
        f"  optimizer: {made.optimizer!r}",
        "  frozen: body.weight, body.bias",
        "  hooks: on('after_evaluation', early_stop(3)), on('after_epoch', watch)",
        "  monitor: val_loss",
        "  checkpoints: runs/ep-{epoch}",
        "  step: a_step",
        "  options: epochs",
    ]


def test_a_trainer_shows_frozen_weights_and_no_buffers():
    model = nn.sequential(*(pipe(nn.linear(2, 2), nn.freeze()) for _ in range(4)), nn.batch_norm(2))
    shown = repr(fp.trainer(model, fp.classification()))
    assert "frozen: layers.0.weight, layers.0.bias, " in shown
    assert shown.count("running") == 0
    assert "layers.2.bias and 2 more" in shown
    assert "frozen: none" in repr(PLAIN)
