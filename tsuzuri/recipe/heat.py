"""Matrices of shares as one picture: an SVG of heat maps, a row a layer, a column a head, without a plotting library.

In: rows of maps, each with its title and the names of its rows and columns. Out: SVG text; the darker, the more.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tsuzuri.recipe.chart import COLOURS, FONT, xml_text

SIDE = 200  # of a map that is not larger for its tokens
SMALLEST, LARGEST, LEGIBLE = 2, 16, 9  # of a cell; from LEGIBLE on tokens are named
NAMED = 64  # tokens of a map: up to so many its cells are LEGIBLE, however wide it becomes
GAP, HEAD, TITLE = 24, 40, 18
CAPTION = 11  # of a map, its letters' height
LETTER = 0.55  # width of a narrow character, of its height
LONGEST = 12  # half-width characters of a name
STEPS = 20  # shades


@dataclass(frozen=True, slots=True)
class Heat:
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    shares: Sequence[Sequence[float]]  # (rows, columns), 0 … 1


def heat_maps(title: str, maps: Sequence[Sequence[Heat]]) -> str:
    """Every map with its tokens on the left and above, where there is room for them."""
    most = max(max(len(heat.rows), len(heat.columns)) for row in maps for heat in row)
    cell = max(LEGIBLE if most <= NAMED else SMALLEST, min(LARGEST, SIDE // most))
    names = [name for row in maps for heat in row for name in (*heat.rows, *heat.columns)]
    margin = max(_width(_short(name)) for name in names) * LETTER * _font(cell) + 6 if cell >= LEGIBLE else 4
    parts, y, widest = [], float(HEAD), 0.0
    for row in maps:
        x = float(GAP)
        for heat in row:
            parts += _drawn(heat, x, y, cell, margin)
            x += max(margin + cell * len(heat.columns), _width(heat.title) * LETTER * CAPTION) + GAP
        widest, y = max(widest, x), y + TITLE + margin + cell * max(len(heat.rows) for heat in row) + GAP
    size = f'viewBox="0 0 {widest:.0f} {y:.0f}" width="{widest:.0f}" height="{y:.0f}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>',
        f'<rect width="{widest:.0f}" height="{y:.0f}" fill="white"/>',
        f'<text x="{GAP}" y="24" font-size="15">{xml_text(title)}</text>',
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _drawn(heat: Heat, x: float, y: float, cell: int, margin: float) -> list[str]:
    left, top = x + margin, y + TITLE + margin
    wide, high = cell * len(heat.columns), cell * len(heat.rows)
    parts = [f'<text x="{x:.0f}" y="{y + 12:.0f}" font-size="{CAPTION}">{xml_text(heat.title)}</text>']
    shades: dict[int, list[str]] = {}  # one path a shade: a rectangle a cell would be four times as long
    for i, row in enumerate(heat.shares):
        for j, share in enumerate(row):
            if level := round(share * STEPS):
                shades.setdefault(level, []).append(f"M{left + j * cell:.0f} {top + i * cell:.0f}h{cell}v{cell}h-{cell}z")
    for level, path in sorted(shades.items()):
        parts.append(f'<path fill="{COLOURS[0]}" fill-opacity="{level / STEPS:g}" shape-rendering="crispEdges" d="{"".join(path)}"/>')
    parts.append(f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide}" height="{high}" fill="none" stroke="#c4c4c4"/>')
    if cell >= LEGIBLE:
        font = _font(cell)
        for i, name in enumerate(heat.rows):
            at = top + (i + 0.8) * cell
            parts.append(f'<text x="{left - 3:.0f}" y="{at:.0f}" font-size="{font}" text-anchor="end">{xml_text(_short(name))}</text>')
        for j, name in enumerate(heat.columns):
            across, up = left + (j + 0.8) * cell, top - 3
            turned = f'transform="rotate(-90 {across:.0f} {up:.0f})"'
            parts.append(f'<text x="{across:.0f}" y="{up:.0f}" font-size="{font}" {turned}>{xml_text(_short(name))}</text>')
    return parts


def _font(cell: int) -> int:
    return min(12, cell - 1)


def _width(text: str) -> int:
    """In half-width characters"""
    return sum(2 if unicodedata.east_asian_width(letter) in "WFA" else 1 for letter in text)


def _short(name: str) -> str:
    """A long name ends in …; every token is whole in the JSON."""
    if _width(name) <= LONGEST:
        return name
    while _width(name) > LONGEST - 2:
        name = name[:-1]
    return name + "…"
