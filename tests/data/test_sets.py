"""Every data set of conf/calib against small files as they are at the hub, at their address, or in a folder.

What is at the hub stands in hub_schemas, what must come of it in the tables here; neither is derived from an option.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from fake_hub import FakeHub, use_hub
from hub_exams import CEVAL_SUBJECTS, CMMLU_SUBJECTS
from hub_files import ROWS, at_address, hub
from hub_schemas import ADDRESSES, AMAZON, HUB, SQUAD, TEXT
from quantbench.config.catalogue import Catalogue
from quantbench.config.facts import data_set
from quantbench.config.resolving import resolver
from quantbench.core.build import build
from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource
from quantbench.datasets.examples import Example
from quantbench.datasets.exams import ExamSet, subject_of
from quantbench.datasets.hub import HubSource
from quantbench.datasets.rendered import RenderedExamples
from quantbench.datasets.text import TextSet

RED = ("arxiv", "book", "github", "stackexchange", "wikipedia")
TALK = "User: Hello {i}\n\nAssistant: Hi {i} of {split}"
TEXTS: dict[str, tuple[str, str, str]] = {
    "alpaca": ("train", "train", "instruction"),
    "alpaca_cleaned": ("train", "train", "instruction"),
    "c4": ("en/c4-train.00000-of-01024.json.gz", "en/c4-validation.00000-of-00008.json.gz", TEXT),
    "cci3_hq": ("data/part_000000.jsonl", "data/part_000000.jsonl", TEXT),
    "code_search_net": ("train", "test", TEXT),
    "fineweb_edu": ("sample/10BT/000_00000.parquet", "sample/10BT/000_00000.parquet", TEXT),
    "flores": ("dev", "devtest", TEXT),
    "neuralmagic": ("llm.parquet", "llm.parquet", TALK),
    "open_platypus": ("train", "train", "instruction"),
    "pile": ("val.jsonl.zst", "val.jsonl.zst", TEXT),
    "pile_10k": ("train", "train", TEXT),
    "ptb": ("train", "test", TEXT),
    **{f"redpajama_{part}": (f"{part}_sample.jsonl", f"{part}_sample.jsonl", TEXT) for part in RED},
    "skypile": ("data/2020-40_zh_head_0000.jsonl", "data/2020-40_zh_head_0000.jsonl", TEXT),
    "slimpajama": ("data/train-00000-of-00048.parquet", "data/test-00000-of-00001.parquet", TEXT),
    "stack_smol": ("data/python/data.json", "data/python/data.json", TEXT),
    "thucnews": ("test", "test", "two texts a row"),
    "tnews": ("train", "validation", TEXT),
    "ultrachat": ("train_sft", "test_sft", TALK),
    "wiki": ("train", "test", TEXT),
    "wiki_cn": ("train", "train", TEXT),
    "wikipedia_zh": ("20231101.zh/train-00000-of-00006.parquet", "20231101.zh/train-00000-of-00006.parquet", TEXT),
    "wikitext103": ("train", "test", TEXT),
}
"""Set -> the splits (or files) of both sides, which are cut where they are the same, and what a document is."""

PAIR = {"premise": "premise {i} of {split}", "hypothesis": "hypothesis {i} of {split}"}
QUESTION = {"passage": SQUAD["context"], "question": SQUAD["question"]}
WORDS = {"text": TEXT}
TOKENS = {"text": "tokens"}
ENTITIES = ["person: Ann Lee", "location: Rome"]
ANSWERS = ["Ann Lee", "Lee"]
NLI = ["entailment", "neutral", "contradiction"]
HATE = ["benign", "toxic", "toxic"]
STARS = ["negative", None, "neutral", None, "positive"]
ROUND = "dynasent-v1.1/dynasent-v1.1-round01-yelp-{}.jsonl"
SA3, SA2, TD = ("positive", "negative", "neutral"), ("positive", "negative"), ("benign", "toxic")
CONLL_TYPES = ("person", "organization", "location", "miscellaneous")

Labelled = tuple[str, str, Mapping[str, Any], Sequence[str | None], tuple[str, ...]]
LABELLED: dict[str, Labelled] = {
    "advqa": ("train", "validation", QUESTION, ANSWERS, ()),
    "amazon": (AMAZON, AMAZON, WORDS, STARS, SA3),
    "anli": ("train_r1 train_r2 train_r3", "test_r1 test_r2 test_r3", PAIR, NLI, tuple(NLI)),
    "civilcomments": ("train", "test", WORDS, ["benign", "benign", "toxic", "toxic"], TD),
    "conll": ("train", "test", TOKENS, ENTITIES, CONLL_TYPES),
    "contractnli": ("train", "test", PAIR, ["contradiction", "entailment", "neutral"], tuple(NLI)),
    "dynasent": (
        ROUND.format("train"),
        ROUND.format("test"),
        WORDS,
        ["positive", "negative", "neutral", None, None],
        SA3,
    ),
    "fewnerd": (
        "train",
        "test",
        TOKENS,
        ENTITIES,
        ("art", "building", "event", "location", "organization", "miscellaneous", "person", "product"),
    ),
    "implicithate": ("train", "train", WORDS, HATE, TD),
    "mnli": ("train", "validation_matched", PAIR, NLI, tuple(NLI)),
    "newsqa": ("train", "validation", QUESTION, ANSWERS, ()),
    "searchqa": ("train", "validation", QUESTION, ANSWERS, ()),
    "squad": ("train", "validation", QUESTION, ANSWERS, ()),
    "sst2": ("train", "validation", WORDS, ["negative", "positive"], SA2),
    "sst5": ("train.jsonl", "test.jsonl", WORDS, STARS, SA3),
    "toxigen": ("train", "test", WORDS, HATE, TD),
    "tweet_eval": ("train", "test", WORDS, ["negative", "neutral", "positive"], SA3),
    "wanli": ("train.jsonl", "test.jsonl", PAIR, NLI, tuple(NLI)),
    "wnut": ("train", "test", TOKENS, ENTITIES, ("organization", "art", "location", "person", "product")),
}
"""Set -> the splits of both sides, the fields, what successive rows are to be answered with (null: they are left out),
and the labels."""

EXAMS = {
    "ceval": (CEVAL_SUBJECTS, {"train": "test", "test": "val", "shots": "dev"}),
    "cmmlu": (CMMLU_SUBJECTS, {"train": "test", "test": "test", "shots": "dev"}),
}
"""Exam -> its subjects, and the splits of each side."""
SERVED = {"law", "high_school_history", "arts", "logical"}
"""The subjects that the hub here has."""

OPTIONS = Catalogue()
FROM_HUB = [
    name
    for name in OPTIONS.files("calib")
    if {"hub", "files"} & set(OPTIONS.option("calib", name)) and name not in {"mix", "shuffled"}
]
BY_EXAM = [name for name in OPTIONS.files("calib") if name.startswith(tuple(EXAMS))]


def made(option: str, **changed: Any) -> Any:
    """What a set's yaml stands for, perhaps with other facts: a text, or examples as one."""
    facts = {**OPTIONS.option("calib", option), **changed}
    return build(data_set(option, facts, OPTIONS, resolver({"seed": 0}, "calib"), "calib").text(), TextSource, option)


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHub]:
    packed = importlib.util.find_spec("zstandard") is not None
    held = {name: one for name, one in HUB.items() if packed or not any(".zst" in file for file in one.files)}
    for exam in ("ceval/ceval-exam", "haonan-li/cmmlu"):
        served = {subject: splits for subject, splits in HUB[exam].configs.items() if subject in SERVED}
        held[exam] = dataclasses.replace(HUB[exam], configs=served)
    with FakeHub(hub(held)) as found:
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the options share, as a user's do."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def reach(running: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reaches the hub, or with `offline` only what was fetched before."""

    def choose(offline: bool = False) -> None:
        use_hub(monkeypatch, home, running.url, offline=offline)

    choose()
    return choose


