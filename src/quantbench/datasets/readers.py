"""Readers: how the files of a package become documents."""

from __future__ import annotations

import bz2
import fnmatch
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Protocol, runtime_checkable
from xml.etree import ElementTree

from quantbench.core.component import component
from quantbench.core.errors import DataError


@runtime_checkable
class TextReader(Protocol):
    """Turns files into documents. Implementations are components."""

    @property
    def version(self) -> str:
        """Changes whenever the same files may give other documents; what was extracted is cached under it."""
        ...

    def read(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
        """The documents in the named files of a folder, in a fixed order.

        Raises DataError if a file is not what the reader expects.
        """
        ...


@component
class Lines:
    """One document a line, UTF-8."""

    @property
    def version(self) -> str:
        """See TextReader."""
        return "1"

    def read(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
        """The lines of all files."""
        for name in names:
            yield from _decoded(folder / name).split("\n")


@component
class WikiDump:
    """The articles of a bz2 MediaWiki XML dump as plain text; redirects and other namespaces are left out."""

    @property
    def version(self) -> str:
        """Names the markup parser's release, too."""
        return f"1, mwparserfromhell {installed_version('mwparserfromhell')}"

    def read(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
        """The prose of each article (quantbench.datasets.wikitext_markup)."""
        from quantbench.datasets.wikitext_markup import plain_text

        for name in names:
            try:
                with bz2.open(folder / name) as stream:
                    for _, element in ElementTree.iterparse(stream):
                        namespace, _, tag = element.tag.rpartition("}")
                        if tag != "page":
                            continue
                        page = _Page(element, f"{namespace}}}" if namespace else "")
                        if page.is_article:
                            yield plain_text(page.markup)
                        element.clear()
            except (OSError, EOFError, ElementTree.ParseError) as error:
                raise DataError(f"{folder / name} is not a bz2 MediaWiki dump: {error}") from error


class _Page:
    """What of a <page> element is needed; its tags carry the XML namespace as a prefix."""

    def __init__(self, element: ElementTree.Element, prefix: str) -> None:
        self.markup = element.findtext(f"{prefix}revision/{prefix}text") or ""
        redirect = element.find(f"{prefix}redirect") is not None
        self.is_article = element.findtext(f"{prefix}ns") == "0" and not redirect


@component
class PythonFiles:
    """One Python file a document, without licence header.

    exclude  patterns of paths to leave out, in which * also stands for slashes
    """

    exclude: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """See TextReader."""
        return "1"

    def read(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
        """The files in the order given."""
        for name in names:
            if name.endswith(".py") and not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude):
                yield without_licence(_decoded(folder / name))


_HEADER = re.compile(r"(?:\s*\#[^\n]*\n)+|\s*(?:\"\"\".*?\"\"\"|'''.*?''')[ \t]*\n?", re.DOTALL)
_LICENCE = re.compile(r"copyright|licen[cs]e|redistribution", re.IGNORECASE)


def without_licence(source: str) -> str:
    """Python source without the leading comment block or docstring, if that is about the licence."""
    header = _HEADER.match(source)
    return source[header.end() :].lstrip("\n") if header and _LICENCE.search(header.group()) else source


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
