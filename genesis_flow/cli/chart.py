"""A line chart as SVG, drawn without any plotting library."""

from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 40, 44
_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
_GRID_LINES = 5


class _Scale(NamedTuple):
    """Maps a range of data to a range of pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.first + share * (self.last - self.first)


def line_chart(title: str, x_label: str, curves: dict[str, list[float]]) -> str:
    """An SVG document with one line for each of the ``curves``, whose points are at x = 1, 2, 3, ..."""
    values = [value for curve in curves.values() for value in curve]
    x = _Scale(1, max(len(curve) for curve in curves.values()), _LEFT, _WIDTH - _RIGHT)
    y = _Scale(min(0.0, *values), max(values) * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_grid(x, y),
        f'<text x="{_WIDTH / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for index, (name, curve) in enumerate(curves.items()):
        parts += _curve(index, name, curve, x, y)
    return "\n".join([*parts, "</svg>", ""])


def _grid(x: _Scale, y: _Scale) -> list[str]:
    parts = []
    for line in range(_GRID_LINES + 1):
        value = y.low + (y.high - y.low) * line / _GRID_LINES
        at = y(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e7eb"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#4b5563">{value:.2f}</text>'
        )
        step = x.low + (x.high - x.low) * line / _GRID_LINES
        parts.append(
            f'<text x="{x(step):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle" fill="#4b5563">'
            f"{step:.0f}</text>"
        )
    return parts


def _curve(index: int, name: str, curve: list[float], x: _Scale, y: _Scale) -> list[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    points = " ".join(f"{x(number):.1f},{y(value):.1f}" for number, value in enumerate(curve, start=1))
    right, legend = _WIDTH - _RIGHT - 4, _TOP + 6 + 16 * index
    return [
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<text x="{right}" y="{legend}" text-anchor="end" fill="{colour}">{escape(name)}</text>',
    ]
