"""Rows of your own: a file, or a folder with a file for each side."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes
from quantbench.core.paths import LocalPath
from quantbench.datasets.file_formats import ENDINGS, Format, format_of, parse
from quantbench.datasets.rows import Rows, make_ids


@component
class FileSource:
    """Files: .txt (documents between blank lines), .jsonl, .json (a list, or one object a line), .csv, .tsv, .conll.

    path     a file, which is cut 4:1 into both sides (quantbench.datasets.split) unless test_path names another; or a
             folder with one file a side, named as `train` and `test` say (train.tsv, test.tsv)
    format   auto: by the ending
    header   names of the columns of a csv or tsv without a header line
    quoted   False: quotation marks in csv and tsv are part of the text
    id       a column of unique ids; None: rows are numbered
    group    for a cut: rows of equal values in this column lie on one side; group_until: up to this sign
    where    where the files come from, for the message that they are missing
    """

    verbatim: ClassVar[bool] = False

    path: LocalPath
    test_path: LocalPath | None = None
    train: str = "train"
    test: str = "test"
    format: Format = "auto"
    header: tuple[str, ...] | None = None
    quoted: bool = True
    id: str | None = None
    group: str | None = None
    group_until: str | None = None
    where: str = ""

    @property
    def location(self) -> str:
        """The path."""
        return str(self.path)

    def check_files(self) -> None:
        """Raise DataError, before anything is hashed, for a file or folder that is missing."""
        for key, path in (("path", self.path), ("test_path", self.test_path)):
            if path is not None and not path.exists():
                raise DataError(f"{key}={path}: no such file or folder.{f' {self.where}' if self.where else ''}")

    def check_reachable(self, name: str, side: str) -> None:  # noqa: ARG002 - the files are what they are
        """Raise DataError for a file or folder that is missing."""
        self.check_files()

    def cache_key(self) -> None:
        """Reading is fast."""

    def sides(self) -> tuple[str, ...]:
        """Those there is a file for."""
        if not self.path.is_dir():
            return ("train", "test")
        return tuple(side for side in ("train", "test") if self._candidates(side))

    def read(self, name: str, side: str) -> Rows:
        """See Source; messages name the line."""
        self.check_files()
        path = self._file(name, side)
        label = f"data {name}: {path}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{label} cannot be read: {error.strerror or error}") from error
        table = parse(data, format_of(path.name, self.format, label), label, self.header, self.quoted)
        if not len(table):
            raise DataError(f"{label} holds no text")
        revision = f"sha256:{hashlib.sha256(data).hexdigest()}"
        whole = self.path.is_file() and self.test_path is None
        ids = make_ids(f"data {name}, split {side}", table, self.id)
        return Rows(name, side, table, ids, revision, whole, (f"from {path.name}",))

    def fetch(self, name: str) -> str:
        """Nothing to fetch: reads the files that are there."""
        files = dict.fromkeys(self._file(name, side) for side in self.sides())
        for side in self.sides():
            self.read(name, side)
        return f"{readable_bytes(sum(file.stat().st_size for file in files))} in {' and '.join(map(str, files))}"

    def _file(self, name: str, side: str) -> Path:
        if not self.path.is_dir():
            return self.test_path if side == "test" and self.test_path is not None else self.path
        found = self._candidates(side)
        if len(found) != 1:
            there = ", ".join(sorted(path.name for path in self.path.iterdir())) or "nothing"
            which = "several files" if found else "no file"
            raise DataError(
                f"data {name}, split {side}: {which} named {self._stem(side)}{{{','.join(ENDINGS)}}} in {self.path}, "
                f"which holds {there} (set `train` and `test`)"
            )
        return found[0]

    def _stem(self, side: str) -> str:
        return {"train": self.train, "test": self.test}.get(side, side)

    def _candidates(self, side: str) -> list[Path]:
        # With a `format` given, any ending will do (.txt, .data).
        files = self.path.glob(f"{self._stem(side)}.*")
        return sorted(p for p in files if self.format != "auto" or p.suffix in ENDINGS)
