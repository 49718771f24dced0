"""Rows with named columns, wherever they were read from; of a large set only what is asked for is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

from quantbench.core.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, object]
"""Column -> value, as a file or the hub gives it."""

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

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the first row."""
        return tuple(self.rows[0]) if self.rows else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def texts(self, column: str) -> Sequence[str]:
        """Every row's text in a column."""
        found: list[str] = []
        for index, row in enumerate(self.rows):
            value = row.get(column)
            if not isinstance(value, str):
                where = self.positions[index] if self.positions else f"row {index}"
                holds = f"{column!r} holds {type(value).__name__}" if column in row else f"no text under {column!r}"
                raise DataError(
                    f"{where}: {holds} (its columns: {', '.join(row)}); set `text` to the one with the text"
                )
            found.append(value)
        return found


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
