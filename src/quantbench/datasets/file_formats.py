"""Bytes of a file -> rows: JSON, JSON lines, comma- or tab-separated values, and tagged tokens."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from quantbench.core.errors import DataError
from quantbench.datasets.rows import Row

Format = Literal["auto", "jsonl", "json", "csv", "tsv", "conll"]

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".bio": "conll",
}
ENDINGS = tuple(_ENDINGS)

csv.field_size_limit(1 << 27)  # a passage may be longer than the module's 131,072 characters


def format_of(name: str, asked: Format, label: str) -> Format:
    """The format asked for, or that of the file's ending. Raises DataError if the ending says nothing."""
    if asked != "auto":
        return asked
    found = _ENDINGS.get(Path(name).suffix)
    if found is None:
        raise DataError(f"{label}: expected a name ending in {', '.join(ENDINGS)}, or `format` to be set")
    return found


def parse(data: bytes, form: Format, label: str, columns: Sequence[str] | None, quoted: bool) -> list[Row]:
    """The rows of a file.

    columns  names of the columns of a csv or tsv without a header, or of the two of a conll file; None: the header,
             or tokens and tags
    quoted   whether quotation marks of csv and tsv enclose fields; False: they are part of the text
    Raises DataError, naming the line, if the data are not in the format.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{label} is not UTF-8 text: {error}") from error
    if form in {"csv", "tsv"}:
        return _separated(text, "," if form == "csv" else "\t", label, columns, quoted)
    if form == "conll":
        return _tagged(text, label, columns or ("tokens", "tags"))
    readers: dict[str, Callable[[str, str], list[Row]]] = {"json": _json, "jsonl": _json_lines}
    return readers[form](text, label)


def _json(text: str, label: str) -> list[Row]:
    """A JSON list of objects; a file of that ending may hold one object a line as well (BOSS)."""
    if not text.lstrip().startswith("["):
        return _json_lines(text, label)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{label}: not JSON: {error}") from error
    return [_checked(row, f"{label}, element {number}") for number, row in enumerate(rows)]


def _json_lines(text: str, label: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{label}, line {number}: not JSON: {error}") from error
        rows.append(_checked(row, f"{label}, line {number}"))
    return rows


def _checked(row: object, label: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{label}: expected an object with named columns, found a {type(row).__name__}")
    return row


def _separated(text: str, sign: str, label: str, columns: Sequence[str] | None, quoted: bool) -> list[Row]:
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=sign) if quoted else csv.reader(lines, delimiter=sign, quoting=csv.QUOTE_NONE)
    names = list(columns) if columns is not None else next(reader, [])
    rows = []
    for values in reader:
        if not values:
            continue
        if len(values) != len(names):
            raise DataError(
                f"{label}, line {reader.line_num}: {len(values)} values, but {len(names)} columns "
                f"({', '.join(names)}); check `columns` (for a file without a header) and `quoted`"
            )
        rows.append(dict(zip(names, values, strict=True)))
    return rows


def _tagged(text: str, label: str, columns: Sequence[str]) -> list[Row]:
    """One "token tag" line a token, a blank line between sentences; a row is a sentence with two lists."""
    if len(columns) != 2:
        raise DataError(f"{label}: `columns` must name two, for tokens and tags, not {', '.join(columns)}")
    rows: list[Row] = []
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if tokens:
                rows.append({columns[0]: tokens, columns[1]: tags})
                tokens, tags = [], []
            continue
        parts = line.rstrip("\r").rsplit("\t" if "\t" in line else None, 1)
        if len(parts) != 2:
            raise DataError(f"{label}, line {number}: expected a token and its tag, found {line!r}")
        tokens.append(parts[0])
        tags.append(parts[1])
    return rows
