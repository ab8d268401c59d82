"""Tasks supply loss, metrics and monitor, each overridable."""

import math

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim
from mlx_fp.task._task import as_task

X = mx.random.normal((8, 3), key=mx.random.key(0))
LABELS = (X[:, 0] > 0).astype(mx.int32)
TOKENS = mx.array([[1, 2, 3, 0], [2, 3, 0, 0]])
WORDS = nn.sequential(nn.embedding(4, 5), nn.linear(5, 4))


def fit(model, task, batches, **options):
    target = pipe(fp.trainer(model, task), fp.with_optimizer(optim.sgd(0.1)))
    return fp.fit(batches, quiet=True, **options)(target)


def logits_of(tokens, model=WORDS):
    return nn.predictor(nn.init(0)(model))(model)(tokens)


def loss_of(task, output, *batch):
    """The loss of a model that always returns `output`."""
    return task.loss(lambda x: output, None, *batch).value.item()


def test_classification_is_cross_entropy_and_accuracy():
    task = fp.classification()
    logits, y = mx.array([[2.0, 0.0], [0.0, 1.0]]), mx.array([0, 0])
    expected = nn.losses.cross_entropy(logits, y, reduction="mean")
    assert loss_of(task, logits, y) == expected.item()
    assert ([m.name for m in task.metrics], task.monitor) == (["accuracy"], "val_accuracy")


def test_each_part_can_be_replaced():
    mine = fp.classification(
        loss=lambda model, x, y: model(x).mean(), metrics=[fp.accuracy("hits")], monitor="val_hits"
    )
    assert [m.name for m in mine.metrics] == ["hits"]
    assert mine.monitor == "val_hits"
    with pytest.raises(ValueError, match="two metrics are called accuracy"):
        fp.classification(metrics=[fp.accuracy(), fp.accuracy()])


def test_a_loss_alone_is_a_task_and_anything_else_is_refused():
    def mine(model, x):
        return model(x).mean()

    assert as_task(mine).name == "mine"
    with pytest.raises(TypeError, match="loss function"):
        as_task("classification")


def test_a_trainer_says_what_it_takes():
    with pytest.raises(TypeError, match="model"):
        fp.trainer("model", fp.classification())
    with pytest.raises(TypeError, match=r"optim\.lift"):
        fp.with_optimizer("adam")


def test_labels_that_are_no_integers_are_refused_with_the_remedy():
    batch = (mx.ones((4, 3)), mx.ones((4,)))
    with pytest.raises(TypeError, match=r"integer labels; y is mlx.core.float32 \(4,\): y.astype"):
        fp.fit([batch], quiet=True)(fp.trainer(nn.linear(3, 2), fp.classification()))
    soft = (mx.ones((4, 3)), mx.full((4, 2), 0.5))  # probabilities of each class are labels too
    fp.fit([soft], quiet=True)(fp.trainer(nn.linear(3, 2), fp.classification(metrics=[])))


def test_what_stands_in_the_wrong_place_is_named_at_once():
    with pytest.raises(TypeError, match="call it, with a rate"):
        fp.with_optimizer(optim.adam)
    with pytest.raises(TypeError, match="a seed is an int.*got"):
        nn.init(nn.linear(3, 2))
    with pytest.raises(ValueError, match=r"layers.0.weight is \(2, 3\), given nothing"):
        nn.predictor(nn.init(0)(nn.linear(3, 2)))(nn.sequential(nn.linear(3, 2)))


# regression


def test_regression_is_the_mean_squared_error_with_mse_mae_and_r2():
    task = fp.regression()
    output, y = mx.array([[1.0], [2.0]]), mx.array([[0.0], [4.0]])
    assert loss_of(task, output, y) == 2.5
    assert ([m.name for m in task.metrics], task.monitor) == (["mse", "mae", "r2"], "val_loss")


