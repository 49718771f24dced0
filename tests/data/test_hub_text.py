"""Hub texts against a hub on a local port, in fresh processes: the libraries read their settings when imported."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from quantbench.datasets.hub_text import HubText

from fake_hub import Branch, FakeHub
from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource

LOAD = """
import json, sys
from quantbench.core.errors import DataError
from quantbench.datasets.hub_text import HubText
for spec, side in json.load(sys.stdin):
    try:
        found = HubText(**spec).load(side)
        answer = {"documents": list(found.documents), "revision": found.revision, "notes": found.notes}
    except DataError as error:
        answer = {"error": str(error)}
    print("ANSWER", json.dumps(answer))
"""

COMMIT, CONVERTED = "a" * 40, "c" * 40


def jsonl(*texts: str) -> bytes:
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

PLAIN = {"name": "plain", "path": "own/plain"}
FILE = {**PLAIN, "data_files": {"train": "data/train.jsonl", "test": "data/test.jsonl"}}
SCRIPT = {"name": "ptb", "path": "own/script", "config": "tree", "column": "sentence"}


def load(home: Path, specs: list[tuple[dict[str, Any], str]], **environment: str) -> list[dict[str, Any]]:
    """What HubText.load returned, or its error, for each spec and side."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    result = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(specs),
        env={**kept, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line[7:]) for line in result.stdout.splitlines() if line.startswith("ANSWER ")]


def test_a_reachable_hub_gives_text_and_commit_and_what_was_loaded_is_found_again_without_it(tmp_path: Path) -> None:
    specs: list[tuple[dict[str, Any], str]] = [
        (PLAIN, "train"),
        (FILE, "test"),
        ({**SCRIPT, "converted": True}, "train"),
        ({**PLAIN, "revision": COMMIT}, "train"),
    ]
    expected = [
        {"documents": ["one", "two"], "revision": COMMIT, "notes": []},
        {"documents": ["three"], "revision": COMMIT, "notes": []},
        {"documents": ["a b", "c d"], "revision": CONVERTED, "notes": []},
        {"documents": ["one", "two"], "revision": COMMIT, "notes": []},
    ]
    with FakeHub(REPOSITORIES) as hub:
        url = hub.url
        assert load(tmp_path, specs, HF_ENDPOINT=url) == expected
    started = time.monotonic()
    assert load(tmp_path, specs, HF_ENDPOINT=url) == expected  # nothing listens there any more
    assert load(tmp_path, specs, HF_ENDPOINT=url, HF_HUB_OFFLINE="1") == expected
    assert time.monotonic() - started < 30
    other = ({**PLAIN, "revision": "d" * 40}, "train")
    (answer,) = load(tmp_path, [other], HF_ENDPOINT=url)
    assert f"commit {'d' * 40} of own/plain was asked for, but only {COMMIT} could be loaded" in answer["error"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({**PLAIN, "path": "own/nothing"}, "the hub knows no data set 'own/nothing', or it is private: check `path`"),
    ({**PLAIN, "revision": "v9"}, "own/plain has no revision 'v9' on the hub"),
    ({**PLAIN, "path": "own/gated"}, "own/gated is gated: accept its terms"),
    ({**FILE, "path": "own/gated"}, "own/gated is gated: accept its terms"),
    (SCRIPT, "own/script is a loading script, and code from the hub is not run. Set converted=true"),
    ({**FILE, "data_files": {"train": "data/no.jsonl"}}, "own/plain has no file 'data/no.jsonl' at revision main"),
    (
        {**FILE, "data_files": {"train": "*.csv"}},
        "own/plain has no file that '*.csv' stands for; it has",
    ),
    ({**FILE, "path": "own/gated", "data_files": {"train": "data/*.jsonl"}}, "own/gated is gated: accept its terms"),
    ({**PLAIN, "config": "fr"}, "own/plain has no such configuration"),
    ({**PLAIN, "splits": {"train": "dev"}}, "own/plain has no split 'dev'"),
    ({**PLAIN, "column": "body"}, "split train has no column 'body'; its columns: text, id (set `column`)"),
    ({**PLAIN, "column": "id"}, "the column 'id' holds int64, not text"),
]


