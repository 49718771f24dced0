"""Texts with slots, "{subject}: {body}", filled from the columns of a row. A brace that is text is written twice."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.core.errors import ConfigError, DataError


def slots(text: str) -> list[str]:
    """The names in braces, in order, each once. Raises ConfigError for what is no template."""
    try:
        named = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a template: {error} (a brace that is text is written twice)") from error
    return list(dict.fromkeys(named))


def is_template(text: str) -> bool:
    """Whether a text has slots; else it is the name of a column."""
    return "{" in text


def plain(row: Mapping[str, object], column: str) -> str:
    """The text of a column, without white space at its ends; nothing is "". Raises DataError for what is no text."""
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise DataError(f"the column {column!r} holds {type(value).__name__}, not text")
    return (value or "").strip()


@dataclass(frozen=True)
class TextTemplate:
    """A document made of columns: parts with blank lines between them; one whose columns are all empty is left out."""

    text: str

    def __post_init__(self) -> None:
        if not all(slots(part) for part in self.parts):
            raise ConfigError(f"text={self.text!r}: each part between blank lines must name a {{column}}")

    @property
    def parts(self) -> list[str]:
        """What stands between blank lines."""
        return self.text.split("\n\n")

    @property
    def columns(self) -> list[str]:
        """The columns it reads."""
        return slots(self.text)

    def fill(self, row: Mapping[str, object]) -> str:
        """The document of a row."""
        values = {name: plain(row, name) for name in self.columns}
        kept = [part for part in self.parts if any(values[name] for name in slots(part))]
        return "\n\n".join(part.format_map(values) for part in kept)
