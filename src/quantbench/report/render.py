"""Tables as text: aligned for a terminal, Markdown, and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.layout import GUTTER, blocks, joined
from quantbench.report.table import Table, TableCell

WIDTH = 120

NARROW = 8
"""Letters of a column below which its header is not broken into lines."""


def console(table: Table, width: int = WIDTH) -> str:
    """Plain text with aligned columns; columns that do not fit into `width` go into further blocks below."""
    columns = [list(column) for column in zip(*table.rows, strict=True)] or [[] for _ in table.header]
    texts = [_column(name, _aligned(column)) for name, column in zip(table.header, columns, strict=True)]
    widths = [max(map(len, (*head, *body))) for head, body in texts]
    grids = [_grid([texts[column] for column in block]) for block in blocks(table, widths, width)]
    words = [*(line.replace(IN_DISTRIBUTION, "*") for line in table.caption), *table.notes]
    paragraphs = [
        _filled([table.title], width),
        _filled([" ".join(table.opening)] if table.opening else [], width),
        "\n\n".join(grids),
        _filled(words, width),
        _filled(table.closing, width),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def markdown(table: Table) -> str:
    """A Markdown table under a heading; in-distribution cells are bold."""
    body = [[_bold(cell) for cell in row] for row in table.rows]
    grid = _pipes([[escaped(name) for name in table.header], *body])
    words = [*(escaped(line).replace(IN_DISTRIBUTION, "**bold**") for line in table.caption)]
    words += [escaped(line) for line in table.notes]
    paragraphs = [
        f"### {escaped(table.title)}",
        escaped(" ".join(table.opening)),
        grid,
        "\n".join("- " + word for word in words),
        "\n".join("> " + escaped(line) + "  " for line in table.closing).rstrip(),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def csv_table(table: Table) -> str:
    """The table's body as CSV, cells as they are shown, * after those in-distribution.

    Above and below it, behind "# ", what the table opens and closes with: pandas.read_csv(file, comment="#").
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([joined(cell, "*" if cell.in_distribution else "") for cell in row] for row in table.rows)
    above = [table.title, *table.opening] if table.opening else []
    return "".join([*_comments(above), buffer.getvalue(), *_comments(table.closing)])


def _comments(lines: Sequence[str]) -> list[str]:
    return [f"# {line}\n" for line in lines]


def _filled(lines: Sequence[str], width: int) -> str:
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def _aligned(column: Sequence[TableCell]) -> list[str]:
    """Values and changes each flush right, so that digits stand below each other; marks follow."""
    values = max((len(cell.value) for cell in column if cell.change), default=0)
    changes = max((len(cell.change) for cell in column), default=0)
    marked = ["*" if cell.in_distribution else "" for cell in column]
    texts = []
    for cell, star in zip(column, marked, strict=True):
        number = f"{cell.value:>{values}} {cell.change:>{changes}}" if cell.change else cell.value
        texts.append(f"{number}{star}{cell.marks}")
    return texts


def _column(name: str, body: list[str]) -> tuple[list[str], list[str]]:
    """Header, in several lines where it is wider than what stands below, and body."""
    room = max(NARROW, *map(len, body)) if body else NARROW
    return textwrap.wrap(name, room, break_long_words=False) or [""], body


def _grid(columns: Sequence[tuple[list[str], list[str]]]) -> str:
    """Columns side by side, flush left; headers stand on a rule."""
    tallest = max(len(head) for head, _ in columns)
    padded = []
    for head, body in columns:
        width = max(map(len, (*head, *body)))
        lines = [*[""] * (tallest - len(head)), *head, "-" * width, *body]
        padded.append([line.ljust(width) for line in lines])
    return "\n".join((" " * GUTTER).join(line).rstrip() for line in zip(*padded, strict=True))


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    """Rows between pipes, columns as wide as their widest cell; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows]
    rule = [":" + "-" * (width + 1) for width in widths]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _bold(cell: TableCell) -> str:
    text = escaped(joined(TableCell(cell.value, cell.change)))
    return (f"**{text}**" if cell.in_distribution else text) + escaped(cell.marks)


def escaped(text: str) -> str:
    """Text without letters that Markdown takes as commands within a table."""
    return text.replace("|", "\\|").replace("*", "\\*")
