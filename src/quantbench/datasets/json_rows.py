"""Rows of JSON files: a list of objects, one object a line, or one object alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from quantbench.core.errors import DataError
from quantbench.datasets.table import ListTable, Row
from quantbench.datasets.values import check_values, located

_SPACE = re.compile(r"[ \t\r\n]*")

Placed = tuple[str, object]
"""Where a value stands, and the value."""


def json_table(text: str, label: str) -> ListTable:
    """The rows of a .json file: a list, one object a line (as BOSS has it), or a single object, which is one row."""
    if text.lstrip().startswith("["):
        return _table(_elements(text, label))
    with located(f"{label}, line 1"):
        try:
            whole = _DECODER.decode(text.strip())
        except (ValueError, RecursionError):  # read as lines, which are named
            return json_lines(text, label)
    return _table(iter([(f"{label}, line 1", whole)]))


def json_lines(text: str, label: str) -> ListTable:
    """The rows of a .jsonl file; lines without text are none."""
    return _table(_lines(text, label))


def _table(values: Iterator[Placed]) -> ListTable:
    """Rows, when all of the file has been read: what is no JSON at all is said first."""
    found = list(values)
    rows: list[Row] = []
    for where, value in found:
        if not isinstance(value, dict):
            raise DataError(f"{where}: expected an object with named columns, found a {type(value).__name__}")
        with located(where):
            check_values(value)
        rows.append(value)
    return ListTable(rows, [where for where, _ in found])


def _lines(text: str, label: str) -> Iterator[Placed]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{label}, line {number}"
            value, end = _value(line.strip(), 0, where)
            if end < len(line.strip()):
                raise DataError(f"{where}: not JSON: there is more behind the object: {line.strip()[end:]!r:.60}")
            yield where, value


def _elements(text: str, label: str) -> Iterator[Placed]:
    """The elements of a list, one by one, so that each has its line."""
    place, line, counted = _after(text, text.index("[") + 1), 1, 0
    number, comma = 0, False
    while comma or text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        where = f"{label}, line {line}, element {number}"
        value, end = _value(text, place, where)
        yield where, value
        place, number = _after(text, end), number + 1
        if comma := text[place : place + 1] == ",":
            place = _after(text, place + 1)
        elif text[place : place + 1] != "]":
            raise DataError(f"{where}: not JSON: behind it stands {text[place : place + 20]!r}, neither , nor ]")
    if rest := text[place + 1 :].strip():
        raise DataError(f"{label}: not JSON: there is more behind the list: {rest!r:.60}")


def _after(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _value(text: str, place: int, where: str) -> tuple[object, int]:
    with located(where):
        try:
            return _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg}, at {text[error.pos : error.pos + 20]!r}") from error
        except ValueError as error:  # a number of thousands of digits
            raise DataError(f"cannot be read: {error}") from error
        except RecursionError as error:
            raise DataError("nested too deeply to be read") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{twice!r} stands there twice in one object, so one of its values would be lost")
    return found


def _no_number(text: str) -> NoReturn:
    raise DataError(f"{text} is no number of JSON; where nothing is known write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)
