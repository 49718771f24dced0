"""How wide tables are split: columns in blocks below each other, each with the columns that name its rows."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.report.table import Table, TableCell

GUTTER = 2
"""Spaces between two columns."""


def joined(cell: TableCell, star: str = "") -> str:
    """A cell in one line: value, change, what marks it as in-distribution, marks."""
    return f"{cell.value}{' ' if cell.change else ''}{cell.change}{star}{cell.marks}"


def blocks(table: Table, widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns of each block, in order: those that name the rows, then as many others as fit into the room.

    widths  of the columns, in letters. A column that belongs to the one before stays with it, if both fit.
    """
    heads = list(range(table.heads))
    left_beside = room - sum(widths[column] + GUTTER for column in heads) + GUTTER
    found: list[list[int]] = [[]]
    left = left_beside
    for unit in _units(table):
        needed = sum(widths[column] + GUTTER for column in unit)
        if needed > left and found[-1]:
            found.append([])
            left = left_beside
        if needed > left_beside and len(unit) > 1:  # too wide together: one below the other
            found[-1].append(unit[0])
            found += [[column] for column in unit[1:]]
            left = 0
            continue
        found[-1] += unit
        left -= needed
    return [[*heads, *block] for block in found]


def _units(table: Table) -> list[list[int]]:
    units: list[list[int]] = []
    for column in range(table.heads, len(table.header)):
        if column in table.follows and units:
            units[-1].append(column)
        else:
            units.append([column])
    return units