def with_files_here(source: HubSource, folder: Path) -> HubSource:
    """The source, its addresses replaced by those of files of the same schema."""

    def here(file: str) -> str:
        for number, address in enumerate(ADDRESSES):
            if address in file:
                path = folder / str(number) / address.rpartition("/")[2]
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(at_address(address))
                return file.replace(address, f"file://{path}")
        return file

    files = source.files
    found = {side: here(file) for side, file in files.items()} if isinstance(files, Mapping) else here(files or "")
    return dataclasses.replace(source, files=found or None)


def filled(text: str, split: str, i: int) -> str:
    return text.format(split=split, i=i)


def commit_of(source: HubSource) -> str:
    return HUB[source.hub[0].partition("@")[0].partition(":")[0]].commit if source.hub else "unverified"


def test_every_set_of_the_hub_is_tried_here() -> None:
    assert sorted(FROM_HUB) == sorted([*TEXTS, *LABELLED])


def documents(kind: str, split: str) -> list[str]:
    """The documents of a split, as hub_schemas has its rows."""
    if kind == "two texts a row":
        return [f"{which} {i} of {split}" for i in range(ROWS) for which in ("first", "second")]
    if kind == "instruction":
        given = ["", "given {i} of {split}\n\n"]
        return [
            filled("Do number {i} of {split}.\n\n" + given[i % 2] + "Done, {i} of {split}.", split, i)
            for i in range(ROWS)
        ]
    return [filled(kind, split, i) for i in range(ROWS)]


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_by_its_schema_and_again_without_the_hub(name: str, reach: Any) -> None:
    if name == "pile":
        pytest.importorskip("zstandard", reason="zstandard is not installed, which the Pile's file needs")
    train, test, kind = TEXTS[name]
    source = made(name)
    assert isinstance(source, TextSet)
    found = {side: source.load(side) for side in ("train", "test")}
    sides = {side: list(one.documents) for side, one in found.items()}
    if train == test:
        assert not set(sides["train"]) & set(sides["test"])
        assert sorted(sides["train"] + sides["test"]) == sorted(documents(kind, train))
    else:
        assert sides == {"train": documents(kind, train), "test": documents(kind, test)}
    assert {one.revision for one in found.values()} == {commit_of(cast("HubSource", source.source))}
    reach(offline=True)
    again = {side: source.load(side) for side in ("train", "test")}
    assert {side: (one.fingerprint, one.revision) for side, one in again.items()} == {
        side: (one.fingerprint, one.revision) for side, one in found.items()
    }


