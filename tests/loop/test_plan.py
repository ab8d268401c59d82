"""The options of a run are checked when they are given; reducers, splits and counts of epochs."""

from __future__ import annotations

import mlx.core as mx
import pytest
from helpers import batch_mean
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim


def batch(count, value):
    return mx.full((count, 1), value)


TARGET = fp.trainer(nn.linear(1, 1), batch_mean)
UNEVEN = [batch(2, 1.0), batch(4, 4.0), batch(2, 3.0)]  # the mean by examples is 3


def row(train=UNEVEN, **options):
    return fp.fit(train, quiet=True, **options)(TARGET).rows[-1]


# what is wrong


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"valdation": []}, TypeError, "unknown option 'valdation': did you mean 'validation'"),
        ({"val": []}, TypeError, "unknown option 'val': did you mean 'validation'"),
        ({"params": 5}, TypeError, "parameters are a tree of arrays, as nn.init.* makes it; got int"),
        ({"seed": "x"}, TypeError, "a seed is an int in .* or a random key; got 'x'"),
        ({"resume": 3}, TypeError, "resume is a path, 'latest', 'best', a checkpoint, a bundle or a function; got 3"),
        ({"sync": "steps"}, ValueError, "unknown sync 'steps': did you mean 'step'\\? known: async, step, epoch, none"),
        ({"sync": None}, ValueError, "unknown sync 'None'"),
        ({"reduce": "men"}, ValueError, "unknown reduce 'men': did you mean 'mean'"),
        ({"validation_reduce": "lasts"}, ValueError, "unknown validation_reduce 'lasts': did you mean 'last'"),
        ({"reduce": 3}, ValueError, "unknown reduce '3'.*a function of the list of losses"),
        ({"validation": (n for n in [])}, TypeError, "stream"),
        ({"epochs": -1}, ValueError, "epochs of a run is a count, 0 or more.*; got -1"),
        ({"steps": -1}, ValueError, "steps of a run is a count, 0 or more.*; got -1"),
        ({"epochs": 1, "steps": 4}, ValueError, "a run is as long as epochs=1 or steps=4 says: give one"),
        (
            {"validate_every": 0, "validation": UNEVEN},
            ValueError,
            "validate_every of a run is a count, 1 or more.*; got 0",
        ),
        ({"log_every": True}, ValueError, "log_every of a run is a count, 1 or more.*; got True"),
        ({"accumulate": 0}, ValueError, "accumulate of a run is a count, 1 or more.*; got 0"),
        ({"accumulate": 2.0}, ValueError, "accumulate of a run is a count, 1 or more.*; got 2.0"),
        ({"accumulate": True}, ValueError, "accumulate of a run is a count, 1 or more.*; got True"),
        ({"accumulate": 2, "steps_per_call": 2}, ValueError, "accumulate takes several batches in a step"),
        ({"validation": {"my set": UNEVEN}}, ValueError, "validation sets have names.* got 'my set'"),
    ],
)
def test_a_wrong_option_fails_before_there_is_a_trainer(options, error, words):
    for verb in (fp.fit, fp.events):
        with pytest.raises(error, match=words):
            verb(UNEVEN, **options)


def test_the_options_that_fit_alone_has_are_among_the_candidates():
    with pytest.raises(TypeError, match="unknown option 'verbose'.*quiet"):
        fp.fit(UNEVEN, verbose=False)


def test_an_unknown_event_to_yield_fails_at_once():
    with pytest.raises(ValueError, match="did you mean 'after_epoch'"):
        fp.events(UNEVEN, only=("after_epochs",))


@pytest.mark.parametrize(
    "options", [{"compile": "yes"}, {"compile": {"shape": True}}, {"dtype": "bfloat16"}, {"dtype": mx.int32}]
)
def test_what_the_step_does_not_take_fails_before_the_first_batch(options):
    pulled = []
    train = data.stream(lambda: (pulled.append(one) or one for one in UNEVEN))
    with pytest.raises(TypeError, match="compile|dtype"):
        fp.fit(train, quiet=True, **options)(TARGET)
    assert pulled == []


# what the loss of an epoch is


def test_the_mean_is_weighted_by_examples():
    assert row().epoch_loss == row(reduce="mean").epoch_loss == 3.0


def test_the_sum_and_the_last_are_those_of_the_batches():
    assert row(reduce="sum").epoch_loss == 8.0
    assert row(reduce="last").epoch_loss == 3.0
    assert row(UNEVEN[:2], reduce="last").epoch_loss == 4.0


def test_a_function_reduces_the_list_of_the_losses_in_order():
    seen = []
    assert row(reduce=lambda losses: seen.append(losses) or max(losses)).epoch_loss == 4.0
    assert seen == [[1.0, 4.0, 3.0]]


def test_each_epoch_is_reduced_alone():
    train = data.stream(lambda epoch: [batch(2, 1.0 + epoch), batch(2, 2.0 + epoch)])
    for reduce, wanted in {"sum": [3.0, 5.0], "last": [2.0, 3.0], max: [2.0, 3.0]}.items():
        report = fp.fit(train, epochs=2, reduce=reduce, quiet=True)(TARGET)
        assert [one.epoch_loss for one in report.rows] == wanted


