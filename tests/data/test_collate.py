"""Batches shaped for a loss: by selectors, by functions, by the names of the loss's own parameters."""

from __future__ import annotations

from collections import namedtuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import cross_entropy
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core._registry import Registry
from mlx_fp.data import Cursor

Pair = namedtuple("Pair", "image label")
ROW = {"image": [1, 2], "meta": {"label": 3, "names": ("a", "b")}}


def shaped(operation, *batches, epoch=0, index=0, kind="train"):
    return list(operation(data.source(batches)).open(Cursor(epoch, index), kind=kind))


# collate by name


@pytest.mark.parametrize("batch", [{"a": 1}, (1, 2), [1, 2], 5], ids=repr)
def test_x_is_the_batch_itself(batch):
    assert shaped(data.collate("x"), batch) == [{"x": batch}]


@pytest.mark.parametrize("batch", [(1, 2), [1, 2], Pair(1, 2), (1, 2, "more")], ids=repr)
def test_xy_is_a_pair(batch):
    assert shaped(data.collate("xy"), batch) == [{"x": 1, "y": 2}]


@pytest.mark.parametrize("batch", [{"x": 1, "y": 2}, (1,), 5], ids=repr)
def test_what_is_no_pair_is_no_xy(batch):
    with pytest.raises(ValueError, match="collate finds no [01] for '[xy]'"):
        shaped(data.collate("xy"), batch)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ({"y": 2, "x": 1}, {"y": 2, "x": 1}),
        ({"x": 1, "y": 2, "mask": 3}, {"x": 1, "y": 2, "mask": 3}),
        ((1, 2), {"x": 1, "y": 2}),
        ([1, 2], {"x": 1, "y": 2}),
        (Pair(1, 2), {"x": 1, "y": 2}),
        (5, {"x": 5}),
        ("text", {"x": "text"}),
    ],
    ids=repr,
)
def test_auto_takes_a_dict_with_x_and_y_a_pair_or_one_value(batch, expected):
    assert shaped(data.collate("auto"), batch) == [expected]


@pytest.mark.parametrize(
    ("batch", "told"), [({"x": 1, "target": 2}, r"\{x: int, target: int\}"), ((1, 2, 3), r"\(int, int, int\)")]
)
def test_auto_says_what_it_cannot_take(batch, told):
    with pytest.raises(ValueError, match=r"takes a dict with x and y, a pair or one value; got " + told):
        shaped(data.collate("auto"), batch)


def test_auto_takes_an_array_for_one_value_however_long():
    (batch,) = shaped(data.collate("auto"), mx.zeros((2, 3)))
    assert batch["x"].shape == (2, 3)


def test_an_unknown_name_comes_back_with_candidates():
    with pytest.raises(ValueError, match="unknown collate 'yx': .*known: x, xy, auto"):
        data.collate("yx")


@pytest.mark.parametrize("spec", [None, 3, ["x", "y"]], ids=repr)
def test_what_is_no_spec_is_refused_when_built(spec):
    with pytest.raises(TypeError, match="collate takes a name, a dict of selectors or a function; got"):
        data.collate(spec)


# collate by selectors


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("image", [1, 2]),
        (("image",), [1, 2]),
        (("meta", "label"), 3),
        (("meta", "names", -1), "b"),
        ((), ROW),
        (lambda batch: batch["image"][0], 1),
        (len, 2),
    ],
    ids=["key", "path of one", "path", "path with an index", "everything", "function", "builtin"],
)
@pytest.mark.parametrize("shape", [data.collate, data.bind], ids=lambda f: f.__name__)
def test_a_selector_is_a_key_an_index_a_path_or_a_function(shape, selector, expected):
    assert shaped(shape({"x": selector, "y": ("meta", "label")}), ROW) == [{"x": expected, "y": 3}]