def test_targets_of_one_axis_are_those_of_one_output():
    assert loss_of(fp.regression(), mx.array([[1.0], [2.0]]), mx.array([0.0, 4.0])) == 2.5
    assert loss_of(fp.regression(), mx.array([1.0, 2.0]), mx.array([0.0, 4.0])) == 2.5


@pytest.mark.parametrize("shape", [(8, 1), (8,), (8, 2, 1)])
def test_targets_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"targets of the predictions' shape; they are \(8, 2\), y is"):
        fit(nn.linear(3, 2), fp.regression(), [(X, mx.zeros(shape))])


def test_regression_through_fit_equals_scikit_learn():
    scores = pytest.importorskip("sklearn.metrics")
    report = fit(nn.linear(3, 1), fp.regression(), [(X, X.sum(axis=1))], validation=[(X, X.sum(axis=1))])
    output = np.array(nn.predictor(report.params)(nn.linear(3, 1))(X))
    row, y = report.rows[0], np.array(X.sum(axis=1))
    assert row.val_mse == pytest.approx(scores.mean_squared_error(y, output), rel=1e-5)
    assert row.val_mae == pytest.approx(scores.mean_absolute_error(y, output), rel=1e-5)
    assert row.val_r2 == pytest.approx(scores.r2_score(y, output), rel=1e-4)
    assert row.val_loss == pytest.approx(row.val_mse, rel=1e-5)


# language modeling


def test_language_modeling_is_cross_entropy_with_perplexity_and_token_accuracy():
    task = fp.language_modeling()
    logits, y = logits_of(TOKENS), TOKENS
    assert loss_of(task, logits, y) == pytest.approx(nn.losses.cross_entropy(logits, y, reduction="mean").item())
    assert [m.name for m in task.metrics] == ["perplexity", "token_accuracy"]
    assert task.monitor == "val_perplexity"


def test_one_array_of_tokens_is_its_own_target_one_place_on():
    whole = fit(WORDS, fp.language_modeling(), [TOKENS], validation=[TOKENS])
    pair = (TOKENS[:, :-1], TOKENS[:, 1:])
    assert whole.rows[0].metrics == fit(WORDS, fp.language_modeling(), [pair]).rows[0].metrics
    assert whole.losses == fit(WORDS, fp.language_modeling(), [pair]).losses
    assert whole.rows[0].examples == 2


def test_padding_counts_neither_by_ignore_nor_by_a_mask():
    x, y = TOKENS[:, :-1], TOKENS[:, 1:]
    each = nn.losses.cross_entropy(logits_of(x), y)
    wanted = (each * (y != 0)).sum().item() / (y != 0).sum().item()
    start = nn.init(0)(WORDS)
    ignored = fit(WORDS, fp.language_modeling(ignore=0), [(x, y)], params=start)
    masked = fit(WORDS, fp.language_modeling(), [(x, y, y != 0)], params=start)
    named = fit(WORDS, fp.language_modeling(), [{"tokens": x, "targets": y}], params=start)
    assert ignored.losses[0] == pytest.approx(wanted, rel=1e-5)
    assert masked.losses[0] == pytest.approx(wanted, rel=1e-5)
    assert named.losses[0] == pytest.approx(each.mean().item(), rel=1e-5)
    assert ignored.rows[0].perplexity == pytest.approx(math.exp(wanted), rel=1e-5)
    assert masked.rows[0].metrics == pytest.approx(ignored.rows[0].metrics)


def test_labels_beyond_the_vocabulary_are_safe_where_they_are_ignored():
    x = TOKENS[:, :-1]
    y = mx.where(TOKENS[:, 1:] == 0, -100, TOKENS[:, 1:])
    report = fit(WORDS, fp.language_modeling(ignore=-100), [(x, y)])
    assert report.losses == fit(WORDS, fp.language_modeling(ignore=0), [(x, TOKENS[:, 1:])]).losses