@pytest.mark.parametrize(("reduce", "wanted"), [("mean", 3.0), ("sum", 8.0), ("last", 3.0), (max, 4.0)])
def test_validation_has_a_reducer_of_its_own(reduce, wanted):
    found = row([batch(2, 1.0)], validation=UNEVEN, validation_reduce=reduce)
    assert (found.epoch_loss, found.val_loss) == (1.0, wanted)
    assert row(UNEVEN, validation=[batch(2, 1.0)] * 2, reduce=reduce).val_loss == 1.0


def test_reducers_do_not_need_the_losses_to_be_kept():
    assert row(reduce=max, keep_losses=False).epoch_loss == 4.0


def test_metrics_and_what_the_loss_reports_are_means_whatever_reduces_the_loss():
    target = fp.trainer(nn.linear(1, 1), lambda model, x: (x.mean(), {"seen": x.mean()}))
    assert fp.fit(UNEVEN, reduce="sum", quiet=True)(target).rows[0].seen == 3.0


# splits


def plan():
    return data.splits(train=[batch(2, 1.0)], validation=[batch(2, 2.0)], test=[batch(2, 3.0)])


def test_splits_bring_their_validation():
    found = row(plan())
    assert (found.epoch_loss, found.val_loss) == (1.0, 2.0)


def test_validation_that_is_given_goes_before_that_of_splits():
    assert row(plan(), validation=UNEVEN).val_loss == 3.0
    assert row(plan(), validation=None).val_loss is None


def test_splits_without_validation_train_without():
    assert row(data.splits(train=UNEVEN)).val_loss is None


def test_evaluate_reads_the_test_split():
    params = nn.init(0)(nn.linear(1, 1))
    assert fp.evaluate(plan(), params=params)(TARGET) == {"loss": 3.0}
    with pytest.raises(ValueError, match="test split, and these splits have none"):
        fp.evaluate(data.splits(train=UNEVEN), params=params)


def test_evaluate_gives_metrics_and_what_the_loss_reports():
    x = mx.random.normal((8, 3), key=mx.random.key(0))
    pair = (x, (x[:, 0] > 0).astype(mx.int32))

    def loss(model, x, y):
        return fp.classification().loss(model, x, y), {"size": mx.array(float(x.shape[0]))}

    params = nn.init(0)(nn.linear(3, 2))
    found = fp.evaluate([pair, pair], params=params)(fp.trainer(nn.linear(3, 2), fp.classification(loss=loss)))
    assert found.keys() == {"loss", "accuracy", "size"}
    assert found["size"] == 8.0


def test_evaluate_takes_the_parameters_of_a_report():
    report = fp.fit(UNEVEN, quiet=True)(TARGET)
    assert fp.evaluate(UNEVEN, params=report)(TARGET) == fp.evaluate(UNEVEN, params=report.params)(TARGET)
    for other, words in ((TARGET, "got Trainer"), (5, "got int"), (None, "got NoneType")):
        with pytest.raises(TypeError, match=f"parameters are a tree of arrays.*{words}"):
            fp.evaluate(UNEVEN, params=other)(TARGET)


def test_evaluate_says_where_an_error_came_from():
    def broken(model, x):
        if x.shape[0] == 4:
            raise LookupError("four")
        return x.mean()

    with pytest.raises(LookupError, match="four") as caught:
        fp.evaluate(UNEVEN, params=nn.init(0)(nn.linear(1, 1)))(fp.trainer(nn.linear(1, 1), broken))
    assert "at split=test, batch=1" in caught.value.__notes__


# epochs


def test_no_epochs_leave_the_parameters_as_they_start():
    report = fp.fit(UNEVEN, epochs=0, seed=4, quiet=True)(TARGET)
    start = fp.fit(UNEVEN, epochs=0, seed=4, quiet=True)(TARGET).params
    assert (report.rows, report.epochs_target, report.epochs_completed, report.stopped_early) == ((), 0, 0, False)
    assert mx.array_equal(report.params["weight"], start["weight"])
    assert report.best_value is None


def test_a_run_is_one_epoch_unless_it_is_told():
    report = fp.fit(UNEVEN, quiet=True)(TARGET)
    assert (report.epochs_target, report.epochs_ran, report.epochs_completed, report.start_epoch) == (1, 1, 1, 0)
    assert (report.resume_from, report.resumed_from_epoch) == (None, None)


def test_one_fit_trains_any_number_of_trainers_alike():
    once = fp.fit(UNEVEN, epochs=2, quiet=True)
    first, second = once(TARGET), once(pipe(TARGET, fp.on("after_epoch", lambda e: None)))
    assert first.losses == second.losses
    assert mx.array_equal(first.params["weight"], second.params["weight"])


@pytest.mark.parametrize("name", ["keep_losses", "keep_best", "averaged", "quiet"])
def test_flags_are_true_or_false(name):
    with pytest.raises(TypeError, match=f"{name} of .* is True or False; got 'no'"):
        fp.fit([1], **{name: "no"})


def test_flags_of_steps_and_parts_are_true_or_false():
    with pytest.raises(TypeError, match="measure of train_step is True or False; got 1"):
        fp.train_step(nn.linear(2, 1), lambda model, x: model(x).mean(), optim.sgd(0.1), measure=1)
    with pytest.raises(TypeError, match="narrow_outputs of wide is True or False; got 'yes'"):
        nn.wide(nn.linear(2, 1), narrow_outputs="yes")
