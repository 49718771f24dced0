"""Corpora that are no tables: a MediaWiki dump, Python source, a document a line."""

from __future__ import annotations

import bz2
import io
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed_version
from typing import Literal
from xml.etree import ElementTree

from quantbench.core.errors import DataError


def lines(data: bytes, label: str) -> Iterator[str]:
    """One document a line, UTF-8."""
    yield from decoded(data, label, "utf-8").split("\n")


def wiki_dump(data: bytes, label: str) -> Iterator[str]:
    """The articles of a bz2 MediaWiki XML dump as plain text; redirects and other namespaces are left out."""
    from quantbench.datasets.wikitext_markup import plain_text

    try:
        with bz2.open(io.BytesIO(data)) as stream:
            for _, element in ElementTree.iterparse(stream):
                namespace, _, tag = element.tag.rpartition("}")
                if tag != "page":
                    continue
                page = _Page(element, f"{namespace}}}" if namespace else "")
                if page.is_article:
                    yield plain_text(page.markup)
                element.clear()
    except (OSError, EOFError, ElementTree.ParseError) as error:
        raise DataError(f"{label} is not a bz2 MediaWiki dump: {error}") from error


class _Page:
    """What of a <page> element is needed; its tags carry the XML namespace as a prefix."""

    def __init__(self, element: ElementTree.Element, prefix: str) -> None:
        self.markup = element.findtext(f"{prefix}revision/{prefix}text") or ""
        redirect = element.find(f"{prefix}redirect") is not None
        self.is_article = element.findtext(f"{prefix}ns") == "0" and not redirect


def python_file(data: bytes, label: str) -> Iterator[str]:
    """A Python file as one document, without licence header."""
    yield without_licence(decoded(data, label, "utf-8"))


_HEADER = re.compile(r"(?:\s*\#[^\n]*\n)+|\s*(?:\"\"\".*?\"\"\"|'''.*?''')[ \t]*\n?", re.DOTALL)
_LICENCE = re.compile(r"copyright|licen[cs]e|redistribution", re.IGNORECASE)


def without_licence(source: str) -> str:
    """Python source without the leading comment block or docstring, if that is about the licence."""
    header = _HEADER.match(source)
    return source[header.end() :].lstrip("\n") if header and _LICENCE.search(header.group()) else source


def decoded(data: bytes, label: str, encoding: Literal["utf-8", "utf-8-sig"]) -> str:
    """UTF-8 text; utf-8-sig: a byte order mark before it is dropped. Raises DataError, naming the line, for others."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{label} is not UTF-8 text: line {line}: {error}; save it as UTF-8") from error
    if (found := text.find("\0")) >= 0:
        line = text.count("\n", 0, found) + 1
        raise DataError(f"{label}, line {line}: a NUL, which no text holds; if the file is UTF-16, save it as UTF-8")
    return text


_READERS: dict[str, Callable[[bytes, str], Iterator[str]]] = {
    "lines": lines,
    "python": python_file,
    "wikidump": wiki_dump,
}


def is_corpus(form: str) -> bool:
    """Whether files of a format are documents without columns, read by this module."""
    return form in _READERS


def texts_of(form: str, data: bytes, label: str) -> Iterator[str]:
    """The documents in a file, in their order. Raises DataError if it is not in the format."""
    return _READERS[form](data, label)


def reader_version(form: str) -> str:
    """Changes whenever the same file may give other documents; what was extracted is cached under it."""
    return f"{form} 1" + (f", mwparserfromhell {installed_version('mwparserfromhell')}" if form == "wikidump" else "")