def test_an_index_selects_from_a_pair():
    assert shaped(data.collate({"x": 1, "y": (0, "a")}), ({"a": 5}, 6)) == [{"x": 6, "y": 5}]


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("picture", r"collate finds no 'picture' for 'x': the batch is \{image: list of 2, meta: \{label: int"),
        (
            ("meta", "size"),
            r"collate finds no 'size' for 'x' in \{label: int, names: \(str of 1, .*\)\}: the batch",
        ),
        (("meta", "names", 2), r"collate finds no 2 for 'x' in \(str of 1, str of 1\): the batch"),
        (("meta", "label", "deep"), r"collate finds no 'deep' for 'x' in int: the batch"),
        (0, r"collate finds no 0 for 'x': the batch is"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_there_is(selector, message):
    with pytest.raises(ValueError, match=message) as error:
        shaped(data.collate({"x": selector}), ROW, ROW, epoch=2, index=1)
    assert error.value.__notes__ == [f"at operation=collate({{'x': {selector!r}}}), split=train, epoch=2, index=1"]


@pytest.mark.parametrize("selector", [None, 1.5, ("meta", None), ["meta", "label"]], ids=repr)
@pytest.mark.parametrize("shape", [data.collate, data.bind], ids=lambda f: f.__name__)
def test_what_is_no_selector_is_refused_when_built(shape, selector):
    with pytest.raises(TypeError, match="a selector of 'x' is a key, an index, a path or a function; got"):
        shape({"x": selector})


# functions, and what they see


def by_position(batch, epoch, index, kind):
    return [batch, epoch, index, kind]


def by_keyword(*, kind, batch, index, epoch):
    return [batch, epoch, index, kind]


def mixed(item, index, *, kind, epoch=9):
    return [item, epoch, index, kind]


def by_rest(item, **rest):
    return [item, rest["epoch"], rest["index"], rest["kind"]]


def batch_by_rest(batch, **rest):
    return [batch, rest["epoch"], rest["index"], rest["kind"]]


FUNCTIONS = [by_position, by_keyword, mixed, by_rest, batch_by_rest]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_function_gets_the_batch_and_the_context_that_it_names(function):
    expected = ["b", 4, 1, "validation"]
    place = {"epoch": 4, "index": 1, "kind": "validation"}
    assert shaped(data.collate(function), "a", "b", **place) == [expected]
    assert shaped(data.collate({"x": function}), "a", "b", **place) == [{"x": expected}]


def test_a_function_keeps_the_defaults_of_what_is_not_on_offer():
    assert shaped(data.collate(lambda batch, scale=3: batch * scale), 2) == [6]


def test_each_selector_counts_for_itself():
    counts = data.collate({"a": lambda batch, index: index, "b": lambda batch, index: index})
    assert shaped(counts, "x", "y") == [{"a": 0, "b": 0}, {"a": 1, "b": 1}]


@pytest.mark.parametrize("spec", [lambda batch, step: 0, {"x": lambda batch, step: 0}], ids=["whole", "selector"])
def test_a_function_that_wants_more_is_refused_when_built(spec):
    with pytest.raises(TypeError, match="collate function '<lambda>' requires 'step', which is not on offer"):
        data.collate(spec)


def test_an_error_of_a_function_keeps_its_class_and_says_which_batch():
    def fragile(batch):
        return {"x": 1 // batch}

    with pytest.raises(ZeroDivisionError) as error:
        shaped(data.collate(fragile), 1, 0, epoch=3)
    assert error.value.__notes__ == ["at operation=collate(fragile), split=train, epoch=3, index=1"]


def test_collate_and_bind_read_like_their_call_and_keep_len():
    dataset = pipe(data.source("ab"), data.collate("x"), data.collate({"x": "x"}), data.bind({"y": "x"}))
    assert repr(dataset) == "pipe(source(str of 2), collate('x'), collate({'x': 'x'}), bind({'y': 'x'}))"
    assert len(dataset) == 2


# bind to a loss


@pytest.mark.parametrize(
    ("loss", "batch", "expected"),
    [
        (lambda model, x, y: 0, {"y": 2, "x": 1}, {"x": 1, "y": 2}),
        (lambda model, tokens, targets: 0, {"input": 1, "label": 2}, {"tokens": 1, "targets": 2}),
        (lambda model, inputs, labels: 0, {"features": 1, "y": 2}, {"inputs": 1, "labels": 2}),
        (lambda model, feature, target: 0, {"x": 1, "labels": 2, "name": "a"}, {"feature": 1, "target": 2}),
        (lambda model, token, label: 0, {"tokens": 1, "target": 2}, {"token": 1, "label": 2}),
        (lambda model, *, y, x: 0, {"inputs": 1, "targets": 2}, {"y": 2, "x": 1}),
        (lambda model, mask, x: 0, {"mask": 0, "x": 1, "y": 2}, {"mask": 0, "x": 1}),
    ],
)
def test_a_parameter_takes_its_own_name_or_an_alias(loss, batch, expected):
    assert shaped(data.bind(loss), batch) == [expected]


def test_the_exact_name_wins_over_aliases():
    batch = {"features": 1, "x": 2, "inputs": 3, "y": 4}
    assert shaped(data.bind(lambda model, inputs, y: 0), batch) == [{"inputs": 3, "y": 4}]
    assert shaped(data.bind(lambda model, x, y: 0), batch) == [{"x": 2, "y": 4}]


def test_a_key_that_is_another_parameter_is_no_alias():
    batch = {"tokens": 1, "features": 2}
    assert shaped(data.bind(lambda model, tokens, x: 0), batch) == [{"tokens": 1, "x": 2}]


@pytest.mark.parametrize("batch", [(1, 2), [1, 2], Pair(1, 2)], ids=repr)
def test_pairs_are_bound_by_position(batch):
    assert shaped(data.bind(lambda model, images, classes: 0), batch) == [{"images": 1, "classes": 2}]
    assert shaped(data.bind(lambda model, images: 0), 5) == [{"images": 5}]


def test_what_has_a_default_need_not_be_filled():
    def loss(model, x, y, weights=None, *, smoothing=0.1): ...

    assert shaped(data.bind(loss), {"x": 1, "y": 2}) == [{"x": 1, "y": 2}]
    assert shaped(data.bind(loss), {"x": 1, "y": 2, "weights": 3}) == [{"x": 1, "y": 2, "weights": 3}]
    assert shaped(data.bind(loss), (1, 2), (1, 2, 3)) == [{"x": 1, "y": 2}, {"x": 1, "y": 2, "weights": 3}]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": 1}, r"bind: no key fills 'y' of 'cross_entropy'; the batch is \{x: int\}"),
        ({"X": 1, "y": 2}, r"bind: no key fills 'x' of 'cross_entropy'; the batch is \{X: int, y: int\}"),
        (
            {"input": [1, 2], "features": 2, "y": 3},
            r"both 'input' and 'features' fill 'x' of 'cross_entropy'; the batch is \{input: list of 2, features: int",
        ),
        ((1, 2, 3), r"bind: 'cross_entropy' takes \(x, y\); the batch is \(int, int, int\)"),
        (5, r"bind: 'cross_entropy' takes \(x, y\); the batch is int"),
    ],
)
def test_names_that_nothing_or_two_keys_fill_are_told_with_the_batch(batch, message):
    with pytest.raises(ValueError, match=message) as error:
        shaped(data.bind(cross_entropy), batch, epoch=1)
    assert error.value.__notes__ == ["at operation=bind(cross_entropy), split=train, epoch=1, index=0"]


