"""The mappings of records are read-only, and copies of them are plain."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn
from mlx_fp.core._frozen import FrozenDict
from mlx_fp.loop._event_table import EVENTS

X = mx.random.normal((16, 3), key=mx.random.key(0))
TRAIN = pipe(data.arrays(x=X, y=X.sum(axis=1)), data.batch(4))

CHANGES = {
    "set": lambda mapping: mapping.__setitem__("a", 1),
    "delete": lambda mapping: mapping.__delitem__("a"),
    "clear": lambda mapping: mapping.clear(),
    "pop": lambda mapping: mapping.pop("a"),
    "popitem": lambda mapping: mapping.popitem(),
    "update": lambda mapping: mapping.update(a=1),
    "setdefault": lambda mapping: mapping.setdefault("b", 1),
    "or": lambda mapping: mapping.__ior__({"a": 1}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_frozen_dict_refuses_every_change(change):
    inner = FrozenDict({"a": {"a": 0}})
    for mapping in (inner, inner["a"]):
        with pytest.raises(TypeError, match="read-only; change a copy"):
            CHANGES[change](mapping)
    assert inner == {"a": {"a": 0}}


def test_copies_json_and_pickles_are_those_of_a_dict():
    frozen = FrozenDict({"a": {"b": [1]}})
    assert json.loads(json.dumps(frozen)) == frozen == copy.deepcopy(frozen) == pickle.loads(pickle.dumps(frozen))
    plain = dict(frozen)
    plain["c"] = 1
    assert "c" not in frozen


def records():
    """Every mapping that a user can reach in a record."""
    seen = []
    trainer = pipe(
        fp.trainer(nn.linear(3, 1), fp.regression()),
        fp.checkpoints(seen_folder() / "ep-{epoch}"),
        fp.on("after_validation", lambda event: seen.append(event.val_metrics)),
    )
    report = fp.fit(TRAIN, validation=TRAIN, quiet=True)(trainer)
    plain = fp.experiment("e", model=nn.linear(3, 1), task=fp.regression(), data=TRAIN)
    found = fp.sweep({"seed": [1]}, quiet=True)(plain)
    return {
        "options": fp.override({"optimizer.learning_rate": 0.1})(plain).options,
        "trial": found.trials[0].settings,
        "metrics": report.rows[0].metrics,
        "val_metrics": report.rows[0].val_metrics,
        "event": seen[0],
        "policy": report.policy,
        "events": EVENTS,
        "summary": nn.summary(nn.linear(3, 1)).rows[0].shapes,
        "metadata": fp.load(report.checkpoints[0]).metadata,
        "collate": fp.regression(collate={"x": 0, "y": 1}).collate,
        "registry": fp.Registry("r").add("a", 1)._entries,
    }


def seen_folder():
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp())


def test_every_mapping_of_a_record_is_read_only():
    for name, mapping in records().items():
        with pytest.raises((TypeError, AttributeError)):
            mapping["another"] = 1
        assert "another" not in mapping, name


def test_a_row_is_still_a_dict_of_plain_values():
    report = fp.fit(TRAIN, validation=TRAIN, quiet=True)(fp.trainer(nn.linear(3, 1), fp.regression()))
    assert json.loads(json.dumps(asdict(report.rows[0])))["metrics"].keys() == {"mse", "mae", "r2"}
    assert json.loads(report.to_json())["rows"][0]["mse"] == report.rows[0].mse
