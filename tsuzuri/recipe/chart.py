"""Curves as a picture: an SVG that any browser shows, without a plotting library.

In: named series of (x, y). Out: SVG text with axes, ticks and a legend; colours that differ in brightness too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, PLOT, LEFT, RIGHT, HEAD, BOTTOM = 760, 322, 70, 20, 46, 52
ROW = 17  # of the legend, which stands between the title and the plot: over the plot it would hide lines
COLOURS = ("#1f5fa8", "#d9822b", "#3a8f5b", "#8c4fa3", "#444444")
LARGEST = 1e100  # what lies further out is not drawn, nor is what is no number
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FONT = "font-family=\"'Noto Sans JP','Hiragino Sans','Yu Gothic',sans-serif\""


def line_chart(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines through the points of each series, in the order given; a series of one x-less level is drawn across."""
    points = [point for line in series.values() for point in line if _drawable(point)]
    if not points:
        points = [(0.0, 0.0), (1.0, 1.0)]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))

    top = HEAD + ROW * len(series)
    height = top + PLOT + BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), top + PLOT - up * PLOT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{xml_text(title)}</text>',
    ]
    for value in x_ticks:
        x, _ = place(value, y_ticks[0])
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + PLOT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x:.1f}" y="{top + PLOT + 18}" font-size="11" text-anchor="middle">{value:g}</text>')
    for value in y_ticks:
        _, y = place(x_ticks[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" font-size="11" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 12}" font-size="12" text-anchor="middle">{xml_text(x_label)}</text>')
    parts.append(f'<text x="{LEFT}" y="{top - 8}" font-size="12">{xml_text(y_label)}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line if _drawable(point)))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        at = HEAD - 8 + ROW * number
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{at - 4}" y2="{at - 4}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{LEFT + 32}" y="{at}" font-size="12">{xml_text(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers that enclose low … high (steps of 1, 2 or 5 times a power of ten)."""
    scale = max(abs(low), abs(high))
    if high - low <= scale * 1e-9 or scale * LARGEST < 1:  # a level, as far as anybody can see
        high = low + (scale if scale * LARGEST >= 1 else 1.0)
    raw = (high - low) / (count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _drawable(point: tuple[float, float]) -> bool:
    return all(abs(value) < LARGEST for value in point)


def xml_text(words: str) -> str:
    """As XML takes it: a character that it cannot hold becomes U+FFFD."""
    return escape(NO_XML.sub("\ufffd", words))


def smoothed(line: Sequence[tuple[float, float]], weight: float = 0.9) -> list[tuple[float, float]]:
    """An exponential mean without the pull towards its start: what the eye wants of a noisy loss."""
    found, mean = [], 0.0
    for number, (x, y) in enumerate(line, 1):
        mean = weight * mean + (1 - weight) * y
        found.append((x, mean / (1 - weight**number)))
    return found
