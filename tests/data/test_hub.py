"""Data sets of the hub, against one on a local port: what is found, what is remembered, and what each mistake is."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fake_hub import Branch, FakeHub, use_hub
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents, TextSource
from quantbench.datasets.hub import HubSource
from quantbench.datasets.rows import Rows, Source
from quantbench.datasets.text import TextSet

COMMIT, CONVERTED = "a" * 40, "c" * 40


def jsonl(*texts: str | None) -> bytes:
    return "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts).encode()


def parquet(*texts: str) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"sentence": texts}).to_parquet(buffer)
    return buffer.getvalue()


FILES = {"README.md": b"# x\n", "data/train.jsonl": jsonl("one", "two"), "data/test.jsonl": jsonl("three")}
REPOSITORIES = {
    "own/plain": {"main": Branch(COMMIT, FILES)},
    "own/gated": {"main": Branch(COMMIT, FILES, refuse="GatedRepo")},
    "own/script": {
        "main": Branch("b" * 40, {"README.md": b"# x\n", "script.py": b"raise SystemExit"}),
        "refs/convert/parquet": Branch(CONVERTED, {"tree/train/0000.parquet": parquet("a b", "c d")}),
    },
}
NAMED = {"train": "data/train.jsonl", "test": "data/test.jsonl"}


def text(*hub: str, column: str = "text", **options: Any) -> TextSet:
    source = HubSource(hub=hub or ("own/plain",), **options)
    return TextSet(source=source, origin=Origin(name="plain", family="lm"), text=column)


def loaded(made: TextSet, split: str = "train") -> Documents:
    found = made.load(split)
    return Documents(found.name, split, list(found.documents), found.revision, notes=found.notes)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub(REPOSITORIES) as running:
        yield running


@pytest.fixture
def here(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub can be reached, and its cache is empty."""
    use_hub(monkeypatch, tmp_path, hub.url)
    return tmp_path


def test_what_was_loaded_from_the_hub_is_found_again_without_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = text("own/script:tree", column="sentence", converted=True)
    asked = [(text(), "train"), (text(files=NAMED), "test"), (script, "train"), (text(revision=COMMIT), "train")]
    found = [loaded(made, split) for made, split in asked]
    assert [one.documents for one in found] == [["one", "two"], ["three"], ["a b", "c d"], ["one", "two"]]
    assert [one.revision for one in found] == [COMMIT, COMMIT, CONVERTED, COMMIT]
    assert {one.notes for one in found[:2]} == {("from own/plain",)}
    started = time.monotonic()
    for offline in (False, True):
        use_hub(monkeypatch, here, offline=offline)  # nothing answers any more
        assert [loaded(made, split) for made, split in asked] == found
    assert time.monotonic() - started < 30
    with pytest.raises(DataError, match=f"commit {'d' * 40} of own/plain was asked for, but only {COMMIT} could be"):
        text(f"own/plain@{'d' * 40}").load("train")


WRONG: list[tuple[TextSet, str]] = [
    (text("own/nothing"), r"the hub knows no data set 'own/nothing', or it is private: check `hub`"),
    (text("own/plain@v9"), r"own/plain has no revision 'v9' on the hub"),
    (text(revision="v9"), r"own/plain has no revision 'v9' on the hub"),
    (text("own/gated"), r"own/gated is gated: accept its terms"),
    (text("own/gated", files=NAMED), r"own/gated is gated: accept its terms"),
    (text("own/gated", files="data/*.jsonl"), r"own/gated is gated: accept its terms"),
    (text("own/script:tree"), r"own/script is a loading script, and code from the hub is not run. Set converted=true"),
    (text(files={"train": "data/no.jsonl"}), r"own/plain has no file 'data/no.jsonl' at revision main"),
    (text(files={"test": "data/no.jsonl"}), r"`files` names nothing for 'train', but test"),
    (text(files={"train": "*.csv"}), r"own/plain has no file that '\*.csv' stands for; it has"),
    (text("own/plain:fr"), r"own/plain has no such configuration"),
    (text(train="dev"), r"own/plain has no split 'dev'"),
    (text(train=None), r"no split 'train' here; it has test"),
    (text(column="body"), r"split train: no column 'body'; its columns: text, id \(set `text`\)"),
    (text(column="id"), r"the column 'id' holds int64, not text"),
]


@pytest.mark.parametrize(("made", "message"), WRONG, ids=lambda one: one[:20] if isinstance(one, str) else "")
@pytest.mark.usefixtures("here")
def test_each_mistake_is_told_apart(made: TextSet, message: str) -> None:
    with pytest.raises(DataError, match=rf"^data plain\b.*{message}"):
        made.load("train")


@pytest.mark.parametrize("hub", [["own/a:b:c"], ["own/a@"], ["own a"], []])
def test_what_is_no_place_of_the_hub_is_refused(hub: list[str]) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"hub"):
        HubSource(hub=tuple(hub))


