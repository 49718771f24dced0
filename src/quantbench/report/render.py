"""Tables as text: aligned for a terminal, Markdown, and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from quantbench.core import files
from quantbench.report.caption import IN_DISTRIBUTION
from quantbench.report.table import Table, TableCell
from quantbench.report.tables import default_metrics, tables
from quantbench.store.store import Store

WIDTH = 120


def console(table: Table, width: int = WIDTH) -> str:
    """Plain text with aligned columns; columns that do not fit into `width` go into further blocks below."""
    columns = [list(column) for column in zip(*table.rows, strict=True)]
    texts = [[name, *_aligned(column)] for name, column in zip(table.header, columns, strict=True)]
    blocks = [_grid([texts[0], *block]) for block in _blocks(texts[0], texts[1:], width)]
    words = [*(line.replace(IN_DISTRIBUTION, "*") for line in table.caption), *table.notes]
    below = [textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False) for line in words]
    return (
        "\n".join([textwrap.fill(table.title, width, break_on_hyphens=False), "", "\n\n".join(blocks), "", *below])
        + "\n"
    )


def markdown(table: Table) -> str:
    """A Markdown table under a heading; in-distribution cells are bold."""
    body = [[_bold(cell) for cell in row] for row in table.rows]
    grid = tabulate(body, headers=[_escaped(name) for name in table.header], tablefmt="pipe", disable_numparse=True)
    words = [
        *(_escaped(line).replace(IN_DISTRIBUTION, "**bold**") for line in table.caption),
        *map(_escaped, table.notes),
    ]
    return "\n".join([f"### {table.title}", "", grid, "", *("- " + word for word in words)]) + "\n"


def csv_table(table: Table) -> str:
    """The table's body as CSV, cells as they are shown, * after those in-distribution."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([_joined(cell, "*" if cell.in_distribution else "") for cell in row] for row in table.rows)
    return buffer.getvalue()


def write_tables(
    store: Store, name: str, frame: pd.DataFrame, chosen: Sequence[str] | None = None, legend: Sequence[str] = ()
) -> list[Table]:
    """Write the tables of the chosen metrics into the sweep's folder tables/: <slug>.md and .csv, and all in tables.md.

    chosen: None for default_metrics; legend: lines below all of them.
    Returns them, in order, for the terminal.
    """
    made = [table for metric in chosen or default_metrics(frame) for table in tables(frame, metric)]
    folder = files.make_folder(store.sweep_dir(name) / "tables")
    for table in made:
        files.write_text(folder / f"{table.slug}.md", markdown(table))
        files.write_text(folder / f"{table.slug}.csv", csv_table(table))
    files.write_text(folder / "tables.md", "\n".join([f"# {name}", "", *map(markdown, made), *_list(legend)]))
    return made


def _aligned(column: Sequence[TableCell]) -> list[str]:
    """Values and changes each flush right, so that digits stand below each other; marks follow."""
    values = max((len(cell.value) for cell in column if cell.change), default=0)
    changes = max(len(cell.change) for cell in column)
    marked = ["*" if cell.in_distribution else "" for cell in column]
    texts = []
    for cell, star in zip(column, marked, strict=True):
        number = f"{cell.value:>{values}} {cell.change:>{changes}}" if cell.change else cell.value
        texts.append(f"{number}{star}{cell.marks}")
    return texts


def _blocks(names: Sequence[str], columns: Sequence[list[str]], width: int) -> list[list[list[str]]]:
    """Columns in as few blocks as fit into the width beside the names."""
    room = width - max(map(len, names))
    blocks: list[list[list[str]]] = [[]]
    left = room
    for column in columns:
        needed = 2 + max(map(len, column))
        if needed > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= needed
    return blocks


def _grid(columns: Sequence[list[str]]) -> str:
    rows = list(zip(*columns, strict=True))
    aligned = ["left"] * len(columns)
    lines = tabulate(rows[1:], headers=rows[0], tablefmt="simple", disable_numparse=True, colalign=aligned)
    return "\n".join(line.rstrip() for line in lines.splitlines())


def _joined(cell: TableCell, star: str) -> str:
    return f"{cell.value}{' ' if cell.change else ''}{cell.change}{star}{cell.marks}"


def _list(lines: Sequence[str]) -> list[str]:
    return [*(f"- {_escaped(line)}" for line in lines), ""] if lines else []


def _bold(cell: TableCell) -> str:
    text = _escaped(_joined(TableCell(cell.value, cell.change), ""))
    return (f"**{text}**" if cell.in_distribution else text) + _escaped(cell.marks)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
