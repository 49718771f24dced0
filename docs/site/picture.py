"""Draws docs/img/demo.svg from the table of docs/demo.md: `python docs/site/picture.py`. Nothing is computed anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
FILE = DOCS / "img" / "demo.svg"

TEXTS = ("code", "news", "wiki")
TESTED = {"code": "tested on source code", "news": "tested on news", "wiki": "tested on Wikipedia"}
COLOURS = {"RTN": "#666666", "GPTQ": "#b3440e", "AWQ": "#1b5fa8"}

WIDTH, ROW, LEFT, PANEL, GAP, TOP = 900, 30, 120, 245, 15, 46
LARGEST = 0.45

_ROW = re.compile(r"^\| (RTN|GPTQ|AWQ) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", re.MULTILINE)


class Row(NamedTuple):
    """A row of the table: a recipe, what it was calibrated on, and KL with its standard error on each text."""

    recipe: str
    calibrated: str
    kl: tuple[tuple[float, float], ...]


def rows(page: str) -> list[Row]:
    """The rows of the first table of the page that have a recipe and KL on three texts."""
    found = []
    for recipe, calibrated, *cells in _ROW.findall(page.partition("## ")[0]):
        numbers = [cell.strip("* ").split("±") for cell in cells]
        found.append(Row(recipe, calibrated.strip(), tuple((float(value), float(error)) for value, error in numbers)))
    return found


def svg(table: list[Row]) -> str:
    """The picture: a panel for each test text, a line for each row, filled where calibrated on that text."""
    height = TOP + ROW * len(table) + 48
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *(line for number, text in enumerate(TEXTS) for line in _panel(table, number, text)),
    ]
    for number, row in enumerate(table):
        name = row.recipe if row.calibrated not in TEXTS else f"{row.recipe} on {row.calibrated}"
        lines.append(f'<text x="8" y="{_y(number) + 4}" fill="{COLOURS[row.recipe]}">{name}</text>')
    caption = "KL divergence from full precision, nats per token, ± standard error. Filled: calibrated on that text."
    lines.append(f'<text x="8" y="{height - 8}" fill="#333333">{caption} Dashed: RTN.</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(table: list[Row], number: int, text: str) -> Iterator[str]:
    left, bottom = LEFT + number * (PANEL + GAP), TOP + ROW * len(table)
    yield f'<text x="{left}" y="24" fill="#333333" font-weight="bold">{TESTED[text]}</text>'
    yield f'<rect x="{left}" y="{TOP - 10}" width="{PANEL}" height="{bottom - TOP + 10}" fill="#f5f5f5"/>'
    for tenths in range(5):
        x = _x(left, tenths / 10)
        yield f'<line x1="{x}" y1="{TOP - 10}" x2="{x}" y2="{bottom}" stroke="#dddddd"/>'
        yield f'<text x="{x}" y="{bottom + 16}" fill="#333333" font-size="11" text-anchor="middle">{tenths / 10}</text>'
    for place, row in enumerate(table):
        value, error = row.kl[number]
        x, y, colour = _x(left, value), _y(place), COLOURS[row.recipe]
        if row.recipe == "RTN":
            yield f'<line x1="{x}" y1="{TOP - 10}" x2="{x}" y2="{bottom}" stroke="{colour}" stroke-dasharray="4 4"/>'
        ends = _x(left, value - error), _x(left, value + error)
        yield f'<line x1="{ends[0]}" y1="{y}" x2="{ends[1]}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        fill = colour if row.calibrated == text else "#ffffff"
        yield f'<circle cx="{x}" cy="{y}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'


def _x(left: int, kl: float) -> float:
    return round(left + PANEL * kl / LARGEST, 1)


def _y(row: int) -> int:
    return TOP + ROW * row + ROW // 2 - 5


if __name__ == "__main__":
    FILE.write_text(svg(rows((DOCS / "demo.md").read_text(encoding="utf-8"))), encoding="utf-8")