@pytest.mark.parametrize("tokens", [TOKENS[0], TOKENS[:, :1], TOKENS[None]])
def test_tokens_of_another_shape_are_refused(tokens):
    with pytest.raises(ValueError, match=r"array \(n, tokens \+ 1\); got"):
        fit(WORDS, fp.language_modeling(), [tokens])


# every task

CASES = {
    "classification": (fp.classification, nn.linear(3, 2), (X, LABELS)),
    "regression": (fp.regression, nn.linear(3, 1), (X, X[:, 0])),
    "language_modeling": (fp.language_modeling, WORDS, (TOKENS[:, :-1], TOKENS[:, 1:])),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.mark.usual("classification", "language_modeling")
def test_a_list_of_pairs_is_data_for_train_and_validation_alike(case):
    make, model, pair = case
    report = fit(model, make(), [pair, pair], validation=[pair], epochs=2)
    row = report.rows[-1]
    assert (row.steps, row.validation_batches) == (4, 1)
    assert row.metrics.keys() == row.val_metrics.keys() == {m.name for m in make().metrics}
    assert report.monitor_name == make().monitor
    assert report.best_value is not None


def test_numpy_and_lists_of_two_are_pairs_too(case):
    make, model, pair = case
    arrays = [list(map(np.array, pair))]
    assert fit(model, make(), arrays).losses == fit(model, make(), [pair]).losses


@pytest.mark.parametrize("names", [("x", "y"), ("inputs", "targets"), ("features", "label"), ("tokens", "labels")])
def test_dicts_may_use_the_usual_names(case, names):
    make, model, pair = case
    batch = dict(zip(names, pair, strict=True))
    assert fit(model, make(), [batch]).losses == fit(model, make(), [pair]).losses


def test_a_dict_that_names_no_target_says_what_it_has(case):
    make, model, pair = case
    with pytest.raises(ValueError, match="no key fills 'y'.*inputs"):
        fit(model, make(), [{"inputs": pair[0], "wanted": pair[1]}])


def test_a_collate_of_ones_own_wins(case):
    make, model, (x, y) = case
    task = make(collate={"x": "image", "y": ("meta", 0)})
    assert fit(model, task, [{"image": x, "meta": [y]}]).losses == fit(model, make(), [(x, y)]).losses


def test_every_option_can_be_replaced(case):
    make, model, pair = case

    def mine(model, x, y):
        return model(x).mean()

    size = fp.Metric("size", lambda: mx.array(0), lambda m, output, x, y: m + y.size, lambda m: m)
    report = fit(model, make(loss=mine, metrics=[size], monitor="size", mode="max"), [pair])
    assert (report.monitor_name, report.monitor_mode, report.best_value) == ("size", "max", pair[1].size)


@pytest.mark.usual("classification", "language_modeling")
def test_the_usual_monitor_needs_its_metric_and_is_the_loss_without(case):
    make, model, pair = case
    bare = make(metrics=[])
    assert bare.monitor == "val_loss"
    assert fit(model, bare, [pair], validation=[pair]).monitor_name == "val_loss"
    assert fit(model, bare, [pair]).monitor_name == "loss"


@pytest.mark.parametrize(
    ("task", "mode"),
    [
        (fp.classification(), "max"),
        (fp.classification(monitor="val_loss"), "min"),
        (fp.classification(monitor="accuracy"), "max"),
        (fp.classification(monitor="val_loss", mode="max"), "max"),
        (fp.classification(monitor="val_f1", metrics=[metrics.f1(2), fp.accuracy()]), "max"),
        (fp.classification(metrics=[metrics.f1(2), fp.accuracy()]), "max"),
        (fp.Task("own", fp.classification().loss, (metrics.f1(2),), "val_f1"), "max"),
        (fp.classification(metrics=[]), "min"),
    ],
)
def test_the_direction_is_that_of_the_metric_unless_it_is_given(task, mode):
    report = fit(nn.linear(3, 2), task, [(X, LABELS)], validation=[(X, LABELS)])
    assert (report.monitor_mode, report.best_epoch) == (mode, 0)


@pytest.mark.parametrize("name", ["val_r2", "val_mse"])
def test_a_regression_watches_each_of_its_metrics_in_the_right_direction(name):
    x = mx.random.normal((32, 3), key=mx.random.key(0))
    pair = (x, x.sum(axis=1))
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(monitor=name)), fp.with_optimizer(optim.sgd(0.1)))
    report = fp.fit([pair] * 4, validation=[pair], epochs=5, quiet=True)(target)
    assert report.best_epoch == 4


