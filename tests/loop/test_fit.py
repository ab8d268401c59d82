"""`fit`, `events` and `evaluate` through the real compiled step."""

import mlx.core as mx
import pytest
from helpers import assert_close, assert_same_bits, bits
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop._event_table import EVENTS

X = mx.random.normal((40, 4), key=mx.random.key(3))
Y = (X[:, 0] > 0).astype(mx.int32)
TRAIN = pipe(data.arrays(x=X, y=Y), data.shuffle(seed=5), data.batch(16))  # batches of 16, 16 and 8
HELD = pipe(data.arrays(x=X[:20], y=Y[:20]), data.batch(8))
MODEL = nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.3), nn.linear(8, 2))


def trainer(*verbs, model=MODEL):
    return pipe(fp.trainer(model, fp.classification()), fp.with_optimizer(optim.adam(1e-2)), *verbs)


def fit(target, **options):
    return pipe(target, fp.fit(TRAIN, quiet=True, **options))


def test_fit_equals_the_step_in_a_hand_written_loop_bit_for_bit():
    report = fit(trainer(), epochs=2, seed=9)
    step = fp.train_step(MODEL, fp.classification().loss, optim.adam(1e-2), metrics=[fp.accuracy()])
    params, opt_state = step.init(9)
    losses = []
    for epoch in range(2):
        opt_state = {**opt_state, "metrics": {"accuracy": fp.accuracy().init()}}
        for batch in TRAIN.open(data.Cursor(epoch)):
            params, opt_state, logs = step(params, opt_state, batch)
            losses.append(logs["loss"].item())
    assert_same_bits(report.params, params)
    assert_same_bits(report.opt_state, opt_state)
    assert list(report.losses) == losses


def test_equal_runs_give_equal_bits_and_other_seeds_other_bits():
    first, again, other = (fit(trainer(), epochs=1, seed=seed) for seed in (1, 1, 2))
    assert_same_bits(first.params, again.params)
    assert bits(first.params) != bits(other.params)


def test_rows_weigh_losses_and_metrics_by_examples():
    seen = []
    report = fit(trainer(fp.on("after_step", lambda e: seen.append((e.loss_value, len(e.batch["y"]))))), epochs=1)
    row = report.rows[0]
    assert [count for _, count in seen] == [16, 16, 8]
    assert row.epoch_loss == pytest.approx(sum(loss * count for loss, count in seen) / 40)
    assert (row.batches, row.examples, row.steps) == (3, 40, 3)
    assert 0 <= row.accuracy <= 1


def test_validation_leaves_dropout_out_and_statistics_alone():
    buffers = []
    hooks = (
        fp.on("before_validation", lambda e: buffers.append(e.state.params["layers"][1]["running_mean"])),
        fp.on("after_validation", lambda e: buffers.append(e.state.params["layers"][1]["running_mean"])),
    )
    report = fit(trainer(*hooks), validation=HELD, epochs=1)
    assert mx.array_equal(*buffers)
    results = pipe(trainer(), fp.evaluate(HELD, params=report.params))
    assert results == {"loss": report.rows[0].val_loss, "accuracy": report.rows[0].val_accuracy}
    logits = nn.predictor(report.params)(MODEL)(X[:20])
    assert results["accuracy"] == pytest.approx((mx.argmax(logits, axis=1) == Y[:20]).mean().item())
    assert results["loss"] == pytest.approx(nn.losses.cross_entropy(logits, Y[:20], reduction="mean").item(), rel=1e-5)


def test_events_come_in_order_and_steps_count_from_0():
    stream = fp.events(TRAIN, validation=HELD, epochs=2)(trainer())
    names = {kind: name for name, kind in EVENTS.items()}
    got = list(stream)
    epoch = (
        ["before_epoch"]
        + ["before_step", "after_backward", "after_step"] * 3
        + ["before_validation", *["after_validation_batch"] * 3, "after_validation", "after_evaluation", "after_epoch"]
    )
    assert [names[type(e)] for e in got] == ["before_fit", *epoch, *epoch, "after_fit"]
    assert [e.step for e in got if names[type(e)] == "after_step"] == list(range(6))
    assert got[0].batches == 3
    assert [e.epoch for e in got if names[type(e)] == "after_epoch"] == [0, 1]
    assert [e.step for e in got if names[type(e)] in ("before_validation", "after_evaluation")] == [3, 3, 6, 6]


