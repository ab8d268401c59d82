"""Immutable tables whose entries extend each other."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import mlx.core as mx
import pytest
from toolz import compose_left, pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._registry import Registry


def add_a(word):
    return word + "a"


def add_b(word):
    return word + "b"


def add_c(word):
    return word + "c"


# a table


def test_add_returns_another_registry_and_leaves_this_one_alone():
    empty = Registry("preset")
    one = empty.add("a", len)
    two = one.add("b", abs)
    assert [list(registry) for registry in (empty, one, two)] == [[], ["a"], ["a", "b"]]
    assert (len(two), "b" in two, "b" in one, two["a"]) == (2, True, False, len)


def test_a_name_added_again_is_replaced_in_the_new_registry_only():
    one = Registry("preset").add("a", len)
    two = one.add("a", abs)
    assert (one["a"], two["a"], list(two)) == (len, abs, ["a"])


def test_a_registry_is_frozen():
    registry = Registry("preset")
    with pytest.raises(FrozenInstanceError):
        registry.kind = "other"
    with pytest.raises(TypeError):
        registry["a"] = len


def test_what_is_handed_in_or_out_may_be_changed_without_changing_the_registry():
    spec = {"x": 1}
    registry = Registry("collate").add("a", spec).add("b", {"y": 2}, extends="a")
    spec["x"] = 9
    registry["a"]["x"] = 9
    registry["b"]["x"] = 9
    assert (registry["a"], registry["b"]) == ({"x": 1}, {"x": 1, "y": 2})


def test_what_lies_in_lists_and_dicts_is_the_registrys_own_too():
    given = {"keys": ["x", {"as": "image"}]}
    table = Registry("collate").add("a", given).add("b", ["one"])
    given["keys"][1]["as"] = "other"
    table["a"]["keys"].append("y")
    table["b"].append("two")
    assert (table["a"], table["b"]) == ({"keys": ["x", {"as": "image"}]}, ["one"])


def test_repr_names_the_entries():
    assert repr(Registry("pack")) == "Registry('pack': empty)"
    assert repr(Registry("pack").add("a", len).add("b", abs)) == "Registry('pack': a, b)"


def test_an_unknown_name_comes_back_with_candidates():
    registry = Registry("preset").add("quick", len).add("careful", len)
    with pytest.raises(KeyError, match="unknown preset 'quik': did you mean 'quick'.*known: quick, careful"):
        registry["quik"]


@pytest.mark.parametrize("value", [3, "text", None, (1, 2)], ids=repr)
def test_any_value_may_be_an_entry_of_its_own(value):
    assert Registry("thing").add("a", value)["a"] == value


# bases


def test_dicts_are_merged_bases_first_and_the_own_keys_last():
    registry = (
        Registry("collate")
        .add("one", {"a": 1, "b": 1, "c": 1})
        .add("two", {"b": 2, "c": 2})
        .add("three", {"c": 3}, extends=("one", "two"))
        .add("swapped", {"c": 3}, extends=["two", "one"])
    )
    assert registry["three"] == {"a": 1, "b": 2, "c": 3}
    assert registry["swapped"] == {"a": 1, "b": 1, "c": 3}


def test_functions_are_composed_bases_first_and_the_own_one_last():
    registry = Registry("flow").add("a", add_a).add("b", add_b).add("c", add_c, extends=("b", "a"))
    assert registry["c"]("") == "bac"


def test_bases_have_bases():
    registry = Registry("flow").add("a", add_a).add("b", add_b, extends="a").add("c", add_c, extends="b")
    assert registry["c"]("") == "abc"


def test_an_entry_follows_a_base_that_is_replaced():
    registry = Registry("flow").add("a", add_a).add("b", add_b, extends="a")
    assert registry.add("a", add_c)["b"]("") == "cb"
    assert registry["b"]("") == "ab"


def test_an_unknown_base_is_refused_with_candidates():
    with pytest.raises(ValueError, match="unknown base of flow 'b', 'aa': did you mean 'a'.*known: a"):
        Registry("flow").add("a", add_a).add("b", add_b, extends=("a", "aa"))


def test_bases_in_a_circle_are_refused_and_named():
    with pytest.raises(ValueError, match="the flow 'a' extends itself: a -> a"):
        Registry("flow").add("a", add_a, extends="a")
    registry = Registry("flow").add("a", add_a).add("b", add_b, extends="a").add("c", add_c, extends="b")
    with pytest.raises(ValueError, match="the flow 'a' extends itself: a -> c -> b -> a"):
        registry.add("a", add_a, extends="c")
    assert registry["c"]("") == "abc"


@pytest.mark.parametrize(
    ("base", "spec", "kinds"),
    [
        ({"x": 1}, add_a, "dict, function"),
        (add_a, {"x": 1}, "function, dict"),
        (3, 4, "int, int"),
        (3, {}, "int, dict"),
    ],
    ids=repr,
)
def test_what_cannot_be_joined_is_refused_when_added(base, spec, kinds):
    registry = Registry("preset").add("a", base)
    message = f"the preset 'b' and its bases must be all dicts or all functions, to be joined; they are {kinds}"
    with pytest.raises(TypeError, match=message):
        registry.add("b", spec, extends="a")


# dataflows, through the compiled step

X = mx.random.normal((96, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
FLOWS = (
    Registry("dataflow")
    .add("scaled", compose_left(data.batch(16), data.map(lambda batch: {**batch, "x": batch["x"] * 0.5})))
    .add("shuffled", data.shuffle(seed=1))
    .add("train", data.map(lambda batch, kind: {**batch, "x": -batch["x"]}), extends=("shuffled", "scaled"))
    .add("validation", data.take(2), extends="scaled")
)


def test_a_dataflow_is_its_bases_and_itself_in_one_pipe():
    rows = data.arrays(x=X, y=Y)
    assert repr(FLOWS["train"](rows)).endswith("shuffle(seed=1), batch(16), map(<lambda>), map(<lambda>))")
    assert repr(FLOWS["validation"](rows)).endswith("y=(96,)), batch(16), map(<lambda>), take(2))")


def test_dataflows_feed_training_and_validation():
    plan = data.splits(
        train=(data.arrays(x=X[:64], y=Y[:64]), FLOWS["train"]),
        validation=(data.arrays(x=X[64:], y=Y[64:]), FLOWS["validation"]),
    )
    batch = next(iter(plan.validation))
    assert mx.array_equal(batch["x"], X[64:80] * 0.5).item()
    report = pipe(
        fp.trainer(nn.linear(4, 2), fp.classification()),
        fp.with_optimizer(optim.adam(0.1)),
        fp.fit(plan.train, validation=plan.validation, epochs=5, quiet=True),
    )
    assert (report.rows[-1].batches, report.rows[-1].validation_batches) == (4, 2)
    assert report.rows[-1].epoch_loss < report.rows[0].epoch_loss


def test_presets_of_a_trainer_extend_each_other():
    calls = []
    presets = (
        Registry("preset")
        .add("adam", fp.with_optimizer(optim.adam(0.1)))
        .add("watched", fp.on("after_epoch", lambda e: calls.append(e.epoch)), extends="adam")
    )
    trainer = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), presets["watched"])
    pipe(trainer, fp.fit(pipe(data.arrays(x=X, y=Y), data.batch(32)), epochs=2, quiet=True))
    assert (calls, trainer.optimizer.name) == ([0, 1], optim.adam(0.1).name)


def test_a_base_that_two_bases_share_comes_once():
    flows = Registry("flow").add("a", lambda s: s + "a").add("b", lambda s: s + "b", extends="a")
    flows = flows.add("c", lambda s: s + "c", extends="a").add("d", lambda s: s + "d", extends=("b", "c"))
    assert flows["d"]("") == "abcd"
    specs = Registry("spec").add("a", {"x": 1}).add("b", {"x": 2}, extends="a").add("c", {"y": 3}, extends="a")
    assert specs.add("d", {}, extends=("b", "c"))["d"] == {"x": 2, "y": 3}


def test_another_entry_of_a_name_must_fit_those_that_extend_it():
    flows = Registry("flow").add("a", {"x": 1}).add("b", {"y": 2}, extends="a")
    with pytest.raises(TypeError, match="the flow 'b' and its bases must be all dicts or all functions"):
        flows.add("a", len)
