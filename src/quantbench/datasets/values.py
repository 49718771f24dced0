"""What the values of a row may be, for every reader and every use: text, a number, true or false, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from quantbench.core.errors import DataError

_SURROGATE = re.compile("[\ud800-\udfff]")


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place, a file and its line or a row, before what is wrong there."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def check_values(row: Mapping[str, object]) -> None:
    """Raise DataError, naming the column, for what no file of rows may hold: half a surrogate pair, or no number."""
    for column, value in row.items():
        for one in _leaves(value):
            if isinstance(one, float) and not math.isfinite(one):
                raise DataError(
                    f"{column!r} holds {one}, which is no number of JSON; where nothing is known write null"
                )
            if isinstance(one, str) and (found := _SURROGATE.search(one)):
                raise DataError(
                    f"{column!r} holds \\u{ord(found[0]):04x}, half of a surrogate pair, which is no character; it "
                    "comes of text that was cut within one"
                )
        if _SURROGATE.search(column):
            raise DataError(f"the column {column!r} has half of a surrogate pair in its name")


def _leaves(value: object) -> Iterator[object]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
        else:
            yield one


def is_nothing(value: object) -> bool:
    """Whether a value stands for none: null, or the NaN that tables of numbers have in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def scalar(value: object, column: str) -> str:
    """A single value as text without white space at its ends, "" for nothing. Raises DataError for a nested one."""
    if is_nothing(value):
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(
            f"the column {column!r} holds {_kind(value)}, where one text or number is expected; name a column of such"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"the column {column!r} holds {value}, which is no number")
    return str(value).strip()


def as_yaml(value: object, column: str) -> str:
    """A single value as a yaml writes it: 1 and 1.0 are "1", true is "true", nothing is ""."""
    text = scalar(value, column)
    if isinstance(value, bool):
        return text.lower()
    return str(int(value)) if isinstance(value, float) and text and value.is_integer() else text


def number(value: object, column: str) -> float:
    """A number, also one that is written as text. Raises DataError for anything else: true, "nan", "inf", null."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"expected a number in the column {column!r}, found {value!r}")
    return found


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"an object with {', '.join(map(repr, value)) or 'nothing in it'}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
