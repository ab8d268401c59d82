"""The progress of a run as a value: it reads nothing that the run has not waited for."""

from dataclasses import replace

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.core.backend import device_backend
from mlx_fp.loop import _progress, _progress_record
from mlx_fp.loop._progress import Shown
from mlx_fp.loop._state import LoopState, Moment, Moving
from mlx_fp.loop._totals import IN_FLIGHT, Sums, queue_of

X = mx.random.normal((96, 3), key=mx.random.key(0))
TRAIN = pipe(data.arrays(x=X, y=(X[:, 0] > 0).astype(mx.int32)), data.batch(8))
MODEL = fp.trainer(nn.linear(3, 2), fp.classification())


class Number:
    """A loss. Reading one that is in flight is an error."""

    def __init__(self, value, ready):
        self.value, self.ready = value, ready

    def item(self):
        assert self.ready, "a display has waited for the device"
        return self.value


def moment(updates, *, epoch=0, rows=4, read=0, ready=None):
    """A moment after a number of updates, of which all but the newest `IN_FLIGHT + 1` are ready to be read."""
    ready = updates - IN_FLIGHT - 1 if ready is None else ready
    entries = [({"loss": Number(float(i), i < ready)}, {"loss": rows}, i, i) for i in range(read, updates)]
    sums = Sums(updates, updates, rows * updates, len(entries), queue_of(entries))
    return Moment(LoopState(Moving(None, sums, ()), epoch, 10 * epoch), Moving(None, sums, ()))


def noted(progress, *moments, seconds=1.0, waited=IN_FLIGHT + 1):
    for i, each in enumerate(moments, 1):
        progress = _progress_record.note_moment(progress, each, seconds=i * seconds, memory=5, waited=waited)
    return progress


START = _progress_record.Progress(2, None, 10, 1, "rows", False, 0, 0, 0)


def test_the_first_step_compiles_and_the_second_is_timed():
    first, second = noted(START, moment(1)), noted(START, moment(1), moment(2))
    assert (START.activity, first.activity, second.activity) == ("starting", "compiling", "")
    assert first.seconds_left is None
    assert second.seconds_left is None
    assert noted(START, *map(moment, range(1, 6))).seconds_left == 15 * 1.0


def test_the_loss_is_one_that_was_waited_for():
    progress = noted(START, *map(moment, range(1, 8)))
    assert progress.loss == 3.0
    assert noted(START, moment(2)).loss is None


def test_a_run_that_waits_for_no_step_shows_no_loss_before_it_is_read():
    assert noted(START, *map(moment, range(1, 8)), waited=None).loss is None


def test_the_rate_leaves_out_pauses():
    progress = noted(START, *map(moment, range(1, 6)))
    assert progress.rate == pytest.approx(4.0)
    paused = _progress_record.note_event(progress, fp.event("before_validation", {}, {}, epoch=0, step=5))
    assert (paused.activity, paused.newest) == ("validating", None)
    after = _progress_record.note_moment(paused, moment(6), seconds=1000.0, memory=5, waited=3)
    assert after.rate == progress.rate


def test_another_event_changes_nothing():
    assert _progress_record.note_event(START, fp.event("after_validation", {}, {}, row=None)) is START


class Recorder:
    """A display that keeps the lines and the notes."""

    logged = True
    lines, notes, ends = [], [], []

    def __init__(self, read):
        self.read = read
        for kept in (self.lines, self.notes, self.ends):
            kept.clear()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def note(self, note):
        self.notes.append(str(note))

    def refresh(self):
        self.lines.append(self.read())

    def finish(self, report):
        self.ends.append(report)


@pytest.fixture
def shown(monkeypatch):
    """Run with a display that keeps everything, and that reads the run at each moment."""
    monkeypatch.setattr(_progress, "_display", lambda: Recorder)
    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    watch = Shown._watch

    def watched(self, moment):
        watch(self, moment)
        self.display.refresh()

    monkeypatch.setattr(Shown, "_watch", watched)

    def run(*verbs, **options):
        report = pipe(MODEL, *verbs, fp.fit(TRAIN, **options))
        return report, list(Recorder.lines), [note for note in Recorder.notes if not note.startswith("compiled")]

    return run


def test_a_run_shows_each_of_its_steps_and_ends_with_the_report(shown):
    report, lines, notes = shown(epochs=2, validation=TRAIN, log_every=6)
    counted = [line.counted for line in lines if line.name == "epoch 1 of 2"]
    assert list(dict.fromkeys(counted)) == [f"{n}/12" for n in range(13)]
    assert [note.split("  ")[0] for note in notes] == [
        "compiling",
        "step 6",
        "step 12",
        "epoch 0 of 2",
        "step 18",
        "step 24",
        "epoch 1 of 2",
    ]
    texts = {figure.split(" ")[0] for line in lines for figure in line.figures}
    assert {"starting", "compiling", "loss", "val_loss", "lr", "validating"} <= texts
    assert any(figure.endswith("left") for line in lines for figure in line.figures)
    assert any(figure.endswith("rows/s") for line in lines for figure in line.figures)
    assert [str(end) for end in Recorder.ends] == [str(report)]


