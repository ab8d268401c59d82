"""The driver of a run: the report of the end, whatever ends it."""

import signal

import mlx.core as mx
import pytest
from helpers import python_process
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.loop._series import Series

X = mx.random.normal((12, 3), key=mx.random.key(0))
TRAIN = [(X[i : i + 4], X[i : i + 4].sum(axis=1)) for i in (0, 4, 8)]


def fit(*verbs, train=TRAIN, loss=None, **options):
    task = fp.regression(metrics=[]) if loss is None else loss
    target = pipe(fp.trainer(nn.linear(3, 1), task, optimizer=optim.sgd(0.1)), *verbs)
    return pipe(target, fp.fit(train, quiet=True, **{"epochs": 2, "keep_losses": True, **options}))


def broken(event):
    raise LookupError("mine")


@pytest.mark.parametrize(
    ("name", "when", "rows", "losses"),
    [
        ("before_epoch", lambda e: e.epoch == 1, 1, 3),
        ("before_step", lambda e: e.step == 3, 1, 3),
        ("after_epoch", lambda e: True, 1, 3),
        ("after_epoch", lambda e: e.epoch == 1, 2, 6),
    ],
)
def test_the_report_after_an_error_has_every_epoch_that_was_finished(name, when, rows, losses):
    reports = []
    with pytest.raises(LookupError):
        fit(fp.on(name, broken, when=when), fp.on("after_fit", lambda e: reports.append(e.report)))
    (report,) = reports
    assert (len(report.rows), len(report.losses)) == (rows, losses)
    assert report.stop_reason == "LookupError: mine"


def test_the_report_after_an_error_in_a_step_has_the_parameters_of_that_step():
    seen, reports = [], []
    look = fp.on("after_step", lambda e: seen.append(e.state.params["weight"]), priority=-1)
    fail = fp.on("after_step", broken, when=lambda e: e.step == 1)
    with pytest.raises(LookupError):
        fit(look, fail, fp.on("after_fit", lambda e: reports.append(e.report)))
    assert mx.array_equal(reports[0].params["weight"], seen[-1])


def raising(error):
    def hook(event):
        raise error

    return fp.on("after_fit", hook)


@pytest.mark.parametrize("second", [RuntimeError("second"), SystemExit("second"), GeneratorExit("second")])
def test_what_fails_in_after_fit_is_a_note_of_the_error_that_ended_the_run(second):
    with pytest.raises(LookupError, match="mine") as caught:
        fit(fp.on("before_step", broken), raising(second))
    assert f"after_fit failed, too: {type(second).__name__}: second" in caught.value.__notes__


def test_an_interrupt_in_after_fit_names_the_error_that_ended_the_run():
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(fp.on("before_step", broken), raising(KeyboardInterrupt()))
    assert caught.value.__notes__ == ["it came after LookupError: mine"]


def test_what_fails_in_after_fit_as_a_stream_is_closed_is_in_the_log(caplog):
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(metrics=[])), raising(RuntimeError("second")))
    stream = pipe(target, fp.events(TRAIN, only=("after_step",)))
    next(stream)
    stream.close()
    assert "after_fit failed, too: RuntimeError: second" in caplog.text


def test_what_hooks_ask_at_the_end_is_in_the_report():
    zeros = fp.on("after_fit", lambda e: fp.Replace(params=tree_map(mx.zeros_like, e.report.params)))
    report = fit(zeros, fp.on("after_fit", lambda e: fp.Stop("late")))
    assert report.stop_reason == "late"
    assert not report.params["weight"].any()


def interrupting(value):
    def raised(*args):
        signal.raise_signal(signal.SIGTERM)
        return value

    return raised


PLACES = {
    "the monitor": ([fp.monitor("mine", mode="min", metric=interrupting(1.0))], {}),
    "the reduction of losses": ([], {"reduce": interrupting(1.0)}),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_is_heard_wherever_in_the_last_epoch_it_comes(place, tmp_path):
    verbs, options = PLACES[place]
    report = fit(*verbs, fp.checkpoints(tmp_path / "{epoch}", every=5), epochs=1, **options)
    assert (report.stop_reason, report.exit_status) == ("SIGTERM", 143)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_signal_after_the_last_epoch_changes_nothing(tmp_path):
    late = fp.on("after_checkpoint", lambda e: signal.raise_signal(signal.SIGTERM) if e.epoch == 1 else None)
    report = fit(late, fp.checkpoints(tmp_path / "{epoch}", background=True))
    assert (report.stop_reason, report.epochs_completed, report.exit_status) == (None, 2, 0)


def test_figures_that_only_some_batches_report_are_kept():
    def loss(model, x, y):
        value = ((model(x)[:, 0] - y) ** 2).mean()
        return value, {"full" if len(x) == 4 else "short": mx.array(2.0 * len(x))}

    short = (X[:2], X[:2].sum(axis=1))
    row = fit(train=[*TRAIN, short], loss=loss, epochs=1).rows[0]
    assert row.metrics == {"full": 8.0, "short": 4.0}, "each is the mean over the batches that report it"


def test_data_are_closed_when_an_error_leaves_a_validation():
    closed = []

    def batches(epoch):
        try:
            yield from TRAIN
        finally:
            closed.append(epoch)

    with pytest.raises(LookupError) as caught:
        fit(fp.on("after_validation_batch", broken), validation=fp.data.stream(batches))
    assert closed == [0], caught.value


@given(st.lists(st.integers(0, 300), max_size=9))
def test_a_series_is_a_list(sizes):
    series, plain = Series(), []
    for size in sizes:
        before, more = series, list(range(len(plain), len(plain) + size))
        series = series.extend(more)
        assert before.values() == plain, "to extend a series changes another one"
        plain += more
        assert series.values() == plain
    assert series == Series().extend(plain)


def test_a_long_series_is_a_list_too_and_extends_without_copying_itself():
    series = Series()
    for number in range(10_000):
        series = series.extend([number])
        assert len(series.last) < 512
    assert series.values() == list(range(10_000))


def test_emit_wants_a_state_for_each_hook_and_an_event():
    hooks = (fp.hook("before_epoch", print),)
    event = fp.event("before_epoch", {}, {}, epoch=0)
    with pytest.raises(ValueError, match="each hook has a state"):
        fp.emit(hooks, (), event)
    with pytest.raises(TypeError, match=r"an event is a record that event\(name, …\) makes; got 'before_epoch'"):
        fp.emit(hooks, fp.hook_states(hooks), "before_epoch")


def test_the_first_final_word_stands_even_without_a_reason():
    hooks = (fp.hook("before_epoch", lambda e: fp.Stop("")), fp.hook("before_epoch", lambda e: fp.Stop("second")))
    states, _, asked = fp.emit(hooks, fp.hook_states(hooks), fp.event("before_epoch", {}, {}, epoch=0))
    assert [state.ended for state in states] == ["", None]
    assert asked == (fp.Stop(""), fp.Stop("second"))


def test_a_stream_that_is_open_when_python_ends_is_closed_without_a_crash(tmp_path):
    code = """
import sys
import mlx.core as mx, mlx_fp as fp
from mlx_fp import nn
trainer = fp.trainer(nn.linear(3, 1), lambda model, x: model(x).mean())
stream = fp.events([mx.ones((2, 3))] * 9, only=("before_epoch",), epochs=9, out=sys.argv[1])(trainer)
next(stream), next(stream)
"""
    python_process(code, tmp_path / "run")
