"""Every shipped text of the hub loads from a repository with the files and columns that its option names.

The repositories here are small ones with the same schema, on a local port; what is at the hub today is not known.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from quantbench.config.compose import config_dir

from fake_hub import Branch, FakeHub

LOAD = """
import json, sys
from quantbench.core.build import build
from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource
for spec in json.load(sys.stdin):
    source = build(spec, TextSource, "text")
    try:
        sides = [source.load(side) for side in ("train", "test")]
        answer = {"sides": [list(s.documents) for s in sides], "revision": sides[0].revision, "name": source.name}
    except DataError as error:
        answer = {"error": str(error)}
    print("ANSWER", json.dumps(answer))
"""
COMMIT = "a" * 40
COMMITS = {
    "C-MTEB/ThuNewsClusteringP2P": "5798586b105c0434e4f0fe5e767abe619442cf93",
    "C-MTEB/TNews-classification": "317f262bf1e6126357bbe89e875451e4b0938fe4",
    "mteb/FloresBitextMining": "2144d16cc15edd22d4a9237d12bff5f31f5c07fc",
}
"""Of the sets whose option names a commit."""

CONF = config_dir()
N = 40


def words(i: int) -> str:
    return f"document {i} says {i * i} and then {i + 7}"


def instruction(i: int) -> tuple[dict[str, Any], str]:
    given = words(i) if i % 2 else ""
    row = {"instruction": f"Do number {i}.", "input": given, "output": f"Done, {i}."}
    return row, "\n\n".join(part for part in (row["instruction"], given, row["output"]) if part)


def dialogue(i: int) -> tuple[dict[str, Any], str]:
    messages = [{"role": "user", "content": f"Hello {i}\n"}, {"role": "assistant", "content": words(i)}]
    return {"messages": messages}, f"User: Hello {i}\n\nAssistant: {words(i)}"


def column(name: str, **more: Any) -> Any:
    return lambda i: ({name: words(i), **more}, words(i))


PARTS = ("arxiv", "book", "github", "stackexchange", "wikipedia")
SCHEMAS: dict[str, Any] = {
    "wikitext2": column("text"),
    "wikitext103": column("text"),
    "c4": column("text", timestamp="", url=""),
    "ptb": column("sentence"),
    "pile": column("text", meta={"pile_set_name": "x"}),
    "pile_10k": column("text", meta={"pile_set_name": "x"}),
    "slimpajama": column("text", meta={"redpajama_set_name": "x"}),
    "fineweb_edu": column("text", id="1", url=""),
    "wikipedia_zh": column("text", id="1", url="", title=""),
    "skypile": column("text"),
    "wiki_cn": column("completion", source="x"),
    "cci3_hq": column("text", id="1", score=3.5),
    "thucnews": lambda i: ({"sentences": [words(i), words(1000 + i)], "labels": [1, 2]}, words(i)),
    "tnews": column("text", label=1),
    "code_search_net": column("whole_func_string", func_code_string="", language="python"),
    "stack_smol": column("content", lang="Python"),
    "flores": column("sentence_eng_Latn", sentence_zho_Hans="x"),
    "ultrachat": lambda i: ({"prompt": "x", **dialogue(i)[0]}, dialogue(i)[1]),
    "neuralmagic": dialogue,
    "open_platypus": instruction,
    "alpaca": lambda i: ({**instruction(i)[0], "text": "x"}, instruction(i)[1]),
    "alpaca_cleaned": instruction,
    **dict.fromkeys((f"redpajama_{part}" for part in PARTS), column("text", meta="{}")),
}
"""Text option -> what a row of its data set looks like, and the document it makes."""


def spec_of(name: str) -> dict[str, Any]:
    """The option as composed: the one defaults list such options have is that of their rendering."""
    node: dict[str, Any] = yaml.safe_load((CONF / "text" / f"{name}.yaml").read_text())
    for default in node.pop("defaults", []):
        if isinstance(default, dict):
            node["render"] = yaml.safe_load((CONF / "render" / f"{default['/render@render']}.yaml").read_text())
    return node


def encoded(file: str, rows: list[dict[str, Any]]) -> bytes:
    if file.endswith(".parquet"):
        buffer = io.BytesIO()
        pd.DataFrame(rows).to_parquet(buffer)
        return buffer.getvalue()
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.endswith(".zst"):
        zstandard = pytest.importorskip("zstandard")
        packed: bytes = zstandard.compress(lines)
        return packed
    return gzip.compress(lines) if file.endswith(".gz") else lines


def file_of(place: dict[str, Any], side: str) -> str:
    """The file of a side, as its option names it or as a data set without named files may call it."""
    config, split = place["config"], place["splits"][side]
    if place["data_files"] is not None:
        return str(place["data_files"][side]).replace("*", "0000")
    return f"{config}/{split}/0000.parquet" if place["converted"] else f"{config or 'data'}-{split}.jsonl"


def repositories(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Branch]]:
    """The repositories that the options describe; several may be of one."""
    files: dict[tuple[str, bool], dict[str, bytes]] = {}
    configs: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for name, place in options.items():
        key = place["path"], place["converted"]
        card: dict[str, str] = {}
        for side, split in place["splits"].items():
            first = N if side == "test" and not is_whole(place) else 0
            file = card[split] = file_of(place, side)
            rows = [SCHEMAS[name](i)[0] for i in range(first, first + N)]
            files.setdefault(key, {})[file] = encoded(file, rows)
        if place["data_files"] is None:
            listed = [{"split": split, "path": file} for split, file in card.items()]
            configs.setdefault(key, []).append({"config_name": place["config"] or "default", "data_files": listed})
    found: dict[str, dict[str, Branch]] = {}
    for (path, converted), made in files.items():
        readme = f"---\n{yaml.safe_dump({'configs': configs.get((path, converted), [])})}---\n".encode()
        whole = made if converted else {**made, "README.md": readme}
        script = {"main": Branch("b" * 40, {"script.py": b"raise SystemExit"})} if converted else {}
        branch = "refs/convert/parquet" if converted else "main"
        found[path] = {**script, branch: Branch(COMMITS.get(path, COMMIT), whole)}
    return found


def is_whole(place: dict[str, Any]) -> bool:
    """Whether both sides are one split and file, which is then cut."""
    return len(set(place["splits"].values())) == 1 and len(set((place["data_files"] or {"": ""}).values())) == 1


def load(specs: list[dict[str, Any]], **environment: str) -> list[dict[str, Any]]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(specs),
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]


def hub_options() -> list[str]:
    files = sorted((CONF / "text").glob("*.yaml"))
    return [
        file.stem
        for file in files
        if "quantbench.datasets.hub_rows" in file.read_text() or "HubText" in file.read_text()
    ]


def test_each_text_of_the_hub_has_a_schema_here() -> None:
    assert sorted(SCHEMAS) == hub_options()


def test_each_loads_both_sides_from_the_hub_and_again_without_it(tmp_path: Path) -> None:
    names = [name for name in SCHEMAS if name != "pile" or importlib.util.find_spec("zstandard")]
    specs = [spec_of(name) for name in names]
    places = [spec["rows"]["places"][0] if "rows" in spec else spec for spec in specs]
    options = dict(zip(names, places, strict=True))
    with FakeHub(repositories(options)) as hub:
        answers = load(specs, HF_HOME=str(tmp_path), HF_ENDPOINT=hub.url)
    again = load(specs, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert len(answers) == len(names)
    for name, place, found, offline in zip(names, places, answers, again, strict=True):
        assert "error" not in found, f"{name}: {found}"
        assert found["revision"] == COMMITS.get(place["path"], COMMIT), name
        assert offline == found, name
        train, test = map(set, found["sides"])
        expected = {SCHEMAS[name](i)[1] for i in range(N if is_whole(place) else 2 * N)}
        if name == "thucnews":
            expected |= {words(1000 + i) for i in range(N)}
        assert not train & test
        assert train | test == expected, name
