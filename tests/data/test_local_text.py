from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource
from quantbench.datasets.local_text import LocalText
from quantbench.datasets.split import cut

DOCUMENTS = [f"first line of {i}\nsecond line of {i}" for i in range(10)]


def local(path: Path, **options: Any) -> LocalText:
    given: dict[str, Any] = {"path": str(path)} | options  # a string, as a yaml gives it
    return LocalText(name="mine", **given)


def rows(path: Path, values: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(value) for value in values) + "\n")
    return path


def test_a_text_file_is_cut_at_blank_lines_and_then_4_to_1(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\n\n".encode() + "\n \t\r\n\n".join(DOCUMENTS).encode() + b"\n\n" + DOCUMENTS[0].encode())
    text = local(path)
    assert isinstance(text, TextSource)
    assert {side: text.load(side).documents for side in ("train", "test")} == cut(DOCUMENTS, "mine")
    assert text.load("test").revision == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert "8 train and 2 test documents" in text.prepare()


def test_with_a_test_file_nothing_is_cut_or_dropped(tmp_path: Path) -> None:
    train = rows(tmp_path / "a.jsonl", [{"body": "one"}, {"body": "one"}])
    test = rows(tmp_path / "b.jsonl", [{"body": "two", "more": 1}])
    text = local(train, test_path=str(test), column="body", joiner=" ")
    assert text.load("train").text == "one one"
    assert text.load("test").documents == ["two"]
    assert text.load("train").revision != text.load("test").revision


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", r"path=.*a\.csv: expected a \.txt file .* or a \.jsonl file"),
        ("a.txt", b"\xff\xfe", r"a\.txt is not UTF-8 text"),
        ("a.txt", b" \n\n \n", r"a\.txt holds no text"),
        ("a.jsonl", b"", r"a\.jsonl holds no text"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a\.jsonl, line 3: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b", "n": 1}\n', r"line 2: no text under .* columns: body, n\)"),
        ("a.jsonl", b'{"text": 5}\n', r"line 1: no text under 'text' \(its columns: text\)"),
        ("a.jsonl", b'["a"]\n', r"line 1: no text under 'text' \(its columns: none, but a list\)"),
        ("a.txt", b"just one document", r"text mine: 1 distinct documents .* cannot be cut"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        local(tmp_path / name).load("train")


def test_missing_files_are_named_with_their_key(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    with pytest.raises(DataError, match=r"text mine: path=.*no\.txt cannot be read: No such file"):
        local(tmp_path / "no.txt").load("train")
    with pytest.raises(DataError, match=r"text mine: test_path=.*no\.jsonl cannot be read: No such file"):
        local(tmp_path / "a.txt", test_path=str(tmp_path / "no.jsonl")).load("test")


def test_a_leading_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local(Path("~/a.txt")).path == tmp_path / "a.txt"
