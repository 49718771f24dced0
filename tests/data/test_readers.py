from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from quantbench.core.errors import DataError
from quantbench.datasets.readers import Lines, PythonFiles, TextReader, WikiDump, without_licence

PAGE = "<page><title>{0}</title><ns>{1}</ns>{2}<revision><text>{3}</text></revision></page>"
PAGES = [
    PAGE.format("A", 0, "", "'''A''' is first."),
    PAGE.format("B", 0, '<redirect title="A"/>', "#REDIRECT [[A]]"),
    PAGE.format("Wikipedia:C", 4, "", "About us"),
    PAGE.format("D", 0, "", "D is &lt;b&gt;last&lt;/b&gt;."),
]


@pytest.mark.parametrize("xmlns", ["", ' xmlns="http://www.mediawiki.org/xml/export-0.10/"'])
def test_a_dump_gives_its_articles_without_redirects_and_other_pages(tmp_path: Path, xmlns: str) -> None:
    (tmp_path / "dump.bz2").write_bytes(bz2.compress(f"<mediawiki{xmlns}>{''.join(PAGES)}</mediawiki>".encode()))
    assert list(WikiDump().read(tmp_path, ["dump.bz2"])) == ["A is first.", "D is last."]


@pytest.mark.parametrize("data", [b"not bz2", bz2.compress(b"<mediawiki><page>"), bz2.compress(b"x" * 9999)[:-4]])
def test_a_broken_dump_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "dump.bz2").write_bytes(data)
    with pytest.raises(DataError, match=r"dump\.bz2 is not a bz2 MediaWiki dump"):
        list(WikiDump().read(tmp_path, ["dump.bz2"]))


def test_lines_are_documents_and_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.cor").write_bytes("one\u2028still one\ntwo\n".encode())
    assert list(Lines().read(tmp_path, ["a.cor"])) == ["one\u2028still one", "two", ""]
    (tmp_path / "b.cor").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"b\.cor cannot be read as UTF-8"):
        list(Lines().read(tmp_path, ["b.cor"]))


def test_python_files_leave_out_what_is_excluded_wherever_the_cache_lies(tmp_path: Path) -> None:
    folder = tmp_path / "locale"
    names = ["pkg/a.py", "pkg/locale/de/formats.py", "pkg/readme.txt"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    assert list(PythonFiles(exclude=("*/locale/*",)).read(folder, names)) == ["# pkg/a.py\n"]


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


def test_readers_are_readers() -> None:
    assert all(isinstance(reader, TextReader) for reader in (Lines(), WikiDump(), PythonFiles()))