def test_the_time_of_kernels_that_are_compiled_later_is_the_time_of_no_step(monkeypatch):
    built, clock, notes = [0], [0.0], []
    backend = replace(device_backend(), kernels=lambda: built[0])
    monkeypatch.setattr(_progress, "device_backend", lambda: backend)
    monkeypatch.setattr(_progress.time, "monotonic", lambda: clock[0])
    shown = Shown.__new__(Shown)
    shown.progress, shown.due, shown.writer, shown.kernels, shown.seen, shown.waited = START, 0.0, None, 0, 0.0, None
    shown.display = Recorder(shown.line)
    monkeypatch.setattr(shown.display, "note", lambda note: notes.append(str(note)))

    def after(seconds, updates, kernels):
        clock[0] += seconds
        built[0] += kernels
        shown._watch(moment(updates))
        return shown.progress.seconds_left

    assert after(1.0, 1, 0) is None
    assert after(9.0, 2, 7) is None
    assert after(1.0, 3, 0) == 17.0
    assert after(5.0, 4, 3) == 8.0  # two steps since the first one, in one second
    assert after(1.0, 5, 0) == pytest.approx(15 * 2 / 3)
    assert notes == ["compiling", "compiled 7 kernels", "compiled 3 kernels"]
    clock[0], built[0] = clock[0] + 1.0, 12
    assert shown.line().figures[-1] == "compiling, 2 kernels"


def test_losses_that_are_shown_are_those_of_the_run(shown):
    report, lines, _ = shown(epochs=1)
    seen = {figure for line in lines for figure in line.figures if figure.startswith("loss")}
    known = {f"loss {loss:.4f}" for loss in (*report.losses, report.rows[-1].loss)}
    assert len(seen) > 5
    assert seen <= known


@pytest.mark.parametrize(
    "options",
    [
        {"sync": "epoch"},
        {"sync": "none"},
        {"sync": "step"},
        {"accumulate": 2},
        {"steps_per_call": 3},
        {"steps": 5},
        {"nonfinite": "skip"},
        {"validation": TRAIN, "validate_every": 4},
    ],
    ids=str,
)
def test_a_run_is_the_same_with_a_display(shown, options):
    report, lines, _ = shown(**options)
    assert lines
    assert report.losses == pipe(MODEL, fp.fit(TRAIN, quiet=True, **options)).losses


def test_steps_of_several_batches_are_counted_as_steps(shown):
    _, lines, _ = shown(accumulate=5)
    assert lines[-1].counted == "3/3"


def test_tokens_per_second_where_the_task_counts_tokens(monkeypatch, shown):
    tokens = mx.random.randint(0, 7, (6400, 5), key=mx.random.key(0))
    rows = pipe(data.arrays(x=tokens[:, :-1], y=tokens[:, 1:]), data.batch(16))
    model = nn.sequential(nn.embedding(7, 4), nn.linear(4, 7))
    target = fp.with_optimizer(optim.sgd(0.1))(fp.trainer(model, fp.language_modeling()))
    fp.fit(rows)(target)
    figures = [figure for line in Recorder.lines for figure in line.figures]
    assert any(figure.endswith(" tokens/s") for figure in figures)
    assert not any(figure.endswith(" rows/s") for figure in figures)


def test_a_run_that_goes_on_says_from_where(shown, tmp_path, caplog):
    policy = fp.checkpoints(tmp_path / "ep-{epoch}")
    shown(policy, epochs=1)
    _, _, notes = shown(policy, epochs=2, resume="latest")
    path = tmp_path / "ep-0.safetensors"
    assert notes[0] == f"resumed from {path}: goes on after step 12, in epoch 1"
    assert notes[-1] == f"saved {tmp_path / 'ep-1.safetensors'}"
    with caplog.at_level("INFO", "mlx_fp.loop"):
        pipe(MODEL, policy, fp.fit(TRAIN, epochs=3, resume=path, quiet=True))
    assert f"resumed from {path}: goes on after step 12, in epoch 1" in caplog.messages


def test_an_epoch_that_was_cut_is_marked(shown):
    report, _, notes = shown(fp.on("after_step", lambda e: fp.Stop("enough") if e.step == 15 else None), epochs=3)
    assert notes[-2].startswith("epoch 1 of 3 (cut)")
    assert notes[-1] == "stopped after 16 steps: enough"
    assert [line.split()[:2] for line in str(report).splitlines()[1:]][1] == ["1", "(cut)"]
    assert [row["cut"] for row in report.to_dict()["rows"]] == [False, True]