@pytest.mark.slow
def test_a_stream_is_lazy_and_closing_it_ends_the_run():
    pulled = []
    stream = fp.events([(X, Y)] * 5, only=("after_step",))
    run = stream(trainer(fp.on("before_step", lambda e: pulled.append(e.step))))
    assert pulled == []
    next(run)
    next(run)
    run.close()
    assert pulled == [0, 1]


def test_no_record_is_made_of_an_event_without_listeners(monkeypatch):
    made = []
    noted = {
        name: lambda *args, kind=kind, **kw: made.append(kind.__name__) or kind(*args, **kw)
        for name, kind in EVENTS.items()
    }
    monkeypatch.setattr("mlx_fp.loop._dispatching.EVENTS", noted)
    fit(trainer(fp.on("after_epoch", lambda e: None)), validation=HELD, epochs=2)
    assert made == ["AfterEpoch", "AfterEpoch"]


def test_two_halves_give_the_bits_of_the_whole_step():
    whole = fit(trainer(), epochs=2)
    halves = fit(trainer(fp.on("after_backward", lambda e: None)), epochs=2)
    assert_same_bits(whole.params, halves.params)
    assert_same_bits(whole.opt_state, halves.opt_state)


def test_a_hook_may_replace_gradients_parameters_and_state():
    nothing = fp.on("after_backward", lambda e: fp.Replace(grads=_map(mx.zeros_like, e.grads)))
    still = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), fp.with_optimizer(optim.sgd(0.1)), nothing)
    start = nn.init(0)(nn.linear(4, 2))
    assert_same_bits(fit(still, params=start).params, start)
    zeros = _map(mx.zeros_like, start)
    put = fp.on("after_epoch", lambda e: fp.Replace(params=zeros))
    assert_same_bits(fit(pipe(fp.trainer(nn.linear(4, 2), fp.classification()), put)).params, zeros)


def _map(fn, tree):
    return fp.restore_like(tree, {path: fn(leaf) for path, leaf in fp.flat(tree).items()})


def test_grad_norm_is_before_clipping_and_asks_for_what_measures_it():
    norms, by_hand = [], []
    hooks = (
        fp.on("after_backward", lambda e: by_hand.append(fp.norm(e.grads).item())),
        fp.on("after_step", lambda e: norms.append(e.grad_norm)),
    )
    clipped = pipe(trainer(*hooks), fp.with_optimizer(optim.clip_norm(1e-3)(optim.sgd(0.1))))
    fit(clipped)
    assert norms == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(KeyError, match="grad_norm"):
        fit(trainer(fp.on("after_step", lambda e: e.grad_norm)))


def test_averages_are_validated_where_they_are_asked_for():
    target = pipe(trainer(), fp.with_optimizer(pipe(optim.sgd(0.5), optim.ema(0.9))))
    plain, averaged = (fit(target, validation=HELD, epochs=2, averaged=flag) for flag in (False, True))
    assert_same_bits(plain.params, averaged.params)
    mean = optim.averaged(averaged.opt_state)(averaged.params)
    for report, params in ((plain, plain.params), (averaged, mean)):
        assert report.rows[-1].val_loss == fp.evaluate(HELD, params=params)(target)["loss"]
    assert plain.rows[-1].val_loss != averaged.rows[-1].val_loss
    with pytest.raises(KeyError, match="no wrapper of this optimiser keeps 'average'"):
        fit(trainer(), validation=HELD, averaged=True)


def test_stop_ends_the_run_after_the_step_and_says_why():
    report = fit(trainer(fp.on("after_step", lambda e: fp.Stop("seen enough") if e.step == 1 else None)), epochs=3)
    assert report.stopped_early
    assert report.stop_reason == "seen enough"
    assert (report.epochs_ran, report.rows[-1].steps) == (1, 2)


def test_an_exception_keeps_its_class_and_says_where():
    def broken(e):
        if e.step == 4:
            raise LookupError("no such thing")

    ended = []
    target = trainer(fp.on("after_step", broken), fp.on("after_fit", lambda e: ended.append(e.report)))
    with pytest.raises(LookupError, match="no such thing") as caught:
        fit(target, epochs=3)
    assert "at split=train, epoch=1, batch=1, stage=after_step" in caught.value.__notes__
    assert ended[0].stop_reason == "LookupError: no such thing"
    assert ended[0].epochs_ran == 1


def test_an_exception_in_the_compiled_step_says_where_too():
    batches = [(X, Y), (X[:, :3], Y)]
    with pytest.raises(ValueError, match=r"\[addmm\]|shape") as caught:
        pipe(trainer(), fp.fit(batches, quiet=True))
    assert any(note.startswith("in layers.0") for note in caught.value.__notes__)
    assert "at split=train, epoch=0, batch=1, stage=step" in caught.value.__notes__