def test_what_is_no_metric_is_refused_when_the_task_is_made(case):
    with pytest.raises(TypeError, match="a metric is a Metric"):
        case[0](metrics=["accuracy"])


def test_a_pipeline_of_rows_trains_a_task_in_batches():
    train = pipe(data.arrays(features=X, label=LABELS), data.batch(3))
    report = fit(nn.linear(3, 2), fp.classification(), train, validation=train)
    assert (report.rows[0].examples, report.rows[0].validation_batches) == (8, 3)


def test_a_task_reads_as_its_name_and_metrics():
    assert repr(fp.regression(metrics=[metrics.mae()])) == "regression(mae)"


@pytest.mark.parametrize("label", [-1, 2, 7, 2**20, 2**32, 2**32 + 1])
@pytest.mark.parametrize("dtype", [mx.int32, mx.int64, mx.uint8])
def test_a_label_that_is_none_ends_the_run_and_touches_no_memory(label, dtype):
    y = mx.array([0, label, 1, 1]).astype(dtype)
    if not 0 <= y[1].item() < 2:
        target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()))
        with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
            fp.fit([(mx.ones((4, 3)), y)], quiet=True)(target)


def test_a_token_that_is_none_ends_the_run_unless_it_is_left_out():
    x, y = mx.zeros((1, 4), mx.int32), mx.array([[1, 2, 9, -5]])
    model = nn.embedding(4, 4)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        fp.fit([(x, y)], quiet=True)(fp.trainer(model, fp.language_modeling()))
    report = fp.fit([(x, y, mx.array([[1, 1, 0, 0]]))], quiet=True)(fp.trainer(model, fp.language_modeling()))
    assert report.rows[0].token_accuracy <= 1
    assert mx.isfinite(mx.array(report.losses)).item()


def test_labels_of_a_narrow_type_reach_as_many_classes_as_there_are():
    logits, y = mx.random.normal((4, 300)), mx.array([255, 0, 17, 200], mx.uint8)
    assert (
        loss_of(fp.classification(), logits, y)
        == nn.losses.cross_entropy(logits, y.astype(mx.int32), reduction="mean").item()
    )


def test_a_mask_counts_whatever_the_other_columns_are_called():
    x, y = mx.array([[1, 2, 3]]), mx.array([[2, 3, 1]])
    mask = mx.array([[1, 0, 0]])
    model = nn.embedding(4, 4)
    losses = [
        fp.fit([batch], quiet=True, seed=1)(fp.trainer(model, fp.language_modeling())).losses
        for batch in ({"x": x, "y": y, "mask": mask}, {"tokens": x, "targets": y, "mask": mask}, (x, y, mask))
    ]
    assert losses[0] == losses[1] == losses[2]


def test_one_column_of_tokens_is_its_own_target():
    tokens = mx.array([[1, 2, 3, 0]])
    model = nn.embedding(4, 4)
    losses = [
        fp.fit([batch], quiet=True, seed=1)(fp.trainer(model, fp.language_modeling())).losses
        for batch in (tokens, (tokens,), {"x": tokens})
    ]
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("task", [fp.classification, fp.regression])
def test_rows_in_place_of_batches_are_an_error_that_says_so(task):
    rows = data.arrays(x=mx.ones((4, 3)), y=mx.zeros((4,), mx.int32))
    with pytest.raises(ValueError, match=r"a step takes batches, not rows: data.batch\(n\)"):
        fp.fit(rows, quiet=True)(fp.trainer(nn.linear(3, 2), task()))


