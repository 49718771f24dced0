"""Rows of your own: a file, or a folder with a file for each split."""

from __future__ import annotations

import hashlib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.paths import LocalPath
from quantbench.datasets.file_formats import ENDINGS, Format, format_of, parse
from quantbench.datasets.rows import Rows, cut_rows, make_rows


@component
class LocalRows:
    """Rows of files: .jsonl, .json (a list, or one object a line), .csv, .tsv, .conll ("token tag" lines).

    path     a folder with one file a split, named as `splits` says (train.tsv, test.tsv); or one file, which is cut
             4:1 into train and test (quantbench.datasets.rows.cut_rows), unless test_path names another
    splits   the file's name, without its ending, of each split
    format   auto: by the ending
    columns  names of the columns of a csv or tsv without header; null: its first line names them
    quoted   false: quotation marks in csv and tsv are part of the text
    id       a column of unique ids; null: rows are numbered
    group    for a cut: rows of equal values in this column lie on one side; group_until: up to this sign
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    family: Annotated[str, Field(min_length=1)]
    path: LocalPath
    test_path: LocalPath | None = None
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    format: Format = "auto"
    columns: tuple[str, ...] | None = None
    quoted: bool = True
    id: str | None = None
    group: str | None = None
    group_until: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def check_files(self) -> None:
        """Raise DataError, before anything is hashed, for a file or folder that is missing."""
        for key, path in (("path", self.path), ("test_path", self.test_path)):
            if path is not None and not path.exists():
                where = f" {self.about['where']}" if "where" in self.about else ""
                raise DataError(f"data {self.name}: {key}={path}: no such file or folder.{where}")

    def load(self, split: str) -> Rows:
        """See RowSource."""
        self.check_files()
        path = self._file(split)
        label = f"data {self.name}: {path}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{label} cannot be read: {error.strerror or error}") from error
        rows = parse(data, format_of(path.name, self.format, label), label, self.columns, self.quoted)
        revision = f"sha256:{hashlib.sha256(data).hexdigest()}"
        found = make_rows(self.name, split, rows, self.id, revision, [f"from {path.name}"])
        cut = self.path.is_file() and self.test_path is None
        return cut_rows(found, split, self.group, self.group_until) if cut else found

    def prepare(self) -> str:
        """Nothing to fetch: reads the splits that are there."""
        names = self.splits if self.path.is_dir() else {"train": "", "test": ""}
        there = [name for name in names if not self.path.is_dir() or self._candidates(name)]
        counts = [f"{len(self.load(name).rows)} {name} rows" for name in there]
        return f"{self.name}: {', '.join(counts)} in {self.path}"

    def _file(self, split: str) -> Path:
        if not self.path.is_dir():
            return self.test_path if split == "test" and self.test_path is not None else self.path
        found = self._candidates(split)
        if len(found) != 1:
            wanted = self.splits.get(split, split)
            there = ", ".join(sorted(path.name for path in self.path.iterdir())) or "nothing"
            which = "several files" if found else "no file"
            raise DataError(
                f"data {self.name}, split {split}: {which} named {wanted}{{{','.join(ENDINGS)}}} in {self.path}, "
                f"which holds {there} (set `splits`)"
            )
        return found[0]

    def _candidates(self, split: str) -> list[Path]:
        stem = self.splits.get(split)
        if stem is None:
            return []
        # With a `format` given, any ending will do (.txt, .data).
        return sorted(p for p in self.path.glob(f"{stem}.*") if self.format != "auto" or p.suffix in ENDINGS)