def test_each_mistake_is_told_apart(tmp_path: Path) -> None:
    with FakeHub(REPOSITORIES) as hub:
        answers = load(tmp_path, [(spec, "train") for spec, _ in WRONG], HF_ENDPOINT=hub.url)
    assert len(answers) == len(WRONG)
    for answer, (spec, message) in zip(answers, WRONG, strict=True):
        assert message in answer.get("error", f"loaded: {answer}")
        assert answer["error"].startswith(f"text {spec['name']}: ")


def test_without_hub_and_cache_it_says_what_to_do_within_seconds(tmp_path: Path) -> None:
    with FakeHub({}, status=503) as broken:
        (answer,) = load(tmp_path, [(PLAIN, "train")], HF_ENDPOINT=broken.url)
        assert "the hub answers with HTTP status 503" in answer["error"]
    started = time.monotonic()
    unreachable = load(tmp_path, [(PLAIN, "train"), (FILE, "test")], HF_ENDPOINT="http://127.0.0.1:9")
    assert time.monotonic() - started < 20
    for answer, split in zip(unreachable, ("train", "test"), strict=True):
        assert f"text plain: own/plain, split {split}, is not in the Hugging Face cache (HF_HOME)" in answer["error"]
        assert "the hub cannot be reached" in answer["error"]
        assert "run `quantbench prepare` with the options of this command" in answer["error"]
        assert "calib=wiki_sample, calib=news_sample and calib=code_sample need no hub" in answer["error"]


@pytest.mark.skipif(
    "QUANTBENCH_HF_HOME" not in os.environ, reason="QUANTBENCH_HF_HOME names no offline Hugging Face cache"
)
def test_an_offline_cache_of_real_sets_answers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(os.environ["QUANTBENCH_HF_HOME"], home)
    wikitext = {"name": "wikitext2", "path": "Salesforce/wikitext", "config": "wikitext-2-raw-v1"}
    c4 = {
        "name": "c4",
        "path": "allenai/c4",
        "config": "en",
        "data_files": {
            "train": "en/c4-train.00000-of-01024.json.gz",
            "test": "en/c4-validation.00000-of-00008.json.gz",
        },
        "splits": {"train": "train", "test": "validation"},
    }
    ptb = {**SCRIPT, "path": "ptb-text-only/ptb_text_only", "config": "penn_treebank", "converted": True}
    specs = [(spec, side) for spec in (wikitext, c4, ptb) for side in ("train", "test")]
    answers = load(home, specs, HF_HUB_OFFLINE="1")
    assert [len(answer["documents"]) for answer in answers[1:]] == [4358, 300, 1480, 42068, 3761]
    assert {answer["revision"] for answer in answers} == {"unverified"}
    assert answers[1]["documents"][1] == " = Robert Boulter = \n"


@pytest.fixture
def arrow_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    return tmp_path


def from_file(path: Path, **options: Any) -> HubText:
    given: dict[str, Any] = {"data_files": {"train": str(path), "test": str(path)}} | options
    return HubText(name="mine", path="json", **given)


def test_local_files_go_the_same_way_and_one_split_is_cut_in_two(arrow_cache: Path) -> None:
    path = arrow_cache / "a.jsonl"
    path.write_bytes(jsonl(*(f"document {i}" for i in range(20)), "document 0"))
    text = from_file(path, splits={"train": "part", "test": "part"}, max_documents=10)
    assert isinstance(text, TextSource)
    train, test = text.load("train"), text.load("test")
    assert sorted([*train.documents, *test.documents]) == [f"document {i}" for i in range(10)]
    assert len(test.documents) == 2
    assert train.revision == "unverified"
    assert "8 train documents, 2 test documents" in text.prepare()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b'{"text": "a"}\n{"text": null}\n', {}, "1 rows have no text in the column 'text'"),
        (b'{"text": {"a": 1}}\n', {}, "the column 'text' holds nested values, not text"),
        (b"{broken", {}, "json, split train, cannot be loaded"),
        (b"{}", {"data_files": {"test": "a.jsonl"}}, "data_files names nothing for 'train'"),
        (b"{}", {"splits": {"test": "test"}}, "splits names nothing for 'train'"),
    ],
)
def test_bad_files_are_named(arrow_cache: Path, content: bytes, options: dict[str, Any], message: str) -> None:
    path = arrow_cache / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        from_file(path, **options).load("train")


def test_zst_files_need_a_package(arrow_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"need the package zstandard: pip install 'quantbench\[zst\]'"):
        from_file(arrow_cache / "val.jsonl.zst").load("train")
