"""Every set of conf/rows against small files of the schema it has on the hub, in its package, or in a folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hydra import compose, initialize_config_dir
from quantbench.config.compose import config_dir, resolved
from quantbench.datasets.packaged_rows import PackagedRows

from fake_hub import Branch, FakeHub
from quantbench.core.build import build
from quantbench.datasets.examples import ExampleSet

Rows = Sequence[Mapping[str, Any]]

LOAD = """
import json, sys
from hydra import compose, initialize_config_dir
from quantbench.core.build import build
from quantbench.config.compose import config_dir, resolved
from quantbench.datasets.examples import ExampleSet
from quantbench.core.errors import DataError
names = json.load(sys.stdin)
for name, overrides in names.items():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        choice = ["calib=sst2", f"rows@calib.source.data={name}", *overrides]
        node = resolved(compose("config", choice))["calib"]["source"]["data"]
    answer = {}
    for split in ("train", "test"):
        try:
            found = build(node, ExampleSet, name).load(split)
            answer[split] = {
                "examples": [[dict(one.fields), one.target, list(one.answers)] for one in found.examples],
                "labels": found.labels, "revision": found.rows.revision, "notes": found.notes,
            }
        except DataError as error:
            answer[split] = {"error": str(error)}
    print("ANSWER", json.dumps([name, answer]))
"""

COMMIT, CONVERTED = "a" * 40, "c" * 40


def texts(column: str, label: str, values: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    """One row a label value, the number of the row in its text."""
    return [{column: f"text number {i} ", label: value, **more} for i, value in enumerate(values)]


def pairs(label: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"premise": f"premise {i}", "hypothesis": f"claim {i}", label: value} for i, value in enumerate(values)]


SQUAD = [
    {"id": f"q{i}", "title": "t", "context": f"passage {i}", "question": "who?", "answers": {"text": ["A", "B"]}}
    for i in range(3)
]
MRQA = [
    {"context": f"passage {i}", "question": "who?", "answers": ["A", "B"], "key": f"k{i}", "labels": [{"start": [0]}]}
    for i in range(3)
]
NLI3 = ["entailment", "neutral", "contradiction"]
SA3 = ["positive", "negative", "neutral"]
CONTRACT = Features(
    premise=Value("string"),
    hypothesis=Value("string"),
    label=ClassLabel(names=["contradiction", "entailment", "neutral"]),
)
FEW = ["O", "art", "building", "event", "location", "organization", "other", "person", "product"]
FEWNERD = Features(id=Value("string"), tokens=List(Value("string")), ner_tags=List(ClassLabel(names=FEW)))
HATE = ["not_hate", "implicit_hate", "explicit_hate", "not_hate"]
RATED = [
    {"text": "one", "toxicity_ai": 1.0, "toxicity_human": 4.9},
    {"text": "two", "toxicity_ai": 1.0, "toxicity_human": 5.0},
]


def tagged(tags: Sequence[Any], column: str = "ner_tags") -> list[dict[str, Any]]:
    return [{"id": str(i), "tokens": ["Ann", "Lee", "slept"], column: list(tags)} for i in range(2)]


def same(rows: Rows, *splits: str) -> dict[str, Rows]:
    return dict.fromkeys(splits or ("train", "test"), rows)


REPOSITORIES: dict[str, tuple[str, str | None, dict[str, Rows]]] = {
    "tweet_eval": ("cardiffnlp/tweet_eval", "sentiment", same(texts("text", "label", [2, 0, 1]))),
    "sst2": (
        "nyu-mll/glue",
        "sst2",
        {
            "train": texts("sentence", "label", [1, 0]),
            "validation": texts("sentence", "label", [0, 1]),
            "test": texts("sentence", "label", [-1, -1]),
        },
    ),
    "mnli": ("nyu-mll/glue", "mnli", same(pairs("label", [0, 1, 2, -1]), "train", "validation_matched")),
    "anli": (
        "facebook/anli",
        None,
        {
            f"{split}_r{i}": [{**row, "premise": f"{row['premise']} {split} {i}"} for row in pairs("label", [0, 1, 2])]
            for split in ("train", "test")
            for i in (1, 2, 3)
        },
    ),
    "civilcomments": ("google/civil_comments", None, same(texts("text", "toxicity", [0.49, 0.5]))),
    "implicithate": ("tasksource/implicit-hate-stg1", None, {"train": texts("post", "class", HATE * 10)}),
    "toxigen": ("toxigen/toxigen-data", "annotated", same(RATED)),
    "squad": ("rajpurkar/squad", None, same(SQUAD, "train", "validation")),
    "advqa": ("UCLNLP/adversarial_qa", "adversarialQA", same(SQUAD, "train", "validation", "test")),
    "newsqa": ("lucadiliello/newsqa", None, same(MRQA, "train", "validation")),
    "searchqa": ("lucadiliello/searchqa", None, same(MRQA, "train", "validation")),
    "conll": ("tomaarsen/conll2003", None, same(tagged([1, 2, 0]))),
    "wnut": ("flaitenberger/wnut_17", None, same(tagged([9, 10, 0]))),
}
"""Set -> repository, configuration, and rows of each split on the hub."""

CONVERSIONS: dict[str, tuple[str, str, Rows, Features]] = {
    "contractnli": ("kiddothe2b/contract-nli", "contractnli_a", pairs("label", [0, 1, 2]), CONTRACT),
    "fewnerd": ("DFKI-SLT/few-nerd", "supervised", tagged([7, 7, 0]), FEWNERD),
}
"""Repositories that are loading scripts, whose conversion names the classes."""

FILES: dict[str, tuple[str, dict[str, Rows]]] = {
    "sst5": ("SetFit/sst5", same(texts("text", "label", [4, 0, 2, 1, 3]), "train.jsonl", "test.jsonl")),
    "wanli": ("alisawuffles/WANLI", same(pairs("gold", NLI3), "train.jsonl", "test.jsonl")),
}
"""Repositories whose files are named, since others lie beside them."""


def parquet(rows: Rows, features: Features | None = None) -> bytes:
    buffer = io.BytesIO()
    Dataset.from_list([dict(row) for row in rows], features=features).to_parquet(buffer)
    return buffer.getvalue()


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def repositories() -> dict[str, dict[str, Branch]]:
    """The hub: cards that name each configuration's files, conversions, and plain files."""
    cards: dict[str, list[str]] = {}
    files: dict[str, dict[str, bytes]] = {}
    for path, config, splits in REPOSITORIES.values():
        name = config or "default"
        lines = cards.setdefault(path, [])
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, rows in splits.items():
            lines += [f"  - split: {split}", f"    path: {name}/{split}-0.parquet"]
            files.setdefault(path, {})[f"{name}/{split}-0.parquet"] = parquet(rows)
    hub = {
        path: {
            "main": Branch(COMMIT, {"README.md": "\n".join(["---", "configs:", *cards[path], "---"]).encode(), **held})
        }
        for path, held in files.items()
    }
    for path, config, rows, features in CONVERSIONS.values():
        held = {f"{config}/{split}/0000.parquet": parquet(rows, features) for split in ("train", "test")}
        script = {"README.md": b"# x\n", f"{path.partition('/')[2]}.py": b"raise SystemExit"}
        hub[path] = {"main": Branch(COMMIT, script), "refs/convert/parquet": Branch(CONVERTED, held)}
    for path, named in FILES.values():
        held = {
            "README.md": b"# x\n",
            "other.jsonl": b'{"z": 1}\n',
            **{file: jsonl(rows) for file, rows in named.items()},
        }
        hub[path] = {"main": Branch(COMMIT, held)}
    return hub


