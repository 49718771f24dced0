"""Rows with named columns, wherever they were read from; of a large set only what is asked for is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

from quantbench.core.errors import DataError
from quantbench.datasets.values import is_nothing

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, object]
"""Column -> value, as a file or the hub gives it."""

NAMES_COLUMNS = "the set's keys that name columns, such as `text` or `label`, take one of those"
"""What to do about a column that is not there."""

TEXTS = {"string", "large_string"}
"""Types of text in Arrow."""


class Table(Protocol):
    """Rows by number, and columns by name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...

    def __iter__(self) -> Iterator[Row]: ...

    def position(self, index: int) -> str:
        """What messages call a row, its file and line; "" where that is not known."""
        ...

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise DataError, naming the row and what it has, if a row lacks one of those."""
        ...

    def texts(self, column: str) -> Sequence[str]:
        """A column as texts; where its values are lists of texts, those of all rows, one after the other.

        Raises DataError, saying in which row, for a column that is missing or holds anything else.
        """
        ...


@dataclass(frozen=True)
class ListTable:
    """Rows in memory, as a file gave them. positions: what messages call each row, for instance its line."""

    rows: Sequence[Row] = field(repr=False)
    positions: Sequence[str] = field(default=(), repr=False)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Those that any row has."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def position(self, index: int) -> str:
        """Its line, if the file's reader said."""
        return self.positions[index] if self.positions else ""

    def chosen(self, indices: Sequence[int]) -> ListTable:
        """Some of the rows; each keeps its position."""
        positions = [self.positions[index] for index in indices] if self.positions else ()
        return ListTable([self.rows[index] for index in indices], positions)

    def check_columns(self, columns: Sequence[str]) -> None:
        """Every row must have them: one that is left out may be misspelt there; null says that there is nothing."""
        for index, row in enumerate(self.rows):
            if missing := [column for column in columns if column not in row]:
                first = self._wrapped() or NAMES_COLUMNS
                advice = "the rows before it have it: where there is nothing write null" if index else first
                raise DataError(
                    f"{self._where(index)}: no column {missing[0]!r}; its columns: {', '.join(row)} ({advice})"
                )

    def texts(self, column: str) -> Sequence[str]:
        """Every row's text in a column."""
        found: list[str] = []
        for index, row in enumerate(self.rows):
            value = row.get(column)
            if not isinstance(value, str):
                raise DataError(f"{self._where(index)}: {self._no_text(index, column)}")
            found.append(value)
        return found

    def _no_text(self, index: int, column: str) -> str:
        """Why a row has no text in a column, and what to do: the option is at fault only if no row before had one."""
        row = self.rows[index]
        if column in row and is_nothing(row[column]):
            return f"{column!r} holds null, where a text is expected; take the row out of the file"
        holds = f"{column!r} holds {type(row[column]).__name__}" if column in row else f"no text under {column!r}"
        first = self._wrapped() or "set `text` to the one with the text"
        advice = "the rows before it have a text there: mend this one" if index else first
        return f"{holds} (its columns: {', '.join(row)}); {advice}"

    def _where(self, index: int) -> str:
        return self.position(index) or f"row {index}"

    def _wrapped(self) -> str:
        """What to do if the only row is an object around the rows: {"version": ..., "data": [...]}."""
        inside = dict(self.rows[0]) if len(self.rows) == 1 else {}
        lists = {key: value for key, value in inside.items() if isinstance(value, list) and value}
        for key, value in lists.items():
            if all(isinstance(one, dict) for one in value):
                return (
                    f"the file is one object whose {key!r} holds a list of {len(value)} objects: if those are the "
                    f"rows, write that list alone, or one of them a line: jq -c '.{key}[]' FILE > FILE.jsonl"
                )
        return ""


def joined(tables: Sequence[ListTable]) -> ListTable:
    """The rows of several files, all of whose rows have positions."""
    positions = [table.position(index) for table in tables for index in range(len(table))]
    return ListTable([row for table in tables for row in table], positions)


@dataclass(frozen=True)
class ArrowTable:
    """A split that `datasets` opened.

    class_names  numbers of named classes, and lists of them, become the names
    limit        of a column of lists of texts so many texts are used; None: all
    """

    dataset: Dataset = field(repr=False)
    class_names: bool = False
    limit: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """As the data set names them."""
        return tuple(self.dataset.column_names)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        return self._named(self.dataset[index])

    def __iter__(self) -> Iterator[Row]:
        return map(self._named, iter(self.dataset.to_list()))

    def position(self, index: int) -> str:  # noqa: ARG002 - it has the number that its id is
        """Not known: a row has no line."""
        return ""

    def check_columns(self, columns: Sequence[str]) -> None:
        """All rows have the columns of the data set."""
        if missing := [column for column in columns if column not in self.columns]:
            raise DataError(f"no column {missing[0]!r}; its columns: {', '.join(self.columns)} ({NAMES_COLUMNS})")

    def texts(self, column: str) -> Sequence[str]:
        """A column, read from disk as it is asked for; lists of texts are joined to one list."""
        if column not in self.columns:
            raise DataError(f"no column {column!r}; its columns: {', '.join(self.columns)} (set `text`)")
        feature = self.dataset.features[column]
        several = isinstance(feature, list) or hasattr(feature, "feature")
        inner = (feature[0] if isinstance(feature, list) else feature.feature) if several else feature
        if (kind := getattr(inner, "dtype", None)) not in TEXTS:
            raise DataError(f"the column {column!r} holds {kind or 'nested values'}, not text")
        if nulls := self.dataset.data.column(column).null_count:
            raise DataError(f"{nulls} rows have no text in the column {column!r}")
        values: Sequence[str] = self.dataset[column]
        return list(islice(chain.from_iterable(values), self.limit)) if several else values

    def _named(self, row: Row) -> Row:
        if not self.class_names:
            return row
        return {column: _name(value, self.dataset.features[column]) for column, value in row.items()}


def _name(value: object, feature: object) -> object:
    if isinstance(value, list):
        return [_name(one, getattr(feature, "feature", None)) for one in value]
    names = getattr(feature, "names", None)
    return names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else value