def test_a_task_that_was_not_called_is_an_error_that_says_so():
    with pytest.raises(TypeError, match=r"the result of classification\(\): call it"):
        fp.trainer(nn.linear(3, 2), fp.classification)


def test_a_bad_label_is_skipped_with_its_step():
    batches = [(mx.ones((2, 3)), mx.array([0, 7])), (mx.ones((2, 3)), mx.array([0, 1]))]
    target = pipe(fp.trainer(nn.linear(3, 2), fp.classification()), fp.with_optimizer(optim.adamw(0.1)))
    skipped = fp.fit(batches, nonfinite="skip", seed=1, quiet=True)(target)
    without = fp.fit(batches[1:], nonfinite="skip", seed=1, quiet=True)(target)
    assert mx.array_equal(skipped.params["weight"], without.params["weight"]).item()
    assert skipped.rows[0].accuracy == without.rows[0].accuracy


# models of several inputs


class Two(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = mlx.nn.Linear(3, 2), mlx.nn.Linear(4, 2)

    def __call__(self, a, b):
        return self.left(a) + self.right(b)


@pytest.mark.parametrize("order", [("a", "b", "y", "mask"), ("mask", "y", "b", "a"), ("a", "b", "label", "mask")])
@pytest.mark.usual("order1", "order2")
def test_a_model_of_two_inputs_takes_its_columns_by_name(order):
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(8, 3)).astype(np.float32), draw.normal(size=(8, 4)).astype(np.float32)
    y, mask = draw.integers(0, 2, 8), np.array([1] * 6 + [0] * 2)
    columns = {"a": a, "b": b, "y": y, "label": y, "mask": mask}
    rows = pipe(data.arrays(**{name: columns[name] for name in order}), data.batch(4))
    target = fp.trainer(nn.lift(Two), fp.classification(metrics=[fp.accuracy(), fp.metrics.f1(2)]))
    report = pipe(target, fp.fit(rows, validation=rows, epochs=2, quiet=True))
    logits = nn.predictor(report.params)(nn.lift(Two))(a[:6], b[:6])
    assert report.rows[-1].val_accuracy == pytest.approx((np.argmax(np.array(logits), -1) == y[:6]).mean())
    wanted = nn.losses.cross_entropy(logits, mx.array(y[:6])).mean().item()
    assert report.rows[-1].val_loss == pytest.approx(wanted, rel=1e-5)
    assert pipe(target, fp.evaluate(rows, params=report.params))["loss"] == pytest.approx(wanted, rel=1e-5)


def test_regression_of_two_inputs_takes_them_by_name_too():
    class Sum(mlx.nn.Module):
        def __call__(self, a, b):
            return a + b

    batch = {"a": mx.array([1.0, 2.0]), "b": mx.array([1.0, 1.0]), "target": mx.array([2.0, 5.0])}
    figures = pipe(fp.trainer(nn.lift(Sum), fp.regression()), fp.evaluate([batch], params={}))
    assert (figures["loss"], figures["mae"]) == (2.0, 1.0)


def test_a_batch_without_a_target_or_inputs_says_so():
    loss, one = fp.classification().loss, mx.zeros((2,), mx.int32)
    with pytest.raises(ValueError, match="the batch has no y"):
        loss(lambda x: x, mx.zeros((2, 3)))
    with pytest.raises(ValueError, match="no x or other inputs"):
        loss(lambda x: x, y=one)
    with pytest.raises(TypeError, match="takes x, and the batch has further columns, id: data.collate"):
        loss(lambda x: x, x=mx.zeros((2, 3)), y=one, id=one)
