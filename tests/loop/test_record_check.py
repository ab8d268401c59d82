"""Metadata that no run has written are a CheckpointError that names the field, though the digest is right."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from helpers import assert_same_bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._errors import CheckpointError
from mlx_fp.loop._plan import plan
from mlx_fp.loop._record import resume_state
from mlx_fp.loop._starting import start_run
from mlx_fp.store._checkpoint import Checkpoint

X = mx.random.normal((24, 3), key=mx.random.key(0))
TRAIN = pipe(data.arrays(x=X, y=(X[:, 0] > 0).astype(mx.int32)), data.batch(8))
GONE = object()
NESTED = {"a": [{"b": [1, {"c": 2}]}]}
ODD = [GONE, None, -1, 10**30, 2**63, 1.5, float("nan"), float("inf"), True, "x", "", [], [1, 2, 3], {}, {"x": 1}, [{}]]
ODD += [mx.array([1.0, 2.0]), mx.array(3), (1,), NESTED, {1: 2}]


def trainer(*verbs):
    counting = fp.fold("after_step", 0, lambda count, event: (count + 1, None), name="count")
    target = fp.trainer(nn.sequential(nn.linear(3, 4), nn.linear(4, 2)), fp.classification())
    return pipe(target, fp.with_optimizer(optim.adam(0.01)), fp.early_stop(9), fp.with_hooks(counting), *verbs)


OPTIONS = {"validation": TRAIN, "keep_best": True, "accumulate": 2, "epochs": 3}


def fit(target, **options):
    return pipe(target, fp.fit(TRAIN, quiet=True, **{**OPTIONS, **options}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of a run: within an epoch, and at the end of one."""
    folder = tmp_path_factory.mktemp("saved")
    fit(trainer(fp.checkpoints(folder / "{step}-{next_epoch}", every_steps=1)), epochs=2)
    return [fp.load(path) for path in (folder / "1-0", folder / "4-2")]


def places(tree, place=()):
    """Yield the place of each part of a tree; of a list the first item stands for all."""
    if place:
        yield place
    parts = tree.items() if isinstance(tree, dict) else list(enumerate(tree))[:1] if isinstance(tree, list) else ()
    for name, part in parts:
        yield from places(part, (*place, name))


def put(tree, place, value):
    """Return a tree with another value, or none, at a place."""
    name, *rest = place
    made = list(tree) if isinstance(tree, list) else dict(tree)
    if not rest and value is GONE:
        del made[name]
    else:
        made[name] = put(made[name], rest, value) if rest else value
    return made


def variants(metadata):
    for place in places(dict(metadata)):
        if "memory" not in place and place[0] != "best_params":  # a hook's own, and a tree of arrays
            for value in ODD:
                yield place, value, put(metadata, place, value)


def test_metadata_of_any_kind_are_refused_or_go_on(saved):
    refused, gone_on, wrong = 0, 0, []
    with start_run(trainer(), plan(TRAIN, (), OPTIONS)) as (loop, start, _):
        for found in saved:
            for place, value, metadata in variants(found.metadata):
                try:
                    resume_state(loop, start, Checkpoint(found.params, found.opt_state, metadata, found.path))
                    gone_on += 1
                except CheckpointError as error:
                    refused += str(found.path) in str(error)
                except Exception as error:
                    wrong.append((place, value, repr(error)))
    assert wrong == []
    assert refused > 1_000
    assert gone_on > 100


FAULTS = {
    "a negative step": (("step",), -1, "'step' is -1, and not a count"),
    "a step that is gone": (("step",), GONE, "holds parameters|there is no 'step'"),
    "a text in a row": (("rows", 0, "epoch"), "x", "'rows.0.epoch' is 'x', and not a count"),
    "a field that is gone": (("rows", 0, "seconds"), GONE, "there is no 'rows.0.seconds'"),
    "a cursor of another epoch": (("cursor", "epoch"), 7, "'next_epoch' is 2, after epoch 1, with cursor"),
    "sums of other batches": (("sums", "batches"), 3, "its sums are of 0 steps on 3 batches"),
    "losses of more steps": (("losses",), mx.zeros((9,)), "there are 9 losses of 4 steps"),
    "best parameters of another model": (("best_params",), {"w": mx.array(1)}, "holds other best parameters"),
    "a best that is no tree": (("best_params",), 3, "holds other best parameters"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_field_that_is_wrong_is_named(name, saved, tmp_path):
    place, value, words = FAULTS[name]
    found = saved[1]
    path = tmp_path / "a.safetensors"
    fp.save(path, opt_state=found.opt_state, metadata=put(found.metadata, place, value))(found.params)
    with pytest.raises(CheckpointError, match=words):
        fit(trainer(), resume=path)


def test_a_run_of_odd_metadata_is_no_reason_to_start_anew(saved, tmp_path):
    found, target = saved[1], trainer(fp.checkpoints(tmp_path / "ep-{epoch}"))
    path = tmp_path / "ep-1.safetensors"
    fp.save(path, opt_state=found.opt_state, metadata=put(found.metadata, ("epoch",), 1.5))(found.params)
    with pytest.raises(CheckpointError, match="no latest checkpoint in .* can be read: ep-1.safetensors"):
        fit(target, resume="latest")


@pytest.mark.parametrize("tree", ["params", "opt_state"])
def test_a_tree_of_other_things_than_arrays_is_refused(tree, saved):
    for odd in (3, None, {"layers": 1.5}, [[]]):
        with pytest.raises(CheckpointError, match="holds other|nothing of a run"):
            fit(trainer(), resume=replace(saved[1], **{tree: odd}))


@pytest.mark.parametrize("marks", [GONE, None, 3, {}, {"layers.0.weight": "x"}])
@pytest.mark.usual("None", "3", "marks3", "marks4")
def test_frozen_weights_without_their_numbers_are_refused(marks, tmp_path):
    target = fp.trainer(nn.freeze("layers.0")(nn.sequential(nn.linear(3, 4), nn.linear(4, 2))), fp.classification())
    kept = fp.checkpoints(tmp_path / "a", trainable_only=True)
    found = fp.load(fit(pipe(target, kept), epochs=1).checkpoints[-1])
    with pytest.raises(CheckpointError, match="leaves frozen weights out, and this run has none or others at"):
        fit(target, resume=replace(found, metadata=put(found.metadata, ("frozen",), marks)))


def test_what_a_run_has_written_goes_on(saved):
    alone = fit(trainer())
    for found in saved:
        assert_same_bits(fit(trainer(), resume=found).params, alone.params)
