"""Files and folders of one's own: formats, columns, cuts that leak nothing, and what is said when they are wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import TextSource
from quantbench.datasets.files import FileSource
from quantbench.datasets.rows import Rows, Source
from quantbench.datasets.split import cut_rows, cut_texts
from quantbench.datasets.text import TextSet

DOCUMENTS = [f"first line of {i}\nsecond line of {i}" for i in range(10)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(path: Path, *rows: Any) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def source(path: Path, **options: Any) -> FileSource:
    given: dict[str, Any] = {"path": str(path)} | options  # a string, as a yaml gives it
    return FileSource(**given)


def read(path: Path, side: str = "test", **options: Any) -> Rows:
    return source(path, **options).read("mine", side)


def text(path: Path, column: str = "text", joiner: str = "\n\n", **options: Any) -> TextSet:
    return TextSet(source=source(path, **options), origin=Origin(name="mine", family="lm"), text=column, joiner=joiner)


# Running text


def test_a_text_file_is_cut_at_blank_lines_and_then_4_to_1(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff\n\n".encode() + "\n \t\r\n\n".join(DOCUMENTS).encode() + b"\n\n" + DOCUMENTS[0].encode())
    found = text(path)
    assert isinstance(found, TextSource)
    assert {side: found.load(side).documents for side in ("train", "test")} == cut_texts(DOCUMENTS, "mine")
    assert found.load("test").revision == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert found.prepare().startswith("mine: ")
    assert str(path) in found.prepare()


def test_with_a_test_file_nothing_is_cut_or_dropped(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "a.jsonl", {"body": "one"}, {"body": "one"})
    test = jsonl(tmp_path / "b.jsonl", {"body": "two", "more": 1})
    found = text(train, "body", " ", test_path=str(test))
    assert found.load("train").text == "one one"
    assert found.load("test").documents == ["two"]
    assert found.load("train").revision != found.load("test").revision


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xyz", b"x", r"data mine: .*a\.xyz: expected a name ending in \.txt, \.jsonl"),
        ("a.txt", b"\xff\xfe", r"a\.txt is not UTF-8 text"),
        ("a.txt", b" \n\n \n", r"a\.txt holds no text"),
        ("a.jsonl", b"", r"a\.jsonl holds no text"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"a\.jsonl, line 3: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b", "n": 1}\n', r"line 2: no text under 'text' .*columns: body, n\)"),
        ("a.jsonl", b'{"text": 5}\n', r"line 1: 'text' holds int \(its columns: text\); set `text`"),
        ("a.jsonl", b'["a"]\n', r"line 1: expected an object with named columns, found a list"),
        ("a.json", b'[{"text": "a"}, {"text": null}]', r"line 1, element 1: 'text' holds null, where a text"),
        ("a.txt", b"just one document", r"data mine, split train: 1 distinct documents .* cannot be cut"),
    ],
)  # fmt: skip
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        text(write(tmp_path / name, content)).load("train")


def test_missing_files_are_named_with_their_key(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "one\n\ntwo")
    missing = text(tmp_path / "no.txt", where="Unpack the archive of its authors there.")
    with pytest.raises(DataError, match=r"path=.*no\.txt: no such file or folder\. Unpack the archive"):
        missing.load("train")
    with pytest.raises(DataError, match=r"data mine: path=.*no\.txt: no such file"):  # before anything is hashed
        missing.check_files()
    with pytest.raises(DataError, match=r"test_path=.*no\.jsonl: no such file"):
        text(tmp_path / "a.txt", test_path=str(tmp_path / "no.jsonl")).load("test")


def test_a_leading_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert source(Path("~/a.txt")).path == tmp_path / "a.txt"


# Rows


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.jsonl", '{"text": "one, two", "label": "x"}\n\n{"text": "three", "label": "y"}\n', {}),
        ("a.json", '[{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]', {}),
        ("lines.json", '{"text": "one, two", "label": "x"}\n{"text": "three", "label": "y"}\n', {}),
        ("a.csv", 'text,label\n"one, two",x\nthree,y\n', {}),
        ("a.tsv", "text\tlabel\none, two\tx\nthree\ty\n", {}),
        ("a.data", "one, two\tx\nthree\ty\n", {"format": "tsv", "header": ("text", "label")}),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: str, options: dict[str, Any]) -> None:
    file = write(tmp_path / name, content)
    rows = read(file, test_path=file, **options)
    assert list(rows.table) == [{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]
    assert rows.ids == ["0", "1"]
    assert rows.table.columns == ("text", "label")
    assert not rows.whole
    assert rows.revision == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    again = write(tmp_path / f"other-{name}", content.replace("three", "four"))
    assert read(again, test_path=again, **options).fingerprint != rows.fingerprint


def test_quotation_marks_enclose_fields_or_are_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\tx\n')
    assert list(read(file).table) == [{"text": "a\tb", "label": "x"}]
    plain = write(tmp_path / "b.tsv", 'text\tlabel\nsay "no\tx\n')
    for options in ({"quoted": False}, {"format": "tsv_raw"}):
        assert list(read(plain, **options).table) == [{"text": 'say "no', "label": "x"}]


def test_tagged_tokens_become_sentences(tmp_path: Path) -> None:
    file = write(tmp_path / "test.conll", "-DOCSTART- O\n\nAnn\tB-PER\nruns\tO\n\nParis\tB-LOC\n")
    expected = [{"tokens": ["Ann", "runs"], "tags": ["B-PER", "O"]}, {"tokens": ["Paris"], "tags": ["B-LOC"]}]
    assert list(read(tmp_path).table) == expected
    file.write_text("Ann\n")
    with pytest.raises(DataError, match="line 1: expected a token and its tag, found 'Ann'"):
        read(tmp_path)


def test_a_folder_has_a_file_for_each_side(tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", "Text\tLabel\nfine\t1\n")
    folder = source(tmp_path)
    assert isinstance(folder, Source)
    assert folder.sides() == ("test",)
    assert list(folder.read("mine", "test").table) == [{"Text": "fine", "Label": "1"}]
    assert str(tmp_path / "test.tsv") in folder.fetch("mine")
    with pytest.raises(DataError, match=r"no file named train.* in .*, which holds test\.tsv \(set `train` and `test`"):
        folder.read("mine", "train")
    write(tmp_path / "dev.tsv", "Text\tLabel\nbad\t0\n")
    assert list(source(tmp_path, train="dev").read("mine", "train").table) == [{"Text": "bad", "Label": "0"}]
    write(tmp_path / "test.csv", "x\n1\n")
    with pytest.raises(DataError, match="several files named test"):
        folder.read("mine", "test")


def test_a_cut_keeps_documents_and_repeated_texts_on_one_side(tmp_path: Path) -> None:
    passage = " ".join(f"word{i}" for i in range(40))
    rows = [{"id": f"{i // 5}_{i % 5}", "text": f"sentence number {i} of a review"} for i in range(100)]
    rows += [{"id": f"2{i}_0", "text": f"{passage} and then ending {i}"} for i in range(5)]
    rows += [{"id": "300_0", "text": "sentence  number 0 of a review"}]

    def sides(path: Path) -> dict[str, Rows]:
        whole = read(path, id="id")
        assert whole.whole
        return {side: cut_rows(whole, side, "id", "_") for side in ("train", "test")}

    found = sides(jsonl(tmp_path / "a.jsonl", *rows))
    ids = {side: set(one.ids) for side, one in found.items()}
    assert not ids["train"] & ids["test"]
    assert len(ids["train"] | ids["test"]) == 105
    assert 0 < len(ids["test"]) <= 21
    reviews = {side: {one.partition("_")[0] for one in several} for side, several in ids.items()}
    assert not reviews["train"] & reviews["test"]
    assert any({f"2{i}_0" for i in range(5)} <= several for several in ids.values())
    assert "1 rows that repeat an earlier one left out" in found["test"].notes
    again = sides(jsonl(tmp_path / "b.jsonl", *reversed(rows[:-1])))  # order does not matter
    assert set(again["test"].ids) == ids["test"]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.json", "[1", {}, "not JSON"),
        ("a.json", "[1]", {}, "element 0: expected an object with named columns, found a int"),
        ("a.tsv", "a\tb\nc\n", {}, r"line 2: 1 values, but 2 columns \(a, b\)"),
        ("a.jsonl", '{"a": 1}\n', {"id": "key"}, r"no column 'key' \(option `id`\); its columns: a"),
        ("a.jsonl", '{"a": 1}\n{"a": 1}\n', {"id": "a"}, "the id column 'a' repeats '1'"),
        ("a.conll", "a b\n", {"header": ("a", "b", "c")}, "`header` must name two, for tokens and tags, not a, b, c"),
    ],
)
def test_what_is_wrong_with_rows_is_said(
    tmp_path: Path, name: str, content: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content), **options)


def test_missing_columns_are_named_beside_those_found(tmp_path: Path) -> None:
    rows = read(jsonl(tmp_path / "a.jsonl", {"body": "x", "stars": 1}))
    with pytest.raises(DataError, match="no column 'text'; its columns: body, stars"):
        rows.require(["body", "text"])