def expected(name: str, splits: str) -> list[tuple[dict[str, str], str]]:
    """Fields and target of each example of some splits."""
    _, _, fields, targets, _ = LABELLED[name]
    found = []
    for split in splits.split():
        for i in range(ROWS):
            target = targets[i % len(targets)]
            words = "Ann Lee {split}-{i}" if i % 2 == 0 else "in Rome {split}-{i}"
            templates = {"text": words} if fields is TOKENS else fields
            if target is not None:
                found.append(({slot: filled(text, split, i) for slot, text in templates.items()}, target))
    return found


@pytest.mark.parametrize("name", LABELLED)
def test_a_set_of_examples_is_read_by_its_schema_and_again_without_the_hub(
    name: str, reach: Any, tmp_path: Path
) -> None:
    train, test, _, targets, labels = LABELLED[name]
    rendered = made(name)
    assert isinstance(rendered, RenderedExamples)
    data = cast("Any", rendered.data)
    data = dataclasses.replace(data, source=with_files_here(data.source, tmp_path))
    found = {side: data.load(side) for side in ("train", "test")}
    sides = {side: [(dict(one.fields), one.target) for one in several.examples] for side, several in found.items()}
    if train == test:
        assert not any(one in sides["test"] for one in sides["train"])
        together = sides["train"] + sides["test"]
        assert sorted(together, key=str) == sorted(expected(name, train), key=str)
    else:
        assert sides == {"train": expected(name, train), "test": expected(name, test)}
        left_out = sum(1 for i in range(ROWS) if targets[i % len(targets)] is None)
        assert sum(int(note.split()[0]) for note in found["test"].notes if note.endswith("skipped")) == left_out
    assert {one.labels for one in found.values()} == {labels}
    assert {one.rows.revision for one in found.values()} == {commit_of(data.source)}
    reach(offline=True)
    assert {side: data.load(side).rows.fingerprint for side in found} == {
        side: one.rows.fingerprint for side, one in found.items()
    }
    rendered.template.check(found["test"])


def test_all_answers_of_a_question_count(reach: Any) -> None:
    reach()
    for name in ("squad", "newsqa"):
        first, second, *_ = made(name).data.load("test").examples
        assert (first.answers, second.answers) == (("Ann Lee", "Ann"), ("Lee",))
        assert first.id == "validation-0"


def questions(exam: ExamSet) -> dict[str, list[Example]]:
    """Those of two of its subjects, by side."""
    subjects = tuple(one for one in exam.subjects if one in SERVED)
    made = dataclasses.replace(exam, subjects=subjects, held_out=min(exam.held_out, 20), questions=20)
    return {side: list(made.load(side).examples) for side in ("train", "test", "shots")}


def check_questions(found: Sequence[Example], split: str, answers: str = "ABCD") -> None:
    assert {subject_of(one) for one in found} <= SERVED
    for one in found:
        number = one.id.partition(":")[2]
        said = {letter: f"choice {letter} of {number}" for letter in "ABCD"}
        assert one.fields == {"question": f"{subject_of(one)} {number} of {split}?", **said}
        assert one.target == (answers and answers[int(number) % 4])


