"""Rows: data sets with columns, from which label, question and exam tasks and task-like calibration sets are made."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from quantbench.core.errors import DataError
from quantbench.datasets.split import on_test_side

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """One split of a data set, loaded: its rows in the order of the file.

    ids       a stable, unique name of each row: the value of its id column, or its number in the file
    revision  what was found: a commit, a package's or file's sha256, or "unverified" where a cache does not tell
    notes     what a reader of the numbers must know: which source answered, what was left out
    """

    name: str
    split: str
    rows: Sequence[Row] = field(repr=False)
    ids: Sequence[str] = field(repr=False)
    revision: str
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the first row."""
        return tuple(self.rows[0])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids and rows: equal data have equal fingerprints wherever they came from."""
        digest = hashlib.sha256()
        for name, row in zip(self.ids, self.rows, strict=True):
            digest.update(json.dumps([name, row], sort_keys=True, default=str).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataError, which shows the columns found, if one of those is missing."""
        missing = [column for column in columns if column not in self.rows[0]]
        if missing:
            raise DataError(
                f"data {self.name}, split {self.split}: no column {missing[0]!r}; its columns: "
                f"{', '.join(self.columns)} (set the columns in the option's yaml to those)"
            )


@runtime_checkable
class RowSource(Protocol):
    """Where rows come from. Implementations are components (quantbench.datasets.hub_rows, .local, .packaged)."""

    @property
    def name(self) -> str:
        """The distribution's name: a calibration set and a task with the same source name are in-distribution."""
        ...

    @property
    def family(self) -> str:
        """The family of the data set: sa, nli, td, eqa, ner, exam."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """domain, language, licence, relatives: descriptive, never part of an identity."""
        ...

    def load(self, split: str) -> Rows:
        """Load a split by our name for it ("train", "test", and others the source's yaml names).

        Raises DataError if the source cannot be reached, is not in its format, has no such split, or is empty.
        """
        ...

    def prepare(self) -> str:
        """Fetch everything `load` needs, for all splits; returns one line saying what lies where."""
        ...


def make_rows(
    name: str, split: str, rows: Sequence[Row], id_column: str | None, revision: str, notes: Sequence[str] = ()
) -> Rows:
    """Rows with their ids. Raises DataError if there is none, or ids are missing or repeat."""
    label = f"data {name}, split {split}"
    if not rows:
        raise DataError(f"{label} is empty: {revision}")
    if id_column is None:
        ids = [str(number) for number in range(len(rows))]
    else:
        if id_column not in rows[0]:
            raise DataError(f"{label}: no column {id_column!r} (option `id`); its columns: {', '.join(rows[0])}")
        ids = [str(row.get(id_column)) for row in rows]
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(
                f"{label}: the id column {id_column!r} repeats {twice!r}; set `id: null` to use row numbers"
            )
    return Rows(name, split, rows, ids, revision, tuple(notes))


def cut_rows(whole: Rows, split: str, group: str | None, until: str | None = None) -> Rows:
    """One side of a data set that has a single split: its rows cut 4:1, as quantbench.datasets.split cuts documents.

    group  a column: rows of equal values lie on one side, as the snippets of one review
    until  its values count up to this sign only: with "_", "3_1" and "3_2" are the same
    Rows whose text repeats that of an earlier one are left out; those that share a run of words stay together.
    """
    if split not in {"train", "test"}:
        raise DataError(f"data {whole.name}: no split {split!r}; it is cut into train and test")
    if group is not None:
        whole.require([group])
    text = {_text_of(row, group): index for index, row in reversed(list(enumerate(whole.rows)))}
    kept = sorted(text.values())
    texts = {index: one for one, index in text.items()}
    keys = None if group is None else [_until(str(whole.rows[index][group]), until) for index in kept]
    test = on_test_side([texts[index] for index in kept], f"data {whole.name}", keys)
    side = [index for place, index in enumerate(kept) if (place in test) == (split == "test")]
    notes = [*whole.notes, f"cut 4:1 {f'by {group}' if group else 'by row'}"]
    if dropped := len(whole.rows) - len(kept):
        notes.append(f"{dropped} rows that repeat an earlier one left out")
    rows, ids = [whole.rows[index] for index in side], [whole.ids[index] for index in side]
    return Rows(whole.name, split, rows, ids, whole.revision, tuple(notes))


def _until(value: str, sign: str | None) -> str:
    return value if sign is None else value.partition(sign)[0]


def _text_of(row: Mapping[str, Any], group: str | None) -> str:
    """What a row says: its columns of running text; one word is an id or a label. All of it if no column is text."""
    values = [value for key, value in row.items() if isinstance(value, str) and key != group]
    running = [" ".join(value.split()) for value in values if len(value.split()) > 1]
    return "\n".join(running or values) or json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
