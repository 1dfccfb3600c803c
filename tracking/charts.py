"""Charts as hand-made SVG: no library, no script, colours from the page's style sheet, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date
from html import escape

__all__ = ["drawdown_chart", "growth_chart", "heat_map", "interval_bar", "waterfall"]

WIDTH, LEFT, RIGHT, TOP = 860.0, 58.0, 14.0, 12.0
_POINTS = 700
MINUS = "−"


class Line:
    """One line of a chart.

    Parameters
    ----------
    days : sequence of str
        ISO dates, ascending.
    values : sequence of float
        Positive.
    style : str
        CSS classes (``c0`` … ``c7``, ``benchmark``, ``modelled``).
    """

    __slots__ = ("numbers", "style", "values")

    def __init__(self, days: Sequence[str], values: Sequence[float], style: str) -> None:
        self.numbers = [date.fromisoformat(day).toordinal() for day in days]
        self.values = list(values)
        self.style = style


def growth_chart(lines: Sequence[Line], label: str) -> str:
    """Growth of 1 on a log scale, each line from its own first day."""
    grown = [[value / line.values[0] for value in line.values] for line in lines]
    low = math.log(min(min(values) for values in grown)) - 0.02
    high = math.log(max(max(values) for values in grown)) + 0.02
    height, bottom = 320.0, 28.0
    x = _time_scale(lines)

    def y(value: float) -> float:
        return TOP + (high - math.log(value)) / max(high - low, 1e-12) * (height - TOP - bottom)

    parts = [_time_axis(lines, x, height - bottom), *_log_ticks(low, high, y)]
    for line, values in zip(lines, grown, strict=True):
        path = _path(line.numbers, values, x, y)
        parts.append(f'<path class="line {line.style}" d="{path}"/>')
    return _svg(height, label, parts)


def drawdown_chart(lines: Sequence[Line], label: str) -> str:
    """Distance below the peak so far, in per cent."""
    depths = [_depths(line.values) for line in lines]
    worst = min(min(min(values) for values in depths), -0.01)
    height, bottom = 190.0, 28.0
    x = _time_scale(lines)

    def y(value: float) -> float:
        return TOP + value / worst * (height - TOP - bottom)

    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if -worst / step <= 5 or step == 0.25)
    parts = [_time_axis(lines, x, height - bottom)]
    parts.extend(
        _tick(y(-number * step), f"{MINUS if number else ''}{number * step * 100:.0f} %")
        for number in range(int(-worst / step) + 1)
    )
    for line, values in zip(lines, depths, strict=True):
        path = _path(line.numbers, values, x, y)
        parts.append(f'<path class="line thin {line.style}" d="{path}"/>')
    return _svg(height, label, parts)


def interval_bar(value: float, low: float, high: float, scale: tuple[float, float], label: str) -> str:
    """A point with its interval on a scale shared by the rows of a table, and a line at zero."""
    width, height = 130.0, 18.0
    start, end = scale

    def x(number: float) -> float:
        return 4 + (min(max(number, start), end) - start) / max(end - start, 1e-12) * (width - 8)

    return (
        f'<svg class="interval" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label, quote=True)}">'
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="1" y2="17"/>'
        f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="9" y2="9"/>'
        f'<circle cx="{x(value):.1f}" cy="9" r="3.6"/></svg>'
    )


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    chosen: tuple[int, int] | None,
    label: str,
    row_name: str,
    column_name: str,
) -> str:
    """One cell a combination: positive in one colour, negative in the other, deeper where larger; the chosen one framed.

    `values` has one row for each of `rows`; None is a combination that was not tried.
    """
    cell_width = (WIDTH - LEFT - RIGHT) / max(len(columns), 1)
    cell_height = min(cell_width, 420.0 / max(len(rows), 1))
    bottom = 40.0
    height = TOP + cell_height * len(rows) + bottom
    largest = max((abs(v) for row in values for v in row if v is not None and math.isfinite(v)), default=1.0) or 1.0
    parts: list[str] = []
    for number, row in enumerate(values):
        top = TOP + number * cell_height
        for place, value in enumerate(row):
            if value is None or not math.isfinite(value):
                continue
            kind = "gain" if value >= 0 else "loss"
            parts.append(
                f'<rect class="{kind}" x="{LEFT + place * cell_width:.1f}" y="{top:.1f}" width="{cell_width:.1f}" '
                f'height="{cell_height:.1f}" fill-opacity="{0.06 + 0.94 * abs(value) / largest:.2f}"/>'
            )
    if chosen is not None:
        parts.append(
            f'<rect class="chosen" x="{LEFT + chosen[1] * cell_width:.1f}" y="{TOP + chosen[0] * cell_height:.1f}" '
            f'width="{cell_width:.1f}" height="{cell_height:.1f}"/>'
        )
    base = TOP + cell_height * len(rows)
    across, down = _some(len(columns), 14), _some(len(rows), 14)
    parts.extend(_text(LEFT + (place + 0.5) * cell_width, base + 15, columns[place], "middle") for place in across)
    parts.extend(_text(LEFT - 6, TOP + (number + 0.5) * cell_height + 4, rows[number], "end") for number in down)
    parts.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, base + 33, f"{column_name} →", "middle"))
    parts.append(
        f'<text class="label" x="12" y="{TOP + cell_height * len(rows) / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {TOP + cell_height * len(rows) / 2:.1f})">← {escape(row_name)}</text>'
    )
    return _svg(height, label, parts)


def waterfall(steps: Sequence[tuple[str, float, bool]], label: str) -> str:
    """Bars from a start to an end: (name, value, whether it is a total); the parts hang between the totals.

    The scale covers where the bars move, not zero: what matters is the size of the parts.
    """
    edges: list[tuple[float, float]] = []
    level = 0.0
    for _, value, total in steps:
        edges.append((value, value) if total else (level, level + value))
        level = value if total else level + value
    points = [edge for pair in edges for edge in pair]
    span = max(max(points) - min(points), abs(max(points)) * 1e-9, 1e-9)
    low, high = min(points) - 0.35 * span, max(points) + 0.2 * span
    row_height, left, right = 30.0, 190.0, 120.0
    height = TOP + row_height * len(steps) + 6

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - right)

    parts: list[str] = []
    for number, ((name, value, total), (begin, end)) in enumerate(zip(steps, edges, strict=True)):
        top = TOP + number * row_height
        start, stop = (low, end) if total else (min(begin, end), max(begin, end))
        kind = "total" if total else "gain" if value >= 0 else "loss"
        width = max(x(stop) - x(start), 1.5)
        parts.append(f'<rect class="{kind}" x="{x(start):.1f}" y="{top + 5:.1f}" width="{width:.1f}" height="18" rx="2"/>')
        parts.append(_text(left - 10, top + 18.5, name, "end"))
        shown = money(value) if total else f"{'+' if value > 0 else ''}{money(value)}"
        parts.append(_text(x(stop) + 7, top + 18.5, shown, "start"))
        if number + 1 < len(steps):
            parts.append(f'<line class="zero" x1="{x(end):.1f}" x2="{x(end):.1f}" y1="{top + 23:.1f}" y2="{top + 35:.1f}"/>')
    return _svg(height, label, parts)


def money(value: float) -> str:
    """Two decimals, thousands apart, a true minus sign."""
    return f"{value:,.2f}".replace("-", MINUS)


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">{body}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _tick(y: float, text: str) -> str:
    line = f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 7, y + 4, text, "end")


class _TimeScale:
    __slots__ = ("first", "span")

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.span = max(last - first, 1)

    def __call__(self, day: float) -> float:
        return LEFT + (day - self.first) / self.span * (WIDTH - LEFT - RIGHT)


def _time_scale(lines: Sequence[Line]) -> _TimeScale:
    return _TimeScale(min(line.numbers[0] for line in lines), max(line.numbers[-1] for line in lines))


def _time_axis(lines: Sequence[Line], x: _TimeScale, base: float) -> str:
    first, last = date.fromordinal(x.first), date.fromordinal(x.first + x.span)
    years = last.year - first.year
    if years >= 2:
        step = next(step for step in (1, 2, 5, 10, 20) if years / step <= 10 or step == 20)
        ticks = [(date(year, 1, 1), str(year)) for year in range(first.year + 1, last.year + 1) if year % step == 0]
    else:
        step_days = max(x.span // 6, 1)
        ticks = [
            (date.fromordinal(number), date.fromordinal(number).strftime("%d %b %Y"))
            for number in range(x.first + step_days // 2, x.first + x.span + 1, step_days)
        ]
    marks = "".join(
        f'<line class="grid" x1="{x(day.toordinal()):.1f}" x2="{x(day.toordinal()):.1f}" y1="{TOP:g}" y2="{base:.1f}"/>'
        + _text(x(day.toordinal()), base + 17, text, "middle")
        for day, text in ticks
    )
    return marks + f'<line class="axis" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{base:.1f}" y2="{base:.1f}"/>'


def _log_ticks(low: float, high: float, y: Callable[[float], float]) -> list[str]:
    """At 1, 2, 5 of each decade; finer where the range is narrow."""
    steps = (
        (1.0, 2.0, 5.0)
        if high - low > 1.2
        else tuple(1 + 0.1 * n for n in range(90))
        if high - low < 0.5
        else (1, 1.25, 1.5, 2, 3, 4, 5, 6, 8)
    )
    found = [
        10.0**power * step
        for power in range(math.floor(low / math.log(10)) - 1, math.ceil(high / math.log(10)) + 1)
        for step in steps
        if low <= math.log(10.0**power * step) <= high
    ]
    return [_tick(y(value), f"× {value:g}" if value < 1000 else f"× {value:,.0f}") for value in found[:: max(len(found) // 8, 1)]]


def _path(numbers: Sequence[int], values: Sequence[float], x: _TimeScale, y: Callable[[float], float]) -> str:
    """At most `_POINTS` buckets, each with its first, lowest and highest value in order, so that no peak is lost."""
    size = max(math.ceil(len(values) / _POINTS), 1)
    keep: list[int] = []
    for start in range(0, len(values), size):
        places = range(start, min(start + size, len(values)))
        keep.extend(sorted({start, min(places, key=values.__getitem__), max(places, key=values.__getitem__)}))
    if keep[-1] != len(values) - 1:
        keep.append(len(values) - 1)
    return "M" + "L".join(f"{x(numbers[place]):.1f} {y(values[place]):.1f}" for place in keep)


def _depths(values: Sequence[float]) -> list[float]:
    peak, depths = -math.inf, []
    for value in values:
        peak = max(peak, value)
        depths.append(value / peak - 1.0)
    return depths


def _some(count: int, most: int) -> range:
    return range(0, count, max(math.ceil(count / most), 1))