def test_a_path_of_bind_that_leads_nowhere_says_so_in_its_own_name():
    with pytest.raises(ValueError, match=r"bind finds no 'target' for 'y': the batch is \{input: \{x: int\}\}"):
        shaped(data.bind({"x": ("input", "x"), "y": ("target", 0)}), {"input": {"x": 1}})


def test_what_cannot_be_bound_to_is_refused_when_built():
    with pytest.raises(TypeError, match="bind takes a loss or a dict of paths; got 'xy'"):
        data.bind("xy")
    with pytest.raises(TypeError, match="bind takes a loss with parameters .* after the model; '<lambda>' has none"):
        data.bind(lambda model, *batch: 0)


def test_an_explicit_collate_before_bind_wins():
    batch = {"x": 1, "y": 2, "other": 3}
    chosen = data.collate({"x": "other", "y": "y"})
    assert pipe(data.source([batch]), chosen, data.bind(cross_entropy), list) == [{"x": 3, "y": 2}]


# a registry of collates


def test_an_entry_of_a_registry_is_a_spec_and_bases_come_first():
    collates = (
        Registry("collate")
        .add("image", {"x": "image", "size": lambda batch: len(batch["image"])})
        .add("labelled", {"y": ("meta", "label")}, extends="image")
        .add("tall", {"size": lambda batch, epoch: epoch}, extends=("labelled",))
    )
    assert shaped(data.collate(collates["labelled"]), ROW, epoch=7) == [{"x": [1, 2], "size": 2, "y": 3}]
    assert shaped(data.collate(collates["tall"]), ROW, epoch=7) == [{"x": [1, 2], "size": 7, "y": 3}]


# through the compiled step

X = mx.random.normal((48, 4), key=mx.random.key(1))
LABELS = (X[:, 0] > 0).astype(mx.int32)
ROWS = [
    {"input": {"x": np.array(row)}, "target": (int(label),), "name": "n"} for row, label in zip(X, LABELS, strict=True)
]
MODEL = nn.sequential(nn.linear(4, 8), nn.relu, nn.linear(8, 2))


def aliased(model, tokens, targets):
    return cross_entropy(model, tokens, targets)


def trained(dataset, loss=cross_entropy, epochs=10):
    """The losses of the first and the last step of a compiled step, which is traced once."""
    step = fp.train_step(MODEL, loss, optim.adam(0.05))
    params, opt_state = step.init(0)
    losses = []
    for epoch in range(epochs):
        for batch in dataset.open(Cursor(epoch)):
            params, opt_state, logs = step(params, opt_state, batch)
            losses.append(logs["loss"].item())
    assert step.traces == 1
    return losses[0], losses[-1]