def test_an_exam_with_a_test_split_without_answers_is_read_by_its_schema(reach: Any) -> None:
    reach()
    found = questions(made("ceval_hm").data)
    assert {side: len(several) for side, several in found.items()} == {"train": 20, "test": 80, "shots": 10}
    check_questions(found["train"], "test", answers="")
    check_questions(found["test"], "val")
    check_questions(found["shots"], "dev")


def test_an_exam_whose_questions_are_held_out_is_read_by_its_schema(reach: Any) -> None:
    reach()
    found = questions(made("cmmlu_hm").data)
    assert {side: len(several) for side, several in found.items()} == {"train": 20, "test": 60, "shots": 10}
    check_questions([*found["train"], *found["test"]], "test")
    check_questions(found["shots"], "dev")
    assert not {one.id for one in found["train"]} & {one.id for one in found["test"]}


def test_an_exam_is_read_from_the_files_of_its_authors_where_the_hub_has_it_not(reach: Any, tmp_path: Path) -> None:
    reach()
    exam = made("cmmlu_hm").data
    here = {}
    for side, file in cast("Mapping[str, str]", exam.source.files).items():
        for subject in exam.subjects:
            address = file.replace("{subject}", subject)
            path = tmp_path / side / f"{subject}.csv"
            path.parent.mkdir(exist_ok=True)
            if subject in SERVED:
                path.write_bytes(at_address(address, 5 if side == "shots" else ROWS))
            assert address in ADDRESSES
        here[side] = f"file://{tmp_path}/{side}/{{subject}}.csv"
    source = dataclasses.replace(exam.source, hub=("haonan-li/gone:{subject}",), files=here)
    found = questions(dataclasses.replace(exam, source=source))
    assert {side: len(several) for side, several in found.items()} == {"train": 20, "test": 60, "shots": 10}
    assert {one.target for one in found["test"]} == set("ABCD")


def test_the_subjects_of_an_exam_are_all_in_one_domain_or_another() -> None:
    for exam, (subjects, _) in EXAMS.items():
        listed = [one for name in BY_EXAM if name.startswith(exam) for one in made(name).data.subjects]
        assert sorted(listed) == sorted(subjects)


# Sets in a folder of the user's


ANN = "person: Ann Lee"
BOSS: dict[str, tuple[str, str, list[str]]] = {
    "boss_sa": ("test.tsv", 'Text\tLabel\n"so ""good"""\t1\nbad\t0\nok\t2\n\t1\n', ["positive", "negative", "neutral"]),
    "boss_nli": ("test.tsv", "Premise\tHypothesis\tLabel\na\tb\t0\nc\td\t1\ne\tf\t2\n", NLI),
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
    found = made(name, name="amazon_of_boss", path=str(tmp_path)).data.load("test")
    assert [example.target for example in found.examples] == targets
    assert found.rows.name == "amazon_of_boss"


CIVIL, TWEETS = "ToxicDetection/adv_civil/test.tsv", "twitter-2016test-A.txt"
FOLDERS: dict[str, tuple[str, str, str, list[str]]] = {
    "semeval": (
        "QUANTBENCH_SEMEVAL",
        TWEETS,
        '1\tpositive\tsay "hi\n2\tnegative\tno\n3\tneutral\to\n',
        ["positive", "negative", "neutral"],
    ),
    "advcivil": ("QUANTBENCH_BOSS", CIVIL, "Text\tLabel\nfine\t0\nawful\t1\n", ["benign", "toxic"]),
    "ener": ("QUANTBENCH_ENER", "test.txt", "Acme B-BUSINESS\nInc I-BUSINESS\nsaid O\n", ["organization: Acme Inc"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_set_without_a_home_is_read_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable, file, text, targets = FOLDERS[name]
    monkeypatch.setenv(variable, str(tmp_path / "no"))
    with pytest.raises(DataError, match=rf"no such file or folder\. .*{variable}|no such file or folder\. Unpack"):
        made(name).data.load("test")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    monkeypatch.setenv(variable, str(tmp_path))
    assert [example.target for example in made(name).data.load("test").examples] == targets


def test_every_other_set_is_of_a_package_or_a_folder() -> None:
    others = set(OPTIONS.files("calib")) - {*FROM_HUB, *BY_EXAM, *BOSS, *FOLDERS}
    assert others == {
        *("local", "mix", "shuffled", "random_tokens"),
        *("wiki_sample", "news_sample", "code_sample"),
        *(f"vader_{domain}" for domain in ("reviews", "film", "tweets", "editorials")),
    }