def test_an_epoch_without_batches_is_an_error():
    with pytest.raises(ValueError, match="gave no batch"):
        pipe(trainer(), fp.fit([], quiet=True))
    with pytest.raises(ValueError, match="gave no batch"):
        fit(trainer(), validation=pipe(HELD, data.filter(lambda batch: False)))


def test_a_one_shot_iterator_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="stream"):
        fp.fit(batch for batch in [(X, Y)])


def test_pairs_and_numpy_work_for_train_and_validation_alike():
    numpy = pytest.importorskip("numpy")
    pairs = [(numpy.array(X[i : i + 10]), numpy.array(Y[i : i + 10])) for i in (0, 10, 20)]
    report = pipe(trainer(), fp.fit(pairs, validation=pairs[:1], quiet=True))
    assert report.rows[0].validation_batches == 1
    assert report.rows[0].examples == 30


def test_losses_may_be_dropped_and_rows_stay():
    kept, dropped = fit(trainer(), epochs=2), fit(trainer(), epochs=2, keep_losses=False)
    assert dropped.losses == ()
    assert len(kept.losses) == 6
    assert [r.epoch_loss for r in kept.rows] == [r.epoch_loss for r in dropped.rows]


def test_what_a_loss_reports_is_a_mean_over_examples_in_the_rows():
    task = fp.Task("mine", lambda model, x, y: (model(x).mean(), {"count": mx.array(float(x.shape[0]))}))
    report = pipe(fp.trainer(nn.linear(4, 2), task), fp.fit(TRAIN, quiet=True))
    assert report.rows[0].count == pytest.approx((16 * 16 + 16 * 16 + 8 * 8) / 40)


@pytest.mark.parametrize("name", ["accuracy", "seconds", "val_error"])
def test_a_name_of_a_row_or_metric_is_refused_at_the_first_step(name):
    def loss(model, x, y):
        return nn.losses.cross_entropy(model(x), y, reduction="mean"), {name: mx.array(0.0)}

    steps = []
    target = pipe(fp.trainer(MODEL, fp.classification(loss=loss)), fp.on("before_step", lambda e: steps.append(e.step)))
    with pytest.raises(ValueError, match=f"a loss reports {name}: rows and metrics have names like these"):
        fp.fit(TRAIN, quiet=True)(target)
    assert steps == [0]
    report = fit(trainer())
    with pytest.raises(ValueError, match=f"a loss reports {name}"):
        fp.evaluate(TRAIN, params=report.params)(target)


def test_a_metric_that_is_no_scalar_is_a_list():
    each = fp.Metric("each", lambda: mx.zeros((2,)), lambda memory, output, x, y: memory + 1, lambda memory: memory)
    report = fit(trainer(fp.with_metrics(each)))
    assert report.rows[0].each == [len(TRAIN), len(TRAIN)]


def test_one_trace_per_batch_shape_over_the_whole_run():
    traced = []

    def loss(model, x, y):
        traced.append(x.shape)
        return fp.classification().loss(model, x, y)

    pipe(fp.trainer(MODEL, loss), fp.fit(TRAIN, validation=HELD, epochs=3, quiet=True))
    assert sorted(traced) == sorted([(16, 4), (8, 4), (8, 4), (4, 4)])  # train, train, validation, validation


@pytest.mark.parametrize("epochs", [-1, 1.5, True])
def test_a_wrong_count_of_epochs_fails_at_once(epochs):
    with pytest.raises(ValueError, match="epochs"):
        fp.fit(TRAIN, epochs=epochs)


def test_unknown_options_and_events_come_back_with_candidates():
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        fp.fit(TRAIN, epoch=3)
    with pytest.raises(ValueError, match="did you mean 'after_step'"):
        fp.events(TRAIN, only=("after_stp",))
    with pytest.raises(ValueError, match="did you mean 'after_epoch'"):
        fp.on("afterepoch", print)


def test_uncompiled_equals_compiled():
    compiled, plain = fit(trainer()), fit(trainer(), compile=False)
    assert list(compiled.losses) == pytest.approx(list(plain.losses), rel=1e-4)