ANN = "person: Ann Lee"
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "tweet_eval": (SA3, SA3),
    "sst2": (["negative", "positive"], ["positive", "negative"]),
    "mnli": (NLI3, NLI3),
    "anli": (NLI3 * 3, NLI3),
    "civilcomments": (["benign", "toxic"], ["benign", "toxic"]),
    "toxigen": (["benign", "toxic"], ["benign", "toxic"]),
    "squad": (["A"] * 3, []),
    "advqa": (["A"] * 3, []),
    "newsqa": (["A"] * 3, []),
    "searchqa": (["A"] * 3, []),
    "conll": ([ANN] * 2, ["person", "organization", "location", "miscellaneous"]),
    "wnut": ([ANN] * 2, ["organization", "art", "location", "person", "product"]),
    "contractnli": (["contradiction", "entailment", "neutral"], NLI3),
    "fewnerd": (
        [ANN] * 2,
        ["art", "building", "event", "location", "organization", "miscellaneous", "person", "product"],
    ),
    "sst5": (SA3, SA3),
    "wanli": (NLI3, NLI3),
    "amazon": (SA3, SA3),
    "dynasent": (SA3, SA3),
}
"""Set -> targets of the test split, and its labels."""


def own_files(folder: Path) -> dict[str, list[str]]:
    """Files where sets are downloaded from their authors: overrides that read them from a folder instead."""
    stars = [
        {"reviewText": f"text number {i} of reviews", "overall": float(s)} for i, s in enumerate([5, 1, 3, 2, 4] * 20)
    ]
    (folder / "stars.json.gz").write_bytes(gzip.compress(jsonl(stars)))
    dyna = texts("sentence", "gold_label", ["positive", "negative", "neutral", "mixed", None])
    with zipfile.ZipFile(folder / "dyna.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"dynasent-v1.1/dynasent-v1.1-round01-yelp-{split}.jsonl", jsonl(dyna))
    place = "calib.source.data.source.places.0.data_files"
    inside = "zip://dynasent-v1.1/dynasent-v1.1-round01-yelp-{}.jsonl::{}"
    return {
        "amazon": [f"{place}.{split}={folder / 'stars.json.gz'}" for split in ("train", "test")],
        "dynasent": [f"{place}.{s}='{inside.format(s, folder / 'dyna.zip')}'" for s in ("train", "test")],
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each set gives, loaded in one process that sees the hub on a local port."""
    home = tmp_path_factory.mktemp("home")
    names: dict[str, list[str]] = {name: [] for name in [*REPOSITORIES, *CONVERSIONS, *FILES]} | own_files(home)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    with FakeHub(repositories()) as hub:
        result = subprocess.run(
            [sys.executable, "-c", LOAD],
            input=json.dumps(names),
            env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert result.returncode == 0, result.stderr
    return dict(json.loads(line[7:]) for line in result.stdout.splitlines() if line.startswith("ANSWER "))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_of_the_hub_is_read_by_its_schema(answers: dict[str, Any], name: str) -> None:
    found, (targets, labels) = answers[name], EXPECTED[name]
    assert "error" not in found["test"], found["test"]
    assert "error" not in found["train"], found["train"]
    if name != "amazon":
        assert [example[1] for example in found["test"]["examples"]] == targets
    assert found["test"]["labels"] == labels
    revision = CONVERTED if name in CONVERSIONS else "unverified" if name in {"amazon", "dynasent"} else COMMIT
    assert found["test"]["revision"] == revision
    assert all(all(example[0].values()) for example in found["train"]["examples"])


def test_what_is_left_out_is_counted(answers: dict[str, Any]) -> None:
    assert "1 rows with a label that is not used skipped" in answers["mnli"]["test"]["notes"]
    assert "2 rows with a label that is not used skipped" in answers["sst5"]["test"]["notes"]
    dynasent = answers["dynasent"]["test"]["notes"]
    assert "1 rows with an empty text or label skipped" in dynasent
    assert "1 rows with a label that is not used skipped" in dynasent


def test_a_set_with_one_split_is_cut(answers: dict[str, Any]) -> None:
    sides = [{example[0]["text"] for example in answers["implicithate"][s]["examples"]} for s in ("train", "test")]
    assert not sides[0] & sides[1]
    assert len(sides[0]) == 32
    assert answers["implicithate"]["test"]["labels"] == ["benign", "toxic"]


def data_of(name: str, *overrides: str) -> ExampleSet:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config", ["calib=sst2", f"rows@calib.source.data={name}", *overrides])
    return build(resolved(config)["calib"]["source"]["data"], ExampleSet, name)


BOSS: dict[str, tuple[str, str, list[str]]] = {
    "boss_sa": ("test.tsv", 'Text\tLabel\n"so ""good"""\t1\nbad\t0\nok\t2\n\t1\n', SA3),
    "boss_nli": ("test.tsv", "Premise\tHypothesis\tLabel\na\tb\t0\nc\td\t1\ne\tf\t2\n", NLI3),
    "boss_td": ("test.tsv", "Text\tLabel\nfine\t0\nawful\t1\n", ["benign", "toxic"]),
    "boss_eqa": (
        "test.json",
        '{"id": "1", "context": "c", "question": "q", "answers": {"text": ["A"], "answer_start": ["A"]}}\n',
        ["A"],
    ),
    "boss_ner": ("test.tsv", "Ann\tB-person\nLee\tI-person\n\nin\tO\nRome\tB-location\n", [ANN, "location: Rome"]),
}


@pytest.mark.parametrize("name", BOSS)
def test_the_files_of_boss_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    file, text, targets = BOSS[name]
    (tmp_path / file).write_text(text)
    place = "calib.source.data.source"
    found = data_of(name, f"{place}.name=amazon", f"{place}.path={tmp_path}").load("test")
    assert [example.target for example in found.examples] == targets
    assert found.rows.name == "amazon"


CIVIL, TWEETS = "ToxicDetection/adv_civil/test.tsv", "twitter-2016test-A.txt"
LOCAL: dict[str, tuple[str, str, str, list[str]]] = {
    "semeval": ("QUANTBENCH_SEMEVAL", TWEETS, '1\tpositive\tsay "hi\n2\tnegative\tno\n3\tneutral\to\n', SA3),
    "advcivil": ("QUANTBENCH_BOSS", CIVIL, "Text\tLabel\nfine\t0\nawful\t1\n", ["benign", "toxic"]),
    "ener": ("QUANTBENCH_ENER", "test.txt", "Acme B-BUSINESS\nInc I-BUSINESS\nsaid O\n", ["organization: Acme Inc"]),
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_set_without_a_home_is_read_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable, file, text, targets = LOCAL[name]
    monkeypatch.setenv(variable, str(tmp_path / "no"))
    source: Any = data_of(name)
    with pytest.raises(Exception, match="no such file or folder"):
        source.load("test")
    assert "where" in source.about
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setenv(variable, str(tmp_path))
    assert [example.target for example in data_of(name).load("test").examples] == targets


def test_every_set_is_tried_here() -> None:
    names = {path.stem for path in (config_dir() / "rows").glob("*.yaml")}
    packaged = {name for name in names if isinstance(getattr(data_of_packaged(name), "source", None), PackagedRows)}
    exams = {name for name in names if name.startswith(("ceval_", "cmmlu_"))}  # tests/tasks/test_exam.py
    assert names - packaged - exams <= {*EXPECTED, *BOSS, *LOCAL, "implicithate"}
    assert len(packaged) == 4


def data_of_packaged(name: str) -> Any:
    return data_of(name) if name.startswith("vader") else None
