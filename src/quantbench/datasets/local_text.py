"""Texts of your own: a .txt or .jsonl file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes
from quantbench.core.paths import LocalPath
from quantbench.datasets.documents import Documents
from quantbench.datasets.split import cut


@component
class LocalText:
    """Documents of a file: .txt (separated by blank lines) or .jsonl (one object a line, its text under `column`).

    path       the text to calibrate on; without a test_path it is cut 4:1 into both sides (quantbench.datasets.split)
    test_path  the text to test on
    """

    name: Annotated[str, Field(min_length=1)]
    family: str = "lm"
    path: LocalPath
    test_path: LocalPath | None = None
    column: Annotated[str, Field(min_length=1)] = "text"
    joiner: str = "\n\n"
    about: dict[str, Any] = field(default_factory=dict)

    def check_files(self) -> None:
        """Raise DataError, before anything is hashed, for a file that is missing."""
        for key, path in (("path", self.path), ("test_path", self.test_path)):
            if path is not None and not path.is_file():
                problem = "is a folder; give a file" if path.is_dir() else "no such file"
                raise DataError(f"{self._label(key, path)}: {problem}")

    def load(self, split: str) -> Documents:
        """One side. Raises DataError for a file that is missing, empty, or not in its format, naming the line."""
        key, path = ("test_path", self.test_path) if split == "test" and self.test_path else ("path", self.path)
        documents = self._documents(key, path)
        return Documents(
            name=self.name,
            split=split,
            documents=documents if self.test_path else cut(documents, self.name)[split],
            revision=f"sha256:{hashlib.sha256(_bytes(self._label(key, path), path)).hexdigest()}",
            joiner=self.joiner,
            notes=() if self.test_path else (f"cut 4:1 by document from {path.name}",),
        )

    def prepare(self) -> str:
        """Nothing to fetch: reads both sides."""
        train, test = len(self.load("train").documents), len(self.load("test").documents)
        files = [path for path in (self.path, self.test_path) if path]
        size = readable_bytes(sum(path.stat().st_size for path in files))
        return f"{self.name}: {size} in {' and '.join(map(str, files))}, {train} train and {test} test documents"

    def _label(self, key: str, path: Path) -> str:
        return f"text {self.name}: {key}={path}"

    def _documents(self, key: str, path: Path) -> list[str]:
        label = self._label(key, path)
        if path.suffix not in {".txt", ".jsonl"}:
            raise DataError(f"{label}: expected a .txt file (documents separated by blank lines) or a .jsonl file")
        try:
            text = _bytes(label, path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{label} is not UTF-8 text: {error}") from error
        found = re.split(r"\n[ \t\r]*\n", text) if path.suffix == ".txt" else self._rows(label, text)
        documents = [document for document in map(str.strip, found) if document]
        if not documents:
            raise DataError(f"{label} holds no text")
        return documents

    def _rows(self, label: str, text: str) -> Iterator[str]:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{label}, line {number}: not JSON: {error}") from error
            value = row.get(self.column) if isinstance(row, dict) else None
            if not isinstance(value, str):
                columns = ", ".join(row) if isinstance(row, dict) else f"none, but a {type(row).__name__}"
                raise DataError(
                    f"{label}, line {number}: no text under {self.column!r} (its columns: {columns}); "
                    "set `column` to the one that holds the text"
                )
            yield value


def _bytes(label: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{label} cannot be read: {error.strerror or error}") from error
