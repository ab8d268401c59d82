"""Draw a chart as inline SVG: axes, lines with gaps, and the value of each point in its title."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ._axes import Axis, axis
from ._panels import Line
from ._thin import is_drawn, thin
from ._words import count_text, figure_text, safe

__all__ = ["Best", "Drawn", "chart"]

WIDTH, HEIGHT = 520, 232
_TOP, _BOTTOM, _RIGHT = 14, 40, 16
_CHARACTER = 8
"""The width of a digit of a label on a narrow screen, where labels are larger."""

_MOST_MARKS = 40
"""The largest number of points that are drawn as dots on their line."""

_MOST_DOTTED = 8
"""The largest number of lines that have dots."""

_MOST_GAPS = 60


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line with its looks."""

    line: Line
    title: str
    """The words before each value, for example "validation"."""
    colour: str
    """The CSS class of the colour."""
    look: str = ""
    """The CSS class of the stroke: "faint", "dashed" or nothing."""


@dataclass(frozen=True, slots=True)
class Best:
    """The point of the best evaluation."""

    step: float
    value: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """The axes of a chart, and the place of the plot on it."""

    x: Axis
    y: Axis
    left: float

    def at(self, step: float, value: float) -> tuple[float, float]:
        across = self.left + self.x.place(step) * (WIDTH - self.left - _RIGHT)
        return across, HEIGHT - _BOTTOM - self.y.place(value) * (HEIGHT - _TOP - _BOTTOM)


def chart(
    name: str,
    drawn: Sequence[Drawn],
    *,
    key: str,
    across: Axis,
    zero: bool = False,
    best: Best | None = None,
    most: int = 500,
) -> str:
    """Return one chart as an SVG element.

    Args:
        name: The name of the figure.
        drawn: The lines. All of them are over steps.
        key: An identifier that no other chart of the page has.
        across: The horizontal axis, of steps.
        zero: Whether the vertical axis begins at 0. Default: False.
        best: The point to mark.
        most: About the largest number of points of a line.
    """
    kept = [(each, thin(each.line.values, most)) for each in drawn]
    frame = _frame([(each.line, indices) for each, indices in kept], across, zero=zero)
    body = [_grid(frame)]
    body += [_curve(frame, each, indices) for each, indices in kept]
    body += [_points(frame, each, indices, dots=len(kept) <= _MOST_DOTTED) for each, indices in kept]
    body.append(_best_mark(frame, best) if best else "")
    about = _description(name, drawn)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{safe(name)}</title><desc id="{key}-d">{safe(about)}</desc>{"".join(body)}</svg>'
    )


def _frame(lines: Sequence[tuple[Line, list[int]]], across: Axis, *, zero: bool) -> _Frame:
    values = [value for line, indices in lines for index in indices if is_drawn(value := line.values[index])]
    y = axis([*(value for value in values if value is not None), *([0.0] if zero else [])])
    widest = max(len(label) for _, label in y.ticks)
    return _Frame(across, y, max(widest * _CHARACTER + 10, 58))


def _grid(frame: _Frame) -> str:
    """Return the lines and the labels of both axes."""
    parts = ['<g class="grid">']
    bottom = HEIGHT - _BOTTOM
    for value, label in frame.y.ticks:
        _, y = frame.at(frame.x.low, value)
        parts.append(f'<path d="M{frame.left:.0f} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="y" x="{frame.left - 8:.0f}" y="{y + 4:.1f}">{label}</text>')
    parts.append(f'<path class="base" d="M{frame.left:.0f} {bottom}H{WIDTH - _RIGHT}"/>')
    for value, label in frame.x.ticks:
        x, _ = frame.at(value, frame.y.low)
        parts.append(
            f'<path class="base" d="M{x:.1f} {bottom}v4"/><text class="x" x="{x:.1f}" y="{bottom + 17}">{label}</text>'
        )
    middle = (frame.left + WIDTH - _RIGHT) / 2
    unit = "step (vertical axis logarithmic)" if frame.y.log else "step"
    parts.append(f'<text class="unit" x="{middle:.0f}" y="{HEIGHT - 6}">{unit}</text></g>')
    return "".join(parts)


def _curve(frame: _Frame, drawn: Drawn, indices: Sequence[int]) -> str:
    """Return the path of a line. A figure that is not finite leaves a gap; a single point between gaps is a dot."""
    line, parts, pen = drawn.line, [], False
    for index, following in zip(indices, [*indices[1:], None], strict=True):
        value = line.values[index]
        if value is None and line.kind != "step":
            continue  # a figure that an evaluation does not have leaves no gap
        if not is_drawn(value) or value is None:
            pen = False
            continue
        x, y = frame.at(line.steps[index], value)
        ends = following is None or not is_drawn(line.values[following])
        parts.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}{'' if pen or not ends else 'h0'}")
        pen = True
    return f'<path class="line {drawn.colour} {drawn.look}" d="{"".join(parts)}"/>' if parts else ""


def _points(frame: _Frame, drawn: Drawn, indices: Sequence[int], *, dots: bool) -> str:
    """Return a circle for each point, with its value as title, and a cross for each value that is not finite."""
    line = drawn.line
    circles: list[str] = []
    crosses: list[str] = []
    for index in indices:
        value = line.values[index]
        if value is None:
            continue
        title = f"<title>{_title(drawn, index)}</title>"
        if is_drawn(value):
            x, y = frame.at(line.steps[index], value)
            circles.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>')
        elif len(crosses) < _MOST_GAPS:
            x, _ = frame.at(line.steps[index], frame.y.low)
            crosses.append(f'<text x="{x:.1f}" y="{_TOP + 2}">×{title}</text>')
    shown = "dots" if dots and len(circles) <= _MOST_MARKS and not drawn.look else "hover"
    gaps = f'<g class="gaps {drawn.colour}">{"".join(crosses)}</g>' if crosses else ""
    return f'<g class="{shown} {drawn.colour}">{"".join(circles)}</g>{gaps}' if circles or crosses else ""


def _title(drawn: Drawn, index: int) -> str:
    line = drawn.line
    epoch = line.epochs[index]
    where = f"step {count_text(line.steps[index])}" + ("" if epoch is None else f", epoch {safe(epoch)}")
    return f"{safe(drawn.title)} {figure_text(line.values[index])} ({where})"


def _best_mark(frame: _Frame, best: Best) -> str:
    """Return a ring around the best evaluation, and its value beside the ring, on the side with more room."""
    x, y = frame.at(best.step, best.value)
    right = x > (frame.left + WIDTH - _RIGHT) / 2
    high = y < _TOP + 24
    place = f'x="{x - 9 if right else x + 9:.1f}" y="{y + 21 if high else y - 10:.1f}"'
    anchor = "end" if right else "start"
    return (
        f'<g class="best"><circle cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
        f'<text {place} text-anchor="{anchor}">best {figure_text(best.value)}</text></g>'
    )


def _description(name: str, drawn: Sequence[Drawn]) -> str:
    """Return the chart in words: the first, the last, the lowest and the highest value of each line."""
    return f"{name} by step. " + " ".join(_in_words(each) for each in drawn[:12])


def _in_words(drawn: Drawn) -> str:
    values: Iterator[float] = (value for value in drawn.line.values if is_drawn(value) and value is not None)
    listed = list(values)
    if not listed:
        return f"{drawn.title}: no finite value."
    first, last, low, high = map(figure_text, (listed[0], listed[-1], min(listed), max(listed)))
    return f"{drawn.title}: from {first} to {last}, lowest {low}, highest {high}."
