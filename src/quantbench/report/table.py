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
    """One table.

    slug     file name without suffix
    opening  what was measured, in sentences: stands before the numbers
    caption  what the reader must know to read them, a paragraph each
    notes    what went wrong or stands out, a line each
    closing  what the numbers say, a sentence each
    heads    the first columns, which name a row: repeated where a wide table is split; rows with the same first name
             are a group
    follows  columns that belong to the one before: a split does not part them
    """

    slug: str
    title: str
    header: list[str]
    rows: list[list[TableCell]]
    caption: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    opening: list[str] = field(default_factory=list)
    closing: list[str] = field(default_factory=list)
    heads: int = 1
    follows: frozenset[int] = frozenset()

    def groups(self) -> list[list[list[TableCell]]]:
        """The rows, those together whose first name is the same; a table with one heading column is one group."""
        found: list[list[list[TableCell]]] = []
        for row in self.rows:
            if found and (self.heads == 1 or found[-1][-1][0].value == row[0].value):
                found[-1].append(row)
            else:
                found.append([row])
        return found
