"""A table as it is shown: names, numbers with their errors, marks, and what the reader must know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableCell:
    """A number or word, its change from full precision with its error, and marks that the notes explain."""

    value: str
    change: str = ""
    marks: str = ""
    in_distribution: bool = False


@dataclass(frozen=True)
class Table:
    """One table: rows are calibration sets, columns test distributions; the first column holds the rows' names.

    slug     file name without suffix
    caption  what the reader must know to read it, a paragraph each
    notes    what went wrong or stands out, a line each
    """

    slug: str
    title: str
    header: list[str]
    rows: list[list[TableCell]]
    caption: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
