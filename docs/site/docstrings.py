"""Docstrings align names and meanings in columns; on a page such a paragraph stays as it was typed."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ALIGNED = re.compile(r"\S+(?: \S+)* {2,}\S")
"""A line that begins a column: a name or a few words, two spaces or more, and what it means."""

_LIST = re.compile(r"[*-] |\d+\. ")

_CODE = re.compile(r"(`[^`]*`)")

_SPECIAL = re.compile(r"[\[\]_<]|(?<=\S)\*|\*(?=\S)")
"""Letters of formulas that Markdown would read as markup."""


class AlignedParagraphs(griffe.Extension):
    """Makes code blocks of paragraphs that are typed as columns."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """The text with each paragraph of aligned columns as a code block, and nothing else taken for markup but `code`."""
    return "\n\n".join(_paragraph(part) for part in text.split("\n\n"))


def _paragraph(text: str) -> str:
    first = text.lstrip("\n").partition("\n")[0]
    if first.startswith("    "):
        return text
    if _ALIGNED.match(first) and not _LIST.match(first):
        return f"```text\n{text.strip(chr(10))}\n```"
    return "".join(part if part.startswith("`") else _SPECIAL.sub(r"\\\g<0>", part) for part in _CODE.split(text))
