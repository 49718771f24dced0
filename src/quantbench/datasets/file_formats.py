"""Bytes of a file -> rows: running text, JSON, JSON lines, comma- or tab-separated values, and tagged tokens."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from quantbench.core.errors import DataError
from quantbench.datasets.json_rows import json_lines, json_table
from quantbench.datasets.readers import decoded, is_corpus, texts_of
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

_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")

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
        texts = list(texts_of(form, data, label))
        return ListTable([{TEXT: text} for text in texts], [f"{label}, document {n}" for n in range(len(texts))])
    text = decoded(data, label, "utf-8-sig")
    if form == "txt":
        return _documents(text, label)
    if form in {"csv", "tsv", "tsv_raw"}:
        return _separated(text, "," if form == "csv" else "\t", label, header, quoted and form != "tsv_raw")
    if form == "conll":
        return _tagged(text, label, header or ("tokens", "tags"))
    return json_table(text, label) if form == "json" else json_lines(text, label)


def _documents(text: str, label: str) -> ListTable:
    """What stands between blank lines, each with the line that it begins in."""
    rows: list[Row] = []
    positions, line, counted, begin = [], 1, 0, 0
    for end, next_begin in [*(gap.span() for gap in _BLANK_LINE.finditer(text)), (len(text), len(text))]:
        part = text[begin:end]
        if part.strip():
            first = end - len(part.lstrip())
            line, counted = line + text.count("\n", counted, first), first
            rows.append({TEXT: part})
            positions.append(f"{label}, line {line}")
        begin = next_begin
    return ListTable(rows, positions)


def _separated(text: str, sign: str, label: str, header: Sequence[str] | None, quoted: bool) -> ListTable:
    records = _records(text, sign, label, quoted)
    names = list(header) if header is not None else next(records, ("", []))[1]
    _check_names(names, f"{label}: header" if header is not None else f"{label}, line 1")
    rows: list[Row] = []
    positions = []
    for where, values in records:
        if len(values) != len(names):
            raise DataError(
                f"{where}: {len(values)} values, but {len(names)} columns "
                f"({', '.join(names)}); check `header` (for a file without a header line) and `quoted`"
            )
        rows.append(dict(zip(names, values, strict=True)))
        positions.append(where)
    return ListTable(rows, positions)


def _records(text: str, sign: str, label: str, quoted: bool) -> Iterator[tuple[str, list[str]]]:
    """The records that hold anything, each with the line that it begins in."""
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    # strict: a quotation mark that is never closed would make one field of the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, quoting=quoting, strict=quoted)
    while True:
        where = f"{label}, line {reader.line_num + 1}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{where}: {error}, read up to line {reader.line_num}; where quotation marks are part of the text set "
                "`quoted` to false"
            ) from error
        if values:
            yield where, values


def _check_names(names: Sequence[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{where}: the column {twice[0]!r} stands there twice, so one of its values would be lost; the columns: "
            f"{', '.join(names)} (rename one, or name them by `header`)"
        )


def _tagged(text: str, label: str, header: Sequence[str]) -> ListTable:
    """One "token tag" line a token, a blank line between sentences; a row is a sentence with two lists."""
    if len(header) != 2:
        raise DataError(f"{label}: `header` must name two, for tokens and tags, not {', '.join(header)}")
    rows: list[Row] = []
    positions: list[str] = []
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
        if not tokens:
            positions.append(f"{label}, line {number}")
        tokens.append(parts[0])
        tags.append(parts[1])
    return ListTable(rows, positions)
