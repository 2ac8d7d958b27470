"""Charts as SVG, drawn here: no library, no script, no network. Colours are CSS variables of the page around them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.contracts.times import from_ms, to_ms

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Format = Callable[[float], str]

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 64, 12, 10, 24  # px
TICKS = 5  # lines across a chart, about
MOST_MARKS = 1500  # trades that are drawn; beyond that a chart shows only ink


class Line(NamedTuple):
    """One series of a chart. `style` is a CSS class."""

    name: str
    values: Floats  # (n,)
    style: str


@dataclass(frozen=True)
class Plane:
    """Where a time and a value lie on a chart."""

    first: int  # ms
    last: int
    low: float
    high: float
    height: int

    @classmethod
    def of(cls, times: Integers, values: Sequence[Floats], height: int, zero: bool = False) -> Plane:
        known = [v[np.isfinite(v)] for v in values]
        low = min((float(v.min()) for v in known if v.size), default=0.0)
        high = max((float(v.max()) for v in known if v.size), default=1.0)
        low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
        room = (high - low) * 0.04 or abs(high) * 0.04 or 1.0
        return cls(int(times[0]), int(times[-1]), low - (0.0 if zero and low == 0 else room), high + room, height)

    def x(self, times: Integers | int) -> Floats:
        span = max(self.last - self.first, 1)
        return LEFT + (np.asarray(times, np.float64) - self.first) / span * (WIDTH - LEFT - RIGHT)

    def y(self, values: Floats | float) -> Floats:
        share = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return TOP + (1.0 - share) * (self.height - TOP - BOTTOM)


def line_chart(times: Integers, lines: Sequence[Line], form: Format, height: int = 260, under: str = "") -> str:
    """Lines over time. `under`: a CSS class to fill between the first line and zero with."""
    plane = Plane.of(times, [line.values for line in lines], height, zero=bool(under))
    parts = [_grid(plane, form)]
    for i, line in enumerate(lines):
        at, values = _thinned(times, line.values)
        path = _path(plane.x(at), plane.y(values))
        if under and i == 0 and path:
            base = float(plane.y(0.0))
            ends = plane.x(at[[0, -1]])
            parts.append(f'<path class="{under}" d="{path}L{ends[1]:.1f},{base:.1f}L{ends[0]:.1f},{base:.1f}Z"/>')
        parts.append(f'<path class="line {line.style}" d="{path}"><title>{html.escape(line.name)}</title></path>')
    if len(lines) > 1:
        parts.append(_legend(lines))
    return _svg(height, parts)


class Mark(NamedTuple):
    """A trade on a price chart."""

    entry_ms: int
    exit_ms: int
    entry: float
    exit: float
    is_gain: bool
    told: str


def marks_chart(times: Integers, prices: Floats, marks: Sequence[Mark], form: Format, height: int = 300) -> str:
    """The price, and a stroke from entry to exit for each trade: green when it earned, red when it lost."""
    plane = Plane.of(times, [prices], height)
    at, values = _thinned(times, prices)
    parts = [_grid(plane, form), f'<path class="line faint" d="{_path(plane.x(at), plane.y(values))}"/>']
    for mark in marks[-MOST_MARKS:]:
        (x1, x2), (y1, y2) = plane.x(np.array(mark[:2])), plane.y(np.array(mark[2:4]))
        style = "gain" if mark.is_gain else "loss"
        parts.append(
            f'<g class="{style}"><title>{html.escape(mark.told)}</title>'
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/><circle cx="{x1:.1f}" cy="{y1:.1f}" r="1.8"/></g>'
        )
    return _svg(height, parts)


def histogram(values: Floats, form: Format, width: int = WIDTH // 2, height: int = 180, bins: int = 48) -> str:
    """How often each size came: the middle 99 %, the rest in the outermost bars. Zero is marked."""
    known = values[np.isfinite(values)]
    if known.size < 2 or known.min() == known.max():
        return '<p class="quiet">Too few different values for a distribution.</p>'
    low, high = np.quantile(known, [0.005, 0.995])
    low, high = (low, high) if low < high else (known.min(), known.max())
    counts, edges = np.histogram(np.clip(known, low, high), bins=bins, range=(low, high))
    wide, tall, top = (width - LEFT - RIGHT) / bins, height - TOP - BOTTOM, counts.max()
    parts: list[str] = []
    for i, count in enumerate(counts.tolist()):
        y = TOP + (1 - count / top) * tall
        style = "gain" if edges[i] + edges[i + 1] >= 0 else "loss"
        told = f"{form(edges[i])} to {form(edges[i + 1])}: {count:,}"
        parts.append(
            f'<rect class="{style}" x="{LEFT + i * wide:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{TOP + tall - y:.1f}">'
            f"<title>{told}</title></rect>"
        )
    for value in _nice(float(low), float(high)):
        x = LEFT + (value - low) / (high - low) * (width - LEFT - RIGHT)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 7}" text-anchor="middle">{form(value)}</text>')
    parts.append(f'<text class="tick" x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{top:,}</text>')
    return _svg(height, parts, width)


def heatmap(
    values: Floats, rows: Sequence[str], columns: Sequence[str], mark: tuple[int, int], is_less_better: bool = False
) -> str:
    """A value for each pair (rows, columns), worst red, best green, by rank; `mark` is outlined. NaN stays empty."""
    high, wide = len(rows), len(columns)
    cell_w, cell_h = (WIDTH - LEFT - RIGHT) / wide, max(14.0, min(34.0, 420 / high))
    ranks = _ranks(-values if is_less_better else values)
    parts: list[str] = []
    for i, j in np.ndindex(high, wide):
        x, y, value = LEFT + j * cell_w, TOP + i * cell_h, values[i, j]
        told = f"{rows[i]}, {columns[j]}: " + ("nothing known" if math.isnan(value) else f"{value:.4g}")
        style, opacity = ("empty", 1.0) if math.isnan(value) else _shade(float(ranks[i, j]))
        outline = ' stroke="var(--text)" stroke-width="2"' if mark == (i, j) else ""
        parts.append(
            f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{cell_w - 1:.1f}" height="{cell_h - 1:.1f}" '
            f'fill-opacity="{opacity:.2f}"{outline}><title>{html.escape(told)}</title></rect>'
        )
        if cell_w >= 34 and not math.isnan(value):
            parts.append(
                f'<text class="cell" x="{x + cell_w / 2:.1f}" y="{y + cell_h / 2 + 4:.1f}" text-anchor="middle">{value:.2f}</text>'
            )
    for i in range(high):
        y = TOP + (i + 0.5) * cell_h + 4
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{html.escape(rows[i])}</text>')
    bottom = TOP + high * cell_h
    for j in range(0, wide, max(1, math.ceil(wide * 34 / (WIDTH - LEFT)))):
        x = LEFT + (j + 0.5) * cell_w
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{html.escape(columns[j])}</text>'
        )
    return _svg(int(bottom + BOTTOM), parts)


def _svg(height: int, parts: Sequence[str], width: int = WIDTH) -> str:
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _grid(plane: Plane, form: Format) -> str:
    parts: list[str] = []
    for value in _nice(plane.low, plane.high):
        y = float(plane.y(value))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{form(value)}</text>')
    for moment, label in _moments(from_ms(plane.first), from_ms(plane.last)):
        x = float(plane.x(to_ms(moment)))
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{plane.height - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{plane.height - 7}" text-anchor="middle">{label}</text>')
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> str:
    parts: list[str] = []
    x = LEFT + 10
    for line in lines:
        parts.append(f'<line class="line {line.style}" x1="{x}" x2="{x + 18}" y1="20" y2="20"/>')
        parts.append(f'<text class="tick" x="{x + 24}" y="24">{html.escape(line.name)}</text>')
        x += 44 + 7 * len(line.name)
    return "".join(parts)


def _thinned(times: Integers, values: Floats) -> tuple[Integers, Floats]:
    """The lowest and highest value of each of as many stretches as there are pixels: no spike is lost."""
    known = np.isfinite(values)
    times, values = times[known], values[known]
    stretches = WIDTH - LEFT - RIGHT
    if len(values) <= 2 * stretches:
        return times, values
    starts = np.linspace(0, len(values), stretches, endpoint=False).astype(np.int64)
    keep: set[int] = {0, len(values) - 1}
    for a, b in zip(starts, [*starts[1:], len(values)], strict=True):
        part = values[a:b]
        keep.update((int(a + part.argmin()), int(a + part.argmax())))
    at = np.array(sorted(keep))
    return times[at], values[at]


def _path(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)) if x.size else ""


def _nice(low: float, high: float) -> list[float]:
    """About `TICKS` round numbers between."""
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (size, 2 * size, 5 * size, 10 * size) if step >= rough)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _moments(first: datetime, last: datetime) -> list[tuple[datetime, str]]:
    """Years, months, days or hours, whichever are few."""
    span = last - first
    if span > timedelta(days=800):
        years = range(first.year + 1, last.year + 1)
        return [(first.replace(year=y, month=1, day=1, hour=0, minute=0), str(y)) for y in years]
    if span > timedelta(days=70):
        step = math.ceil(span.days / 30 / 10)
        months = range(first.year * 12 + first.month, last.year * 12 + last.month, step)
        moments = [first.replace(year=m // 12, month=m % 12 + 1, day=1, hour=0, minute=0) for m in months]
        return [(m, f"{m:%b %Y}") for m in moments if first <= m <= last]
    step = span / 8 or timedelta(seconds=1)
    form = "%d %b" if span > timedelta(days=8) else "%d %b %H:%M"
    return [(first + i * step, f"{first + i * step:{form}}") for i in range(1, 8)]


def _ranks(values: Floats) -> Floats:
    """Each value's place between the lowest (0) and the highest (1)."""
    known = np.sort(values[np.isfinite(values)])
    return np.searchsorted(known, values) / max(len(known) - 1, 1)


def _shade(rank: float) -> tuple[str, float]:
    return ("gain", 0.15 + 1.6 * (rank - 0.5)) if rank >= 0.5 else ("loss", 0.15 + 1.6 * (0.5 - rank))