def test_without_hub_and_cache_it_says_what_to_do_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({}, status=503) as broken:
        use_hub(monkeypatch, tmp_path, broken.url)
        with pytest.raises(DataError, match="the hub answers with HTTP status 503"):
            text().load("train")
    use_hub(monkeypatch, tmp_path)
    started = time.monotonic()
    for made, split in ((text(), "train"), (text(files=NAMED), "test")):
        with pytest.raises(DataError) as caught:
            made.load(split)
        said = str(caught.value)
        assert f"data plain: own/plain, split {split}, is not in the Hugging Face cache (HF_HOME)" in said
        assert "the hub cannot be reached" in said
        assert "run `quantbench prepare` with the options of this command" in said
        assert "calib=wiki_sample, news_sample and code_sample need no hub" in said
    assert time.monotonic() - started < 20


@pytest.mark.usefixtures("here")
def test_places_are_tried_in_order_and_the_one_that_answered_is_recorded() -> None:
    found = loaded(text("own/gated", "own/nothing", "own/plain"))
    assert found.documents == ["one", "two"]
    assert found.notes[0] == "from own/plain"
    assert [note.partition(" is ")[0] for note in found.notes[1:]] == [
        "not read: data plain: own/gated",
        "not read: data plain: the hub knows no data set 'own/nothing', or it",
    ]
    with pytest.raises(DataError, match=r"(?s)own/gated is gated.*\n.*no data set 'own/nothing'"):
        text("own/gated", "own/nothing").load("train")


@pytest.mark.skipif(
    "QUANTBENCH_HF_HOME" not in os.environ, reason="QUANTBENCH_HF_HOME names no offline Hugging Face cache"
)
def test_an_offline_cache_of_real_sets_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(os.environ["QUANTBENCH_HF_HOME"], tmp_path / "home")
    use_hub(monkeypatch, tmp_path / "home", offline=True)
    wikitext = text("Salesforce/wikitext:wikitext-2-raw-v1")
    shards = {"train": "en/c4-train.00000-of-01024.json.gz", "test": "en/c4-validation.00000-of-00008.json.gz"}
    c4 = text("allenai/c4:en", files=shards, test="validation")
    ptb = text("ptb-text-only/ptb_text_only:penn_treebank", column="sentence", converted=True)
    found = [loaded(made, side) for made in (wikitext, c4, ptb) for side in ("train", "test")]
    assert [len(one.documents) for one in found[1:]] == [4358, 300, 1480, 42068, 3761]
    assert {one.revision for one in found} == {"unverified"}
    assert found[1].documents[1] == " = Robert Boulter = \n"


# Files that are named by their address


def at(path: Path) -> dict[str, str]:
    return dict.fromkeys(("train", "test"), f"file://{path}")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No hub, an empty cache."""
    use_hub(monkeypatch, tmp_path / "home")
    return tmp_path


def addressed(content: bytes, path: Path, **options: Any) -> HubSource:
    path.write_bytes(content)
    return HubSource(**{"files": at(path), **options})


def mine(source: HubSource) -> TextSet:
    return TextSet(source=source, origin=Origin(name="mine", family="lm"))


def test_a_file_at_an_address_goes_the_same_way_and_one_split_is_cut_in_two(alone: Path) -> None:
    rows = jsonl(*(f"document {i}" for i in range(20)), "document 0")
    source = addressed(gzip.compress(rows), alone / "a.jsonl.gz", whole="part", max_documents=10)
    assert isinstance(source, Source)
    found = mine(source)
    assert isinstance(found, TextSource)
    train, test = found.load("train"), found.load("test")
    assert sorted([*train.documents, *test.documents]) == [f"document {i}" for i in range(10)]
    assert len(test.documents) == 2
    assert train.revision == "unverified"
    assert "cut 4:1 by document" in train.notes
    assert "json at unverified, 10 rows to be cut, in the" in found.prepare()


def test_of_a_large_split_some_rows_are_taken_evenly_spaced(alone: Path) -> None:
    lines = "".join(json.dumps({"n": i}) + "\n" for i in range(10)).encode()

    def read(**options: Any) -> Rows:
        return addressed(lines, alone / "a.jsonl", **options).read("set", "test")

    few = read(max_rows=3)
    assert [row["n"] for row in few.table] == [0, 3, 6]
    assert few.ids == ["0", "3", "6"]
    assert few.notes[-1] == "3 of 10 rows, evenly spaced"
    assert not few.whole
    whole = read(whole="test", max_rows=3)  # what is cut is cut as a whole: its sides do not depend on the number
    assert (len(whole.table), whole.whole) == (10, True)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b'{"text": "a"}\n{"text": null}\n', {}, "1 rows have no text in the column 'text'"),
        (b'{"text": {"a": 1}}\n', {}, "the column 'text' holds nested values, not text"),
        (b"{broken", {}, r"a\.jsonl cannot be read: "),
        (b"", {"files": {"train": "file:///no/such.jsonl"}}, r"no/such\.jsonl cannot be read: .*Where its host is out"),
        (b"", {"files": {"train": "https://host.invalid/a.xml"}}, r"expected a name ending in \.json"),
    ],
)
def test_bad_files_are_named(alone: Path, content: bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mine(addressed(content, alone / "a.jsonl", **options)).load("train")


def test_zst_files_need_a_package(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"need the package zstandard: pip install 'quantbench\[zst\]'"):
        mine(addressed(b"", alone / "val.jsonl.zst")).load("train")
