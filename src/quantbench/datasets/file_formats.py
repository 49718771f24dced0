"""Bytes of a file -> rows: running text, JSON, JSON lines, comma- or tab-separated values, and tagged tokens."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from quantbench.core.errors import DataError
from quantbench.datasets.readers import is_corpus, texts_of
from quantbench.datasets.table import ListTable, Row

Format = Literal["auto", "txt", "jsonl", "json", "csv", "tsv", "tsv_raw", "conll", "lines", "python", "wikidump"]

_ENDINGS: dict[str, Format] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".bio": "conll",
    ".cor": "lines",
    ".py": "python",
    ".bz2": "wikidump",
}
ENDINGS = tuple(ending for ending, form in _ENDINGS.items() if not is_corpus(form))
"""Of the files of one's own."""

TEXT = "text"
"""The column of formats that have no columns."""

csv.field_size_limit(1 << 27)  # a passage may be longer than the module's 131,072 characters


def format_of(name: str, asked: Format, label: str) -> Format:
    """The format asked for, or that of the file's ending. Raises DataError if the ending says nothing."""
    if asked != "auto":
        return asked
    found = _ENDINGS.get(Path(name).suffix)
    if found is None:
        raise DataError(f"{label}: expected a name ending in {', '.join(ENDINGS)}, or `format` to be set")
    return found


def parse(data: bytes, form: Format, label: str, header: Sequence[str] | None, quoted: bool) -> ListTable:
    """The rows of a file.

    header  names of the columns of a csv or tsv without a header line, or of the two of a conll file; None: the first
            line, or tokens and tags
    quoted  whether quotation marks of csv and tsv enclose fields; False: they are part of the text
    tsv_raw is tsv whose quotation marks are text. Formats without columns (txt, lines, python, wikidump) give one
    column, `text`.
    Raises DataError, naming the line, if the data are not in the format.
    """
    if is_corpus(form):
        return ListTable([{TEXT: text} for text in texts_of(form, data, label)])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{label} is not UTF-8 text: {error}") from error
    if form == "txt":
        return ListTable([{TEXT: part} for part in re.split(r"\n[ \t\r]*\n", text) if part.strip()])
    if form in {"csv", "tsv", "tsv_raw"}:
        return _separated(text, "," if form == "csv" else "\t", label, header, quoted and form != "tsv_raw")
    if form == "conll":
        return _tagged(text, label, header or ("tokens", "tags"))
    return _json(text, label) if form == "json" and text.lstrip().startswith("[") else _json_lines(text, label)


def _json(text: str, label: str) -> ListTable:
    """A JSON list of objects; a file of that ending may hold one object a line as well (BOSS)."""
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{label}: not JSON: {error}") from error
    positions = [f"{label}, element {number}" for number in range(len(rows))]
    return ListTable([_checked(row, where) for row, where in zip(rows, positions, strict=True)], positions)


def _json_lines(text: str, label: str) -> ListTable:
    rows, positions = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{label}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        rows.append(_checked(row, where))
        positions.append(where)
    return ListTable(rows, positions)


def _checked(row: object, label: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{label}: expected an object with named columns, found a {type(row).__name__}")
    return row


def _separated(text: str, sign: str, label: str, header: Sequence[str] | None, quoted: bool) -> ListTable:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=sign) if quoted else csv.reader(lines, delimiter=sign, quoting=csv.QUOTE_NONE)
    names = list(header) if header is not None else next(reader, [])
    rows: list[Row] = []
    positions = []
    for values in reader:
        if not values:
            continue
        where = f"{label}, line {reader.line_num}"
        if len(values) != len(names):
            raise DataError(
                f"{where}: {len(values)} values, but {len(names)} columns "
                f"({', '.join(names)}); check `header` (for a file without a header line) and `quoted`"
            )
        rows.append(dict(zip(names, values, strict=True)))
        positions.append(where)
    return ListTable(rows, positions)


def _tagged(text: str, label: str, header: Sequence[str]) -> ListTable:
    """One "token tag" line a token, a blank line between sentences; a row is a sentence with two lists."""
    if len(header) != 2:
        raise DataError(f"{label}: `header` must name two, for tokens and tags, not {', '.join(header)}")
    rows: list[Row] = []
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if tokens:
                rows.append({header[0]: tokens, header[1]: tags})
                tokens, tags = [], []
            continue
        parts = line.rstrip("\r").rsplit("\t" if "\t" in line else None, 1)
        if len(parts) != 2:
            raise DataError(f"{label}, line {number}: expected a token and its tag, found {line!r}")
        tokens.append(parts[0])
        tags.append(parts[1])
    return ListTable(rows)
