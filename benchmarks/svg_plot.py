"""A plot of lines over two logarithmic axes, as SVG: the same bytes for the same figures."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, TOP, RIGHT, BOTTOM = 70, 40, 540, 370
_COLOURS = ("#1f5fbf", "#c2571a", "#2e8b57", "#8a4fbf", "#b0304f", "#5f6b7a")
_FONT = 'font-family="sans-serif" font-size="12" fill="#222"'
_TICKS = (1, 2, 5)


class Line(NamedTuple):
    """Points of one name; a dashed line is one to compare with."""

    name: str
    points: list[tuple[float, float]]
    dashed: bool = False


class Axis(NamedTuple):
    """From values to places, logarithmically."""

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        """Where a value is."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of each power of ten inside."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [step * 10.0**power for power in powers for step in _TICKS]
        return [tick for tick in found if self.low <= tick <= self.high]


def drawn(title: str, x_name: str, y_name: str, lines: list[Line]) -> str:
    """The SVG of lines with positive values; each x that occurs has a mark on its axis."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    across = Axis(min(xs), max(*xs, 2 * min(xs)), LEFT, RIGHT)
    up = Axis(0.8 * min(ys), 1.25 * max(ys), BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {_FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 24, title, 'font-size="15"'),
        _text((LEFT + RIGHT) / 2, BOTTOM + 38, x_name, 'text-anchor="middle"'),
        _text(LEFT, TOP - 4, y_name, 'fill="#555"'),
        *(_across(across.place(x), f"{x:g}") for x in xs),
        *(_up(up.place(y), f"{y:,g}") for y in up.ticks()),
    ]
    for number, line in enumerate(lines):
        parts += _drawn(line, _COLOURS[number % len(_COLOURS)], TOP + 18 * number, across, up)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(line: Line, colour: str, at: float, across: Axis, up: Axis) -> list[str]:
    places = [(across.place(x), up.place(y)) for x, y in sorted(line.points)]
    stroke = f'stroke="{colour}" stroke-width="2"'
    if line.dashed:
        stroke += ' stroke-dasharray="5 4"'
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    key = RIGHT + 16
    return [
        f'<polyline points="{path}" fill="none" {stroke}/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places),
        f'<line x1="{key}" y1="{at}" x2="{key + 22}" y2="{at}" {stroke}/>',
        _text(key + 28, at + 4, line.name),
    ]


def _across(x: float, text: str) -> str:
    rule = f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}" stroke="#e4e4e4"/>'
    return rule + _text(x, BOTTOM + 18, text, 'text-anchor="middle"')


def _up(y: float, text: str) -> str:
    rule = f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>'
    return rule + _text(LEFT - 8, y + 4, text, 'text-anchor="end"')


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'.replace(" >", ">")
