from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from quantbench.core.build import build
from quantbench.config.compose import config_dir
from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource
from quantbench.datasets.packaged_text import PackagedText
from quantbench.datasets.readers import Lines
from quantbench.datasets.split import cut
from wheels import Index, fake_index, without_pip

LINES = ["", *(f"document number {i}" for i in range(10)), "tiny", "document number 3"]
DOCUMENTS = LINES[1:11]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return without_pip(fake_index(tmp_path, monkeypatch), monkeypatch)


def packaged(index: Index, **options: Any) -> PackagedText:
    package = index.add({"fakepack/news.cor": "\n".join(LINES).encode()})
    settings: dict[str, Any] = {"min_characters": 5, "joiner": "\n", "reader": Lines()} | options
    return PackagedText(name="news", package=package, members=("fakepack/*.cor",), **settings)


def test_it_is_a_text_source_of_distinct_documents_cut_in_two(index: Index) -> None:
    text = packaged(index)
    assert isinstance(text, TextSource)
    train, test = text.load("train"), text.load("test")
    assert {"train": train.documents, "test": test.documents} == cut(DOCUMENTS, "news")
    assert train.revision == f"sha256:{text.package.sha256}"
    assert train.text == "\n".join(train.documents)
    assert train.notes == ("8 of 10 distinct documents of fakepack 1.0",)


def test_documents_are_extracted_once(index: Index) -> None:
    text = packaged(index)
    line = text.prepare()
    assert line.startswith("news: ")
    assert str(index.cache) in line
    before = text.load("test")
    shutil.rmtree(index.folder)
    shutil.rmtree(index.cache / "packages")
    assert text.load("test") == before


def test_a_damaged_cache_of_documents_is_refused(index: Index) -> None:
    text = packaged(index)
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


def test_another_reader_or_option_never_meets_old_documents(index: Index) -> None:
    @component
    class Shouting:
        @property
        def version(self) -> str:
            return "1"

        def read(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
            for name in names:
                yield from (folder / name).read_text().upper().split("\n")

    assert "tiny" not in packaged(index).load("train").text
    everything = packaged(index, min_characters=1)
    assert "tiny" in everything.load("train").text + everything.load("test").text
    assert packaged(index, reader=Shouting()).load("train").documents[0].startswith("DOCUMENT")


def test_options_are_checked(index: Index) -> None:
    with pytest.raises(ValidationError, match="reader"):
        packaged(index, reader="lines")
    with pytest.raises(ValidationError, match="min_characters"):
        packaged(index, min_characters=0)


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "least_train", "least_test"),
    [("wiki_sample", 2_000_000, 300_000), ("news_sample", 250_000, 50_000), ("code_sample", 2_000_000, 500_000)],
)
def test_the_shipped_packaged_texts(name: str, least_train: int, least_test: int) -> None:
    spec = yaml.safe_load((config_dir() / "text" / f"{name}.yaml").read_text())
    text = build(spec, PackagedText, f"text.{name}")
    train, test = text.load("train"), text.load("test")
    assert len(train.text) > least_train
    assert len(test.text) > least_test
    assert not set(train.documents) & set(test.documents)
    markup = ("{{", "}}", "[[", "]]", "<ref", "&nbsp;", "thumb|")
    if name == "wiki_sample":
        assert not [mark for mark in markup if mark in train.text + test.text]