def test_freeze_on_a_trainer_keeps_that_part():
    start = nn.init(0)(MODEL)
    report = fit(trainer(fp.freeze("layers.0")), params=start, epochs=2)
    assert_same_bits(report.params["layers"][0], start["layers"][0])
    assert bits(report.params["layers"][4]) != bits(start["layers"][4])
    assert fp.paths("layers.0")(report.opt_state["optimizer"]["memory"]) == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_ends_with_a_whole_report_and_goes_on(error):
    def interrupt(e):
        if e.step == 4:
            raise error

    ended = []
    target = trainer(fp.on("after_step", interrupt), fp.on("after_fit", lambda e: ended.append(e.report)))
    with pytest.raises(error):
        fit(target, epochs=3)
    assert ended[0].stop_reason.startswith(error.__name__)
    assert (ended[0].epochs_completed, ended[0].stopped_early) == (1, True)
    assert mx.isfinite(ended[0].params["layers"][0]["weight"]).all()


def test_closing_the_stream_runs_the_last_hooks():
    ended = []
    run = fp.events(TRAIN, epochs=2, only=("after_step",))(trainer(fp.on("after_fit", ended.append)))
    next(run)
    run.close()
    assert [e.report.stop_reason for e in ended] == ["the stream was closed"]


def test_nothing_happens_before_the_first_event_is_asked_for():
    run = fp.events(TRAIN)(trainer(fp.freeze()))
    with pytest.raises(ValueError, match="nothing trains"):
        next(run)


def test_hooks_that_replace_gradients_compose():
    halve = fp.on("after_backward", lambda e: fp.Replace(grads=_map(lambda g: g / 2, e.grads)))
    plain = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), fp.with_optimizer(optim.sgd(0.4)))
    quarter = pipe(plain, fp.with_optimizer(optim.sgd(0.1)))
    one, other = fit(pipe(plain, halve, halve)), fit(quarter)
    assert_close(one.params, other.params)
    with pytest.raises(TypeError, match="after_backward"):
        fit(trainer(fp.on("before_step", lambda e: fp.Replace(grads={}))))


def test_a_stop_is_obeyed_wherever_it_comes_from():
    assert fit(trainer(fp.on("after_epoch", lambda e: fp.Stop(""))), epochs=3).epochs_ran == 1
    before = fit(trainer(fp.on("before_epoch", lambda e: fp.Stop("no") if e.epoch == 1 else None)), epochs=3)
    assert (before.epochs_ran, before.epochs_completed, before.opt_state["optimizer"]["step"].item()) == (1, 1, 3)
    cut = fit(trainer(fp.on("after_step", lambda e: fp.Stop("half way"))), epochs=1)
    assert (cut.epochs_completed, cut.stopped_early) == (0, True)
    last = fit(trainer(fp.on("after_epoch", lambda e: fp.Stop("done") if e.epoch == 1 else None)), epochs=2)
    assert (last.stopped_early, last.stop_reason) == (False, "done")


def test_what_a_hook_does_in_place_changes_nothing():
    def meddle(e):
        e.state.params["layers"][0]["weight"] += 100

    start = nn.init(0)(MODEL)
    first = fp.flat(start)["layers.0.weight"].tolist()
    meddled = fit(trainer(fp.on("before_fit", meddle), fp.on("after_step", meddle)), params=start)
    assert_same_bits(meddled.params, fit(trainer(), params=start).params)
    assert fp.flat(start)["layers.0.weight"].tolist() == first


def test_batches_are_weighted_by_their_arrays_not_by_numbers_before_them():
    batches = [{"rate": 1.0, "x": mx.full((n, 4), float(n))} for n in (30, 10)]
    report = pipe(
        fp.trainer(nn.linear(4, 1), lambda model, rate, x: model(x).mean() * 0 + x.mean()), fp.fit(batches, quiet=True)
    )
    assert report.rows[0].examples == 40
    assert report.rows[0].epoch_loss == pytest.approx((30 * 30 + 10 * 10) / 40)


@pytest.mark.parametrize("name", ["epoch", "accuracy", "val_loss"])
def test_a_loss_cannot_report_under_the_name_of_a_field_or_metric(name):
    task = fp.classification(loss=lambda model, x, y: (model(x).mean(), {name: mx.array(1.0)}))
    with pytest.raises(ValueError, match=name):
        pipe(fp.trainer(MODEL, task), fp.fit(TRAIN, quiet=True))


def test_an_error_after_a_validation_batch_says_where():
    def broken(e):
        raise LookupError

    with pytest.raises(LookupError) as caught:
        fit(trainer(fp.on("after_validation_batch", broken)), validation=HELD)
    assert "at split=validation, epoch=0, batch=0, stage=after_validation_batch" in caught.value.__notes__
