"""Line charts as inline SVG. Colors and dashes are CSS classes of the page, so they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 34  # margins in pixels
_MAX_POINTS = 120  # of a line; more would not be visible


@dataclass(frozen=True, slots=True)
class Series:
    """A line; points that are not finite interrupt it. `style` is the CSS class, `dots` marks the points."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "s1"
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Axes and lines. A range is its two ends."""

    title: str  # read by screen readers; the page shows its own heading
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    series: Sequence[Series]
    size: tuple[int, int] = (420, 260)  # width, height
    mark_x: float | None = None  # a vertical line
    diagonal: bool = False
    whole_x: bool = False  # whether x has whole numbers only, such as epochs


def svg(chart: Chart) -> Markup:
    """The chart as an <svg> element."""
    width, height = chart.size
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(chart.title)}</title>"
    ]
    parts += _axes(chart)
    if chart.diagonal:
        start, stop = max(chart.x_range[0], chart.y_range[0]), min(chart.x_range[1], chart.y_range[1])
        parts.append(_path(chart, [(start, start), (stop, stop)], "ideal"))
    if chart.mark_x is not None and math.isfinite(chart.mark_x):
        parts.append(_path(chart, [(chart.mark_x, chart.y_range[0]), (chart.mark_x, chart.y_range[1])], "mark"))
    for series in chart.series:
        parts.append(_path(chart, _thinned(series.points), series.style))
        if series.dots:
            parts += [_dot(chart, point, series.style) for point in series.points if all(map(math.isfinite, point))]
    return Markup("".join(parts) + "</svg>")  # all text in it is escaped above


def legend(series: Sequence[Series]) -> Markup:
    """The names of the lines, each with a piece of it."""
    items = (
        f'<li><svg class="key" width="28" height="10" aria-hidden="true"><path class="{s.style}" d="M0 5H28"/></svg>'
        f"{escape(s.name)}</li>"
        for s in series
    )
    return Markup(f'<ul class="legend">{"".join(items)}</ul>')


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """From 0 to a round number at or above all finite values."""
    top = max((v for v in values if math.isfinite(v)), default=1.0)
    if top <= 0:
        return 0.0, 1.0
    step = _step(top)
    return 0.0, math.ceil(top / step - 1e-9) * step


def _axes(chart: Chart) -> list[str]:
    width, height = chart.size
    bottom, right = height - _BOTTOM, width - _RIGHT
    parts = []
    for value in _ticks(chart.y_range):
        y = _place(chart, chart.x_range[0], value)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in _ticks(chart.x_range, whole=chart.whole_x):
        x = _place(chart, value, chart.y_range[0])[0]
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_number(value)}</text>')
    center = (_TOP + bottom) / 2
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{height - 5}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(
        f'<text transform="translate(11 {center}) rotate(-90)" text-anchor="middle">{escape(chart.y_label)}</text>'
    )
    return parts


def _ticks(limits: tuple[float, float], *, whole: bool = False) -> list[float]:
    """Round numbers in a range; with `whole`, whole ones."""
    low, high = limits
    step = max(_step(high - low), 1.0 if whole else 0.0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _step(extent: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, so that there are at most five steps."""
    power = 10.0 ** math.floor(math.log10(extent / 5))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= extent / 5 * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _place(chart: Chart, x: float, y: float) -> tuple[float, float]:
    width, height = chart.size
    (x0, x1), (y0, y1) = chart.x_range, chart.y_range
    across = (x - x0) / ((x1 - x0) or 1)
    up = (y - y0) / ((y1 - y0) or 1)
    return _LEFT + across * (width - _LEFT - _RIGHT), height - _BOTTOM - up * (height - _TOP - _BOTTOM)


def _path(chart: Chart, points: Sequence[tuple[float, float]], style: str) -> str:
    commands, drawing = [], False
    for point in points:
        if all(map(math.isfinite, point)):
            x, y = _place(chart, *point)
            commands.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        drawing = all(map(math.isfinite, point))
    return f'<path class="{style}" d="{"".join(commands)}"/>'


def _dot(chart: Chart, point: tuple[float, float], style: str) -> str:
    x, y = _place(chart, *point)
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = -(-len(points) // _MAX_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]