SHAPED = {
    "x and y by paths": (data.collate({"x": ("input", "x"), "y": ("target", 0)}), cross_entropy),
    "a function": (data.collate(lambda batch: {"x": batch["input"]["x"], "y": batch["target"][0]}), cross_entropy),
    "bound by paths": (data.bind({"x": ("input", "x"), "y": ("target", 0)}), cross_entropy),
    "bound by names": (
        lambda dataset: pipe(
            dataset, data.collate({"input": ("input", "x"), "label": ("target", 0), "name": "name"}), data.bind(aliased)
        ),
        aliased,
    ),
}


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.usual("a function", "bound by paths", "bound by names")
def test_nested_rows_reach_a_compiled_step(name):
    shape, fitting = SHAPED[name]
    first, last = trained(pipe(data.source(ROWS), data.shuffle(seed=0), data.batch(16), shape), fitting)
    assert last < first / 2


def test_every_way_of_naming_gives_a_step_the_same_numbers():
    def numbers(dataset, fitting=cross_entropy):
        return trained(pipe(dataset, data.shuffle(seed=0), data.batch(16, drop_last=True)), fitting, epochs=2)

    named = numbers(data.arrays(x=X, y=LABELS))
    by_position = pipe(data.arrays(X, LABELS), data.shuffle(seed=0), data.batch(16))
    assert trained(data.collate("xy")(by_position), epochs=2) == named
    assert trained(data.collate("auto")(by_position), epochs=2) == named
    assert trained(data.bind(aliased)(by_position), aliased, epochs=2) == named


def test_a_single_array_reaches_a_compiled_step_as_x():
    batches = pipe(data.source(list(X)), data.batch(16), data.collate("auto"))
    first, last = trained(batches, lambda model, x: ((model(x) - x[:, :2]) ** 2).mean())
    assert last < first / 2


@pytest.mark.parametrize("name", SHAPED)
@pytest.mark.usual("a function", "bound by paths")
def test_nested_rows_reach_fit_for_training_and_validation(name):
    shape, fitting = SHAPED[name]
    dataset = pipe(data.source(ROWS), data.shuffle(seed=0), data.batch(16), shape)
    report = pipe(
        fp.trainer(MODEL, fitting),
        fp.with_optimizer(optim.adam(0.05)),
        fp.fit(dataset, validation=dataset, epochs=8, quiet=True),
    )
    assert report.rows[-1].epoch_loss < report.rows[0].epoch_loss / 2
    assert report.rows[-1].val_loss < report.rows[0].val_loss


def test_fit_tells_a_collate_what_it_reads_for():
    seen = []

    def watching(batch, epoch, index, kind):
        seen.append((kind, epoch, index))
        return batch

    dataset = pipe(data.arrays(x=X, y=LABELS), data.batch(24), data.collate(watching))
    pipe(fp.trainer(MODEL, cross_entropy), fp.fit(dataset, validation=dataset, epochs=2, quiet=True))
    assert seen == [(kind, epoch, i) for epoch in (0, 1) for kind in ("train", "validation") for i in (0, 1)]


def test_fit_keeps_the_class_of_an_error_of_a_collate_and_says_where():
    dataset = pipe(data.arrays(x=X, y=LABELS), data.batch(24), data.bind({"x": "image"}))
    with pytest.raises(ValueError, match="bind finds no 'image' for 'x': the batch is {x: float32") as error:
        pipe(fp.trainer(MODEL, cross_entropy), fp.fit(dataset, quiet=True))
    assert "at operation=bind({'x': 'image'}), split=train, epoch=0, index=0" in error.value.__notes__


def test_a_key_that_would_fill_two_parameters_is_named():
    def loss(model, inputs, tokens): ...

    with pytest.raises(ValueError, match="bind: 'x' fills several parameters of 'loss'; the batch is {x: int}"):
        list(data.bind(loss)(data.source([{"x": 1}])))


@pytest.mark.parametrize(
    "verb", [data.collate({"x": 0, "y": 1}), data.collate("xy"), data.bind({"x": 0, "y": 1})], ids=repr
)
@pytest.mark.parametrize("rows", [[[1.0, 2.0], [3.0, 4.0]], np.ones((2, 2), np.float32)], ids=["lists", "numpy"])
def test_an_index_into_an_array_is_a_row_and_no_column(verb, rows):
    with pytest.raises(ValueError, match=r"finds no 0 for 'x': the batch is float32 \(2, 2\); a column of an array"):
        next(iter(pipe(data.source(rows), data.batch(2), verb)))
