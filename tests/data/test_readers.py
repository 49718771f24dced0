from __future__ import annotations

import bz2

import pytest

from quantbench.core.errors import DataError
from quantbench.datasets.readers import is_corpus, reader_version, texts_of, without_licence

PAGE = "<page><title>{0}</title><ns>{1}</ns>{2}<revision><text>{3}</text></revision></page>"
PAGES = [
    PAGE.format("A", 0, "", "'''A''' is first."),
    PAGE.format("B", 0, '<redirect title="A"/>', "#REDIRECT [[A]]"),
    PAGE.format("Wikipedia:C", 4, "", "About us"),
    PAGE.format("D", 0, "", "D is &lt;b&gt;last&lt;/b&gt;."),
]


@pytest.mark.parametrize("xmlns", ["", ' xmlns="http://www.mediawiki.org/xml/export-0.10/"'])
def test_a_dump_gives_its_articles_without_redirects_and_other_pages(xmlns: str) -> None:
    dump = bz2.compress(f"<mediawiki{xmlns}>{''.join(PAGES)}</mediawiki>".encode())
    assert list(texts_of("wikidump", dump, "dump.bz2")) == ["A is first.", "D is last."]


@pytest.mark.parametrize("data", [b"not bz2", bz2.compress(b"<mediawiki><page>"), bz2.compress(b"x" * 9999)[:-4]])
def test_a_broken_dump_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"dump\.bz2 is not a bz2 MediaWiki dump"):
        list(texts_of("wikidump", data, "dump.bz2"))


def test_lines_are_documents_and_must_be_utf8() -> None:
    found = list(texts_of("lines", "one\u2028still one\ntwo\n".encode(), "a.cor"))
    assert found == ["one\u2028still one", "two", ""]
    with pytest.raises(DataError, match=r"b\.cor is not UTF-8 text: line 1"):
        list(texts_of("lines", b"\xff", "b.cor"))


def test_a_python_file_is_one_document() -> None:
    assert list(texts_of("python", b"# a\nimport os\n", "a.py")) == ["# a\nimport os\n"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# Copyright (c) 2007\n# All rights reserved.\n\nimport os\n", "import os\n"),
        ('"""\nReleased under the BSD licence.\n"""\nimport os\n', "import os\n"),
        ('"""What this module does."""\nlicense = 1\n', '"""What this module does."""\nlicense = 1\n'),
        ("# A comment\nimport os  # licence\n", "# A comment\nimport os  # licence\n"),
        ("import os\n", "import os\n"),
        ("", ""),
    ],
)
def test_only_a_leading_licence_is_removed(source: str, expected: str) -> None:
    assert without_licence(source) == expected


def test_corpora_are_the_formats_that_are_slow_to_read() -> None:
    assert all(map(is_corpus, ("lines", "python", "wikidump")))
    assert not any(map(is_corpus, ("txt", "csv", "jsonl")))
    assert "mwparserfromhell" in reader_version("wikidump")  # another version may give another text
