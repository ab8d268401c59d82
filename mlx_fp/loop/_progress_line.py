"""The parts of the line that shows a run: pure functions of its progress, which all displays share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..core._bytes import bytes_text
from ._event import AfterCheckpoint, AfterEpoch, AfterEvaluation, AfterFit, AfterLog, Event
from ._progress_record import Progress
from ._rows import Row, StepRow
from ._state import Origin

__all__ = ["Line", "Note", "figure_text", "kernel_text", "line_of", "note_of", "resume_text"]


class Line(NamedTuple):
    """The parts of the line of the present moment."""

    name: str
    """For example, `"epoch 0 of 3"`."""
    done: int
    total: int | None
    """Steps in all: of the run where its number of steps is given, else of the epoch; None where it is not known."""
    figures: tuple[str, ...]
    """For example, `("loss 0.1234", "1,200 rows/s", "0:00:12 left")`."""

    @property
    def counted(self) -> str:
        """The finished steps, and the steps in all where they are known."""
        return f"{self.done}" + ("" if self.total is None else f"/{self.total}")


class Note(NamedTuple):
    """A line that stays: of an epoch, an evaluation, a logged step, a checkpoint, or the end."""

    start: str
    figures: Mapping[str, float] = {}
    more: str = ""

    def __str__(self) -> str:
        return "  ".join(
            filter(None, [self.start, *(f"{k} {figure_text(v)}" for k, v in self.figures.items()), self.more])
        )


def line_of(progress: Progress, *, kernels: int = 0, saving: bool = False) -> Line:
    """Return the line of a progress.

    Args:
        progress: The progress of a run.
        kernels: The kernels that were compiled since the last step whose kernels were all there.
        saving: Whether a checkpoint is being written.

    >>> ready = Progress(2, None, 6, 1, "rows", False, 0, 4, 4, activity="", loss=0.5, rate=1200.0, memory=8_000_000)
    >>> line_of(ready)
    Line(name='epoch 0 of 2', done=4, total=6, figures=('loss 0.5000', '1,200 rows/s', '8 MB'))
    >>> line_of(Progress(2, None, 6, 1, "rows", False, 0, 1, 1, activity="compiling"), kernels=7).figures
    ('compiling, 7 kernels',)
    """
    done, total = progress.epoch_step, progress.epoch_steps
    if progress.steps is not None:
        done, total = progress.step, progress.steps
    figures = _activities(progress, kernels, saving)
    return Line(_epoch(progress.epoch, progress.epochs), done, total, tuple(filter(None, figures)))


def note_of(progress: Progress, event: Event, *, logged: bool) -> Note | None:
    """Return the note of an event; None for an event without one.

    Args:
        progress: The progress at the event.
        event: The event.
        logged: Whether logged steps and checkpoints have notes. A display that shows both in its line has none.
    """
    match event:
        case AfterEpoch(row=row):
            return _epoch_note(progress, row)
        case AfterEvaluation(row=verdict) if progress.validates_within:
            return Note(_step(verdict.step, progress), verdict.figures())
        case AfterLog(row=step) if logged:
            return _step_note(progress, step)
        case AfterCheckpoint(path=path) if logged:
            return Note(f"saved {path}")
        case AfterFit(report=report) if report.stop_reason is not None:
            return Note(f"stopped after {report.rows[-1].steps if report.rows else 0} steps: {report.stop_reason}")
    return None


def figure_text(value: float) -> str:
    """Write a figure with four decimals, or a small one with three digits.

    >>> figure_text(0.25), figure_text(3e-5), figure_text(0.0)
    ('0.2500', '3e-05', '0.0000')
    """
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def resume_text(origin: Origin, step: int, epoch: int) -> str:
    """Say from which file and which step a run goes on; "" for a new run.

    >>> resume_text(Origin(resume_from="ckpt/ep-1.safetensors"), 12, 2)
    'resumed from ckpt/ep-1.safetensors: goes on after step 12, in epoch 2'
    """
    if origin.resume_from is None:
        return ""
    return f"resumed from {origin.resume_from}: goes on after step {step}, in epoch {epoch}"


def kernel_text(count: int) -> str:
    """Return the number of kernels as text.

    >>> kernel_text(1), kernel_text(7)
    ('1 kernel', '7 kernels')
    """
    return f"{count} kernel{'s' if count > 1 else ''}"


def _activities(progress: Progress, kernels: int, saving: bool) -> list[str]:
    compiling = f"compiling, {kernel_text(kernels)}" if kernels > 0 else ""
    if progress.activity == "compiling":
        return [compiling or "compiling"]
    if progress.activity == "starting":
        return ["starting"]
    loss, validation, rate, left = progress.loss, progress.validation, progress.learning_rate, progress.seconds_left
    return [
        "" if loss is None else f"loss {figure_text(loss)}",
        "" if validation is None else f"{validation[0]} {figure_text(validation[1])}",
        "" if rate is None else f"lr {rate:.3g}",
        "" if progress.rate is None else f"{progress.rate:,.0f} {progress.unit}/s",
        bytes_text(progress.memory) if progress.memory else "",
        "" if left is None else f"{_duration(left)} left",
        progress.activity,
        compiling,
        "saving" if saving else "",
    ]


def _epoch_note(progress: Progress, row: Row) -> Note:
    step = "" if progress.steps is None else f"  {_step(row.steps, progress)}"
    name = _epoch(row.epoch, progress.epochs) + (" (cut)" if row.cut else "")
    return Note(name + step, row.figures(), f"{row.examples_per_second:,.0f} rows/s")


def _step_note(progress: Progress, row: StepRow) -> Note:
    rates = {"learning_rate": row.learning_rate, "grad_norm": row.grad_norm}
    figures = {"loss": row.loss, **row.figures, **{k: v for k, v in rates.items() if v is not None}}
    rows, tokens = row.rows_per_second or 0.0, row.tokens_per_second
    rate = f"{rows:,.0f} rows/s" if tokens is None else f"{tokens:,.0f} tokens/s"
    return Note(_step(row.step, progress), figures, rate)


def _epoch(epoch: int, epochs: int | None) -> str:
    return f"epoch {epoch}" + ("" if epochs is None else f" of {epochs}")


def _step(step: int, progress: Progress) -> str:
    return f"step {step}" + ("" if progress.steps is None else f"/{progress.steps}")


def _duration(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds.

    >>> _duration(3725.4)
    '1:02:05'
    """
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60 // 1:02.0f}"
