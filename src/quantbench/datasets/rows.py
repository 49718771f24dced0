"""Where data lie: a source gives the rows of a split, as a table with ids and the revision that was found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

from quantbench.core.errors import DataError
from quantbench.datasets.table import Row, Table
from quantbench.datasets.values import located, scalar


@dataclass(frozen=True)
class Rows:
    """One split of a data set.

    name      of the data set
    table     its rows, in the order of the file
    ids       a stable, unique name of each row: the value of its id column, or its number in the file
    revision  what was found: a commit, a package's or file's sha256, or "unverified" where a cache does not tell
    whole     the data set has one split: what is needed of it must be cut out (quantbench.datasets.split)
    notes     what a reader of the numbers must know: which source answered, what was left out
    processing  what was done to their texts, plain values for the protocol of a score
    """

    name: str
    split: str
    table: Table = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    revision: str
    whole: bool = False
    notes: tuple[str, ...] = ()
    processing: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids and rows: equal data have equal fingerprints wherever they came from."""
        digest = hashlib.sha256()
        for name, row in zip(self.ids, self.table, strict=True):
            digest.update(json.dumps([name, row], sort_keys=True, default=str).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"data {self.name}, split {self.split}"

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataError, which shows the columns found, if one of those is missing, be it in a single row."""
        with self.named():
            self.table.check_columns(columns)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say of which data a table complains, where it does not do so itself."""
        try:
            yield
        except DataError as error:
            message = str(error)
            raise DataError(message if message.startswith("data ") else f"{self.label}: {message}") from error

    def where(self, index: int) -> str:
        """What messages call a row: its file and line, or its id."""
        return self.table.position(index) or f"{self.label}, row {self.ids[index]}"

    def place(self, index: int) -> str:
        """Where a reader finds a row: its file and line, or its id."""
        return self.table.position(index).partition(": ")[2] or f"row {self.ids[index]}"

    def each(self) -> Iterator[tuple[str, str, Row]]:
        """Of every row what messages call it, its id, and the row."""
        for index, (name, row) in enumerate(zip(self.ids, self.table, strict=True)):
            yield self.where(index), name, row

    def chosen(self, indices: Sequence[int], table: Table, notes: Sequence[str]) -> Rows:
        """Some of the rows: `table` holds those of `indices`."""
        ids = [self.ids[index] for index in indices]
        return dataclasses.replace(self, table=table, ids=ids, whole=False, notes=(*self.notes, *notes))


@runtime_checkable
class Source(Protocol):
    """Where rows come from. Implementations are components (quantbench.datasets.hub, .files, .package).

    verbatim  rows' texts are taken as they are, white space at their ends included (as published loaders do)
    group     a column: where the source is cut, rows of equal values lie on one side; group_until: up to this sign
    """

    verbatim: ClassVar[bool]

    @property
    def group(self) -> str | None:
        """See above."""
        ...

    @property
    def group_until(self) -> str | None:
        """See above."""
        ...

    @property
    def location(self) -> str:
        """The user's file or folder that is read, "" for what is the same everywhere: files may share a name."""
        ...

    def check_files(self) -> None:
        """Raise DataError, before anything expensive, for a file or folder of the user's that is missing."""
        ...

    def check_reachable(self, name: str, side: str) -> None:
        """Raise DataError if what `read` needs is neither here nor can be fetched. Imports nothing slow."""
        ...

    def read(self, name: str, side: str) -> Rows:
        """The rows of one side ("train", "test", of an exam also "shots"), not cut.

        name  of the data set, for messages
        Raises DataError if the source cannot be reached, is not in its format, has no such side, or is empty.
        """
        ...

    def sides(self) -> tuple[str, ...]:
        """The sides it can be asked for."""
        ...

    def cache_key(self) -> str | None:
        """Fixes what `read` gives, where reading is so slow that its texts are kept in the cache folder; else None."""
        ...

    def fetch(self, name: str) -> str:
        """Fetch everything `read` needs; where it lies then, in words."""
        ...


def make_ids(label: str, table: Table, id_column: str | None) -> list[str]:
    """Ids of rows. Raises DataError if there are none, or ids are missing, no single values, or repeat."""
    if id_column is None:
        return [str(number) for number in range(len(table))]
    if id_column not in table.columns:
        raise DataError(f"{label}: no column {id_column!r} (option `id`); its columns: {', '.join(table.columns)}")
    ids = []
    for index, row in enumerate(table):
        with located(table.position(index) or f"{label}, row {index}"):
            ids.append(scalar(row.get(id_column), id_column))
            if not ids[-1]:
                raise DataError(f"no id in the column {id_column!r}; set `id: null` to use row numbers")
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(f"{label}: the id column {id_column!r} repeats {twice!r}; set `id: null` to use row numbers")
    return ids


__all__ = ["Row", "Rows", "Source", "Table", "make_ids"]
