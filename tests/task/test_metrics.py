"""The usual metrics equal scikit-learn's, over batches of any sizes and inside the compiled step."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import cross_entropy, mse
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import metrics, nn, optim
from mlx_fp.task import _folds as metric

scores = pytest.importorskip("sklearn.metrics")

CLASSES = 4
SIZES = (5, 1, 8)
LABELS = st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=6)
CHUNKS = st.lists(st.tuples(LABELS, st.randoms(use_true_random=False)), min_size=1, max_size=4)
BY_CLASS = (metrics.precision, metrics.recall, metrics.f1)
MACRO = {"precision": scores.precision_score, "recall": scores.recall_score, "f1": scores.f1_score}


def folded(m, chunks):
    """The value over chunks of `(output, batch as a dict)`."""
    memory = m.init()
    for output, batch in chunks:
        memory = m.update(memory, output, x=None, **batch)
    return m.value(memory).item()


def drawn(*shape, sizes=SIZES, seed=0):
    """For each size, numbers and labels of `(size, *shape)`."""
    draw = np.random.default_rng(seed)
    for size in sizes:
        yield draw.normal(size=(size, *shape)).astype(np.float32), draw.normal(size=(size, *shape)).astype(np.float32)


def labelled(*places, sizes=SIZES, seed=0):
    """For each size, logits of `(size, *places, classes)` and labels of `(size, *places)`."""
    draw = np.random.default_rng(seed)
    for size in sizes:
        logits = draw.normal(size=(size, *places, CLASSES)).astype(np.float32)
        yield logits, draw.integers(0, CLASSES, size=(size, *places)).astype(np.int32)


def batched(pairs):
    return [(mx.array(output), {"y": mx.array(y)}) for output, y in pairs]


# labels


PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=9)


@examples(40)
@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_accuracy_over_batches_of_any_sizes_is_that_of_all_examples(chunks):
    m = metrics.accuracy()
    memory = m.init()
    for chunk in chunks:
        best, labels = zip(*chunk, strict=True)
        memory = m.update(memory, mx.eye(3)[mx.array(best)], x=None, y=mx.array(labels))
    pairs = [pair for chunk in chunks for pair in chunk]
    assert m.value(memory).item() == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_accuracy_of_sequences_counts_every_place():
    m = metrics.accuracy()
    logits = mx.eye(3)[mx.array([[0, 1, 2], [0, 0, 0]])]
    memory = m.update(m.init(), logits, x=None, y=mx.array([[0, 1, 0], [1, 1, 0]]))
    assert (memory["hits"].item(), memory["count"].item()) == (3, 6)


def test_accuracy_counts_beyond_what_float32_holds():
    m = metrics.accuracy()
    memory = {"hits": mx.array(2**24, mx.uint64), "count": mx.array(2**24, mx.uint64)}
    memory = m.update(memory, mx.eye(2)[mx.array([1])], x=None, y=mx.array([1]))
    assert memory["hits"].item() == 2**24 + 1


COUNTING = {
    "accuracy": metrics.accuracy(),
    "masked": metrics.accuracy(ignore=-1),
    "top_k": metrics.top_k(1),
    "f1": metrics.f1(2),
    "mae": metrics.mae(),
    "mae_masked": metrics.mae(),
    "r2": metrics.r2(),
}


@pytest.mark.parametrize("before", [2**24, 2**31, 2**32], ids=["24", "31", "32"])
@pytest.mark.parametrize("name", COUNTING)
def test_a_compiled_step_counts_on_beyond_32_bits(name, before):
    few = before - 3
    x = mx.random.normal((8, 2), key=mx.random.key(0))
    y = x[:, 0] if name in ("mae", "mae_masked", "r2") else mx.zeros((8,), mx.int32)
    batch = {"x": x, "y": y, **({"mask": mx.ones((8,))} if name == "mae_masked" else {})}

    def loss(model, x, y, mask=None):
        return mx.square(model(x)).mean()

    model = nn.linear(2, 1 if y.dtype == mx.float32 else 2)
    step = fp.train_step(model, loss, optim.sgd(0.0), metrics=[COUNTING[name]])
    params, opt_state = step.init(0)
    ((key, memory),) = opt_state["metrics"].items()
    counters = [part for part, leaf in memory.items() if mx.issubdtype(leaf.dtype, mx.integer)]
    full = memory | {part: mx.full(memory[part].shape, few, memory[part].dtype) for part in counters}
    for taken in (1, 2):
        params, opt_state, _ = step(params, {**opt_state, "metrics": {key: full}}, batch)
        full = opt_state["metrics"][key]
        counts = [count for part in counters for count in np.array(full[part]).reshape(-1).tolist()]
        assert max(counts) == few + 8 * taken
        assert min(counts) >= few
    assert step.traces == 1


def test_accuracy_is_that_of_scikit_learn_over_uneven_batches():
    pairs = list(labelled())
    logits, y = map(np.concatenate, zip(*pairs, strict=True))
    assert folded(metrics.accuracy(), batched(pairs)) == pytest.approx(scores.accuracy_score(y, logits.argmax(-1)))


def test_accuracy_leaves_out_what_the_mask_and_ignore_say():
    logits = mx.eye(3)[mx.array([0, 1, 2, 0])]
    y = mx.array([0, 0, 2, -100])
    assert folded(metrics.accuracy(), [(logits, {"y": y, "mask": mx.array([1, 1, 0, 0])})]) == 0.5
    assert folded(metrics.accuracy(ignore=-100), [(logits, {"y": y})]) == pytest.approx(2 / 3)
    both = metrics.accuracy(ignore=-100)
    assert folded(both, [(logits, {"y": y, "mask": mx.array([1, 0, 0, 1])})]) == 1.0


@pytest.mark.parametrize("kind", [mx.bool_, mx.int32, mx.float32])
def test_a_mask_of_any_type_counts_where_it_is_not_zero(kind):
    logits, y = mx.eye(2)[mx.array([0, 1])], mx.array([0, 0])
    assert folded(metrics.accuracy(), [(logits, {"y": y, "mask": mx.array([1, 0]).astype(kind)})]) == 1.0


LABELLED = (metrics.accuracy(), metrics.token_accuracy(), metrics.top_k(1), *(make(3) for make in BY_CLASS))


@pytest.mark.parametrize("m", LABELLED, ids=repr)
def test_logits_that_are_no_numbers_are_right_about_nothing(m):
    assert folded(m, [(mx.full((4, 3), mx.nan), {"y": mx.zeros((4,), mx.int32)})]) == 0.0


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("m", LABELLED, ids=repr)
def test_labels_may_be_probabilities(m, size):
    logits = mx.random.normal((size, 3), key=mx.random.key(size))
    y = mx.random.randint(0, 3, (size,), key=mx.random.key(1))
    assert folded(m, [(logits, {"y": 0.8 * mx.eye(3)[y] + 0.1})]) == folded(m, [(logits, {"y": y})])


@pytest.mark.parametrize("m", LABELLED, ids=repr)
def test_labels_that_do_not_fit_the_logits_are_refused(m):
    with pytest.raises(ValueError, match=r"logits \(4, 1\)|they are \(4, 1\)"):
        folded(m, [(mx.zeros((4, 1)), {"y": mx.zeros((4,), mx.int32)})])
    with pytest.raises(ValueError, match=r"labels of logits \(4, 3\) are \(4,\), or as the logits; y is \(4, 1\)"):
        folded(m, [(mx.zeros((4, 3)), {"y": mx.zeros((4, 1), mx.int32)})])


@pytest.mark.parametrize(
    "m", [metrics.mse(), metrics.mae(), metrics.accuracy(), metrics.f1(3), metrics.r2(outputs=3)], ids=repr
)
def test_a_mask_of_another_shape_is_refused(m):
    y = mx.zeros((4, 3)) if m.name in ("mse", "mae", "r2") else mx.zeros((4,), mx.int32)
    with pytest.raises(ValueError, match=r"a mask has a place for each label or target"):
        folded(m, [(mx.zeros((4, 3)), {"y": y, "mask": mx.ones((2,))})])


def test_a_mask_may_be_of_whole_rows():
    logits, y, mask = mx.zeros((2, 3, 4)), mx.zeros((2, 3), mx.int32), mx.array([[1], [0]])
    memory = metrics.token_accuracy().update(metrics.token_accuracy().init(), logits, x=None, y=y, mask=mask)
    assert (memory["hits"].item(), memory["count"].item()) == (3, 3)
    ones = [(mx.ones((4, 3)), {"y": mx.zeros((4, 3)), "mask": mx.array([[1], [1], [0], [0]])})]
    assert folded(metrics.mse(), ones) == 1.0


def test_token_accuracy_counts_the_tokens_that_are_not_padding():
    pairs = list(labelled(6))
    kept = [(y != 0) for _, y in pairs]
    right = sum(((logits.argmax(-1) == y) & keep).sum() for (logits, y), keep in zip(pairs, kept, strict=True))
    wanted = right / sum(keep.sum() for keep in kept)
    assert folded(metrics.token_accuracy(ignore=0), batched(pairs)) == pytest.approx(wanted)
    masked = [(mx.array(o), {"y": mx.array(y), "mask": mx.array(k)}) for (o, y), k in zip(pairs, kept, strict=True)]
    assert folded(metrics.token_accuracy(), masked) == pytest.approx(wanted)


def test_a_batch_that_is_all_padding_changes_nothing():
    logits, y = mx.eye(2)[mx.array([0, 1])], mx.array([0, 1])
    nothing = {"y": y, "mask": mx.array([0, 0])}
    for m in (metrics.accuracy(), metrics.perplexity(), metrics.top_k(1), metrics.precision(2)):
        first = [(logits, {"y": y})]
        assert folded(m, [*first, (logits, nothing)]) == folded(m, first)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_is_that_of_scikit_learn(k):
    pairs = list(labelled(sizes=(9, 2, 12)))
    logits, y = map(np.concatenate, zip(*pairs, strict=True))
    wanted = scores.top_k_accuracy_score(y, logits, k=k, labels=range(CLASSES))
    assert folded(metrics.top_k(k), batched(pairs)) == pytest.approx(wanted)


def test_ties_are_in_favour_of_top_k_and_nan_is_not():
    assert folded(metrics.top_k(1), [(mx.zeros((2, 3)), {"y": mx.array([0, 2])})]) == 1.0
    assert folded(metrics.top_k(1), [(mx.full((2, 3), math.nan), {"y": mx.array([0, 2])})]) == 0.0
    assert folded(metrics.top_k(2), [(mx.array([[math.nan, 0.1, 0.9]]), {"y": mx.array([2])})]) == 1.0


def test_top_k_leaves_out_what_is_ignored():
    logits = mx.eye(3)[mx.array([0, 1])]
    assert folded(metrics.top_k(1, ignore=-1), [(logits, {"y": mx.array([0, -1])})]) == 1.0


@examples(25)
@given(CHUNKS, st.sampled_from(sorted(MACRO)))
def test_macro_scores_are_those_of_scikit_learn(chunks, name):
    pairs = [(labels, [random.randrange(CLASSES) for _ in labels]) for labels, random in chunks]
    y, chosen = (np.concatenate(side) for side in zip(*pairs, strict=True))
    wanted = MACRO[name](y, chosen, average="macro", zero_division=0)
    found = folded(
        getattr(metrics, name)(CLASSES),
        [(mx.eye(CLASSES)[mx.array(c)], {"y": mx.array(labels)}) for labels, c in pairs],
    )
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", sorted(MACRO))
def test_macro_scores_of_sequences_leave_out_the_mask(name):
    pairs = list(labelled(3))
    masks = [np.arange(3) < 1 + np.arange(len(y))[:, None] % 3 for _, y in pairs]
    y = np.concatenate([labels[mask] for (_, labels), mask in zip(pairs, masks, strict=True)])
    chosen = np.concatenate([logits.argmax(-1)[mask] for (logits, _), mask in zip(pairs, masks, strict=True)])
    batches = [(mx.array(o), {"y": mx.array(y), "mask": mx.array(m)}) for (o, y), m in zip(pairs, masks, strict=True)]
    wanted = MACRO[name](y, chosen, average="macro", zero_division=0)
    assert folded(getattr(metrics, name)(CLASSES), batches) == pytest.approx(wanted, abs=1e-6)


# numbers


@pytest.mark.parametrize(("name", "of"), [("mse", "mean_squared_error"), ("mae", "mean_absolute_error")])
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_errors_are_those_of_scikit_learn_over_uneven_batches(name, of, shape):
    pairs = list(drawn(*shape))
    output, y = map(np.concatenate, zip(*pairs, strict=True))
    assert folded(getattr(metrics, name)(), batched(pairs)) == pytest.approx(getattr(scores, of)(y, output), rel=1e-5)


@pytest.mark.parametrize("name", ["mse", "mae"])
def test_targets_and_masks_of_one_axis_less_are_those_of_one_output(name):
    output, y, mask = mx.array([[1.0], [3.0], [9.0]]), mx.array([1.0, 2.0, math.nan]), mx.array([1, 1, 0])
    m = getattr(metrics, name)()
    assert folded(m, [(output[:2], {"y": y[:2]})]) == 0.5
    assert folded(m, [(output, {"y": y, "mask": mask})]) == 0.5
    assert folded(m, [(output, {"y": y[:, None], "mask": mask[:, None]})]) == 0.5


def test_a_mean_over_very_many_does_not_stop_to_grow():
    m = metrics.mse()
    memory = {"mean": mx.array(1.0), "count": mx.array(2**26, mx.uint64)}
    for _ in range(3):
        memory = m.update(memory, mx.zeros((2**20, 1)), x=None, y=mx.full((2**20, 1), 2.0))
    wanted = (2**26 + 3 * 2**20 * 4) / (2**26 + 3 * 2**20)
    assert m.value(memory).item() == pytest.approx(wanted, rel=1e-6)


def test_r2_is_that_of_scikit_learn_over_uneven_batches():
    pairs = [(y + 0.3 * output, y) for output, y in drawn()]
    output, y = map(np.concatenate, zip(*pairs, strict=True))
    assert folded(metrics.r2(), batched(pairs)) == pytest.approx(scores.r2_score(y, output), rel=1e-5)
    column = [(output[:, None], y) for output, y in pairs]
    assert folded(metrics.r2(), batched(column)) == folded(metrics.r2(), batched(pairs))


def test_r2_of_several_outputs_is_their_mean():
    pairs = [(y + 0.3 * output, y) for output, y in drawn(3)]
    output, y = map(np.concatenate, zip(*pairs, strict=True))
    assert folded(metrics.r2(outputs=3), batched(pairs)) == pytest.approx(scores.r2_score(y, output), rel=1e-5)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_r2_leaves_out_what_is_masked(shape):
    pairs = list(drawn(*shape))
    kept = [np.arange(len(y)) % 3 != 1 for _, y in pairs]
    outputs, ys = (
        np.concatenate([one[keep] for one, keep in zip(each, kept, strict=True)]) for each in zip(*pairs, strict=True)
    )
    masked = [(mx.array(o), {"y": mx.array(y), "mask": mx.array(k)}) for (o, y), k in zip(pairs, kept, strict=True)]
    assert folded(metrics.r2(), masked) == pytest.approx(scores.r2_score(ys, outputs), abs=1e-4)


@pytest.mark.parametrize("make", [metrics.mse, metrics.mae])
def test_errors_beyond_half_precision_are_counted(make):
    output, y = mx.full((2, 1), 300.0, mx.float16), mx.zeros((2, 1), mx.float16)
    assert folded(make(), [(output, {"y": y})]) == 300.0 ** (2 if make is metrics.mse else 1)


def test_r2_holds_far_from_zero():
    pairs = [(1000 + y + 0.3 * output, 1000 + y) for output, y in drawn(sizes=(40, 7, 60))]
    output, y = map(np.concatenate, zip(*pairs, strict=True))
    assert folded(metrics.r2(), batched(pairs)) == pytest.approx(scores.r2_score(y, output), rel=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, 123.4])
def test_r2_of_a_constant_is_1_if_predicted_exactly_else_0(constant):
    def value(off):
        return folded(
            metrics.r2(), [(mx.full((n, 1), constant + off), {"y": mx.full((n,), constant)}) for n in (3, 5, 7)]
        )

    assert (value(0.0), value(1.0)) == (1.0, 0.0)


def test_r2_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"r2 of 3 outputs takes y of shape \(n, 3\); got \(3, 2\)"):
        folded(metrics.r2(outputs=3), [(mx.zeros((3, 2)), {"y": mx.zeros((3, 2))})])


def test_nan_shows():
    for m in (metrics.mse(), metrics.mae(), metrics.r2()):
        assert math.isnan(folded(m, [(mx.array([[math.nan], [1.0]]), {"y": mx.array([1.0, 2.0])})]))


def test_perplexity_is_e_to_the_log_loss_of_scikit_learn():
    pairs = list(labelled(5))
    logits, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    chances = np.exp(logits.astype(np.float64))
    chances /= chances.sum(-1, keepdims=True)
    wanted = math.exp(scores.log_loss(y.ravel(), chances.reshape(-1, CLASSES), labels=range(CLASSES)))
    assert folded(metrics.perplexity(), batched(pairs)) == pytest.approx(wanted, rel=1e-5)


def test_perplexity_leaves_padding_out_whatever_label_it_has():
    logits = mx.random.normal((2, 3, 4), key=mx.random.key(1))
    y = mx.array([[1, 2, 10**9], [3, 10**9, 10**9]])
    mask = mx.array([[1, 1, 0], [1, 0, 0]])
    entropy = nn.losses.cross_entropy(logits, mask * y)
    wanted = math.exp((entropy * mask).sum().item() / 3)
    assert folded(metrics.perplexity(), [(logits, {"y": y, "mask": mask})]) == pytest.approx(wanted, rel=1e-5)
    assert folded(metrics.perplexity(ignore=10**9), [(logits, {"y": y})]) == pytest.approx(wanted, rel=1e-5)


# in the step


def test_labels_fold_in_the_compiled_step_in_one_trace():
    folds = [metrics.accuracy(), metrics.top_k(2), metrics.precision(4), metrics.recall(4), metrics.f1(4)]
    step = fp.train_step(nn.linear(3, 4), cross_entropy, optim.sgd(0.0), metrics=folds)
    params, opt_state = step.init(0)
    outputs, labels = [], []
    for x, y in labelled(sizes=(8, 8, 8)):
        x = x[:, :3]
        outputs.append(x @ np.array(params["weight"]).T + np.array(params["bias"]))
        labels.append(y)
        params, opt_state, _ = step(params, opt_state, (mx.array(x), mx.array(y)))
    logits, y = np.concatenate(outputs), np.concatenate(labels)
    found = metric.values(step.metrics, opt_state["metrics"])
    wanted = {name: of(y, logits.argmax(-1), average="macro", zero_division=0) for name, of in MACRO.items()}
    wanted["accuracy"] = scores.accuracy_score(y, logits.argmax(-1))
    wanted["top_2"] = scores.top_k_accuracy_score(y, logits, k=2, labels=range(4))
    assert found == pytest.approx(wanted, abs=1e-6)
    assert step.traces == 1


def test_numbers_fold_in_the_compiled_step_in_one_trace():
    step = fp.train_step(
        nn.linear(3, 2), mse, optim.sgd(0.0), metrics=[metrics.mse(), metrics.mae(), metrics.r2(outputs=2)]
    )
    params, opt_state = step.init(0)
    outputs, targets = [], []
    for x, y in drawn(3, sizes=(8, 8, 8)):
        outputs.append(x @ np.array(params["weight"]).T + np.array(params["bias"]))
        targets.append(y[:, :2])
        params, opt_state, _ = step(params, opt_state, (mx.array(x), mx.array(y[:, :2])))
    output, y = np.concatenate(outputs), np.concatenate(targets)
    wanted = {
        "mse": scores.mean_squared_error(y, output),
        "mae": scores.mean_absolute_error(y, output),
        "r2": scores.r2_score(y, output),
    }
    assert metric.values(step.metrics, opt_state["metrics"]) == pytest.approx(wanted, rel=1e-4)
    assert step.traces == 1


def test_metrics_of_half_precision_are_kept_in_float32():
    folds = [metrics.accuracy(), metrics.perplexity()]
    step = fp.train_step(nn.linear(3, 4), cross_entropy, optim.sgd(0.1), metrics=folds, dtype=mx.bfloat16)
    params, opt_state = step.init(0)
    for x, y in labelled(sizes=(8, 8)):
        params, opt_state, _ = step(params, opt_state, (mx.array(x[:, :3]), mx.array(y)))
    assert opt_state["metrics"]["perplexity"]["mean"].dtype == mx.float32
    assert step.traces == 1


# names and arguments


def test_every_metric_has_its_name_and_takes_another():
    made = {
        "accuracy": metrics.accuracy,
        "token_accuracy": metrics.token_accuracy,
        "mse": metrics.mse,
        "mae": metrics.mae,
        "r2": metrics.r2,
        "perplexity": metrics.perplexity,
    }
    assert {name: make().name for name, make in made.items()} == {name: name for name in made}
    assert {make("mine").name for make in made.values()} == {"mine"}
    assert [getattr(metrics, name)(2).name for name in MACRO] == list(MACRO)
    assert (metrics.top_k(5).name, metrics.top_k(5, "best").name) == ("top_5", "best")


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_counts_that_are_none_are_refused_at_once(count):
    for make in (metrics.top_k, metrics.precision, metrics.recall, metrics.f1, lambda n: metrics.r2(outputs=n)):
        with pytest.raises(ValueError, match=r"[12] or more"):
            make(count)
