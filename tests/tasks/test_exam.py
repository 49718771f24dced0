"""Exams: what is calibrated on is never tested, shots are of the item's subject, and domains are complete."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from hub_exams import CEVAL_SUBJECTS, CMMLU_SUBJECTS
from offline_data import copy_of_datasets, use_offline
from prompts import long_llama
from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import WholeDocuments
from quantbench.config.catalogue import Catalogue
from quantbench.config.composer import compose_cells
from quantbench.config.facts import data_set
from quantbench.config.resolving import resolver
from quantbench.core.build import build
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.examples import ExampleSet
from quantbench.datasets.exams import ExamSet, subject_of
from quantbench.datasets.hub import HubSource
from quantbench.datasets.overlap import overlap
from quantbench.datasets.rendered import RenderedExamples
from quantbench.datasets.template import Template
from quantbench.models.handle import ModelHandle
from quantbench.tasks.exam import ExamTask
from quantbench.tasks.exam_items import by_subject
from tiny import tiny_tokenizer

COLUMNS = {"question": "Question", "A": "A", "B": "B", "C": "C", "D": "D", "answer": "Answer"}
SPLITS = {"train": "test", "test": "test", "shots": "dev"}
"""Which split of the exam is for what, unless a test says otherwise."""

SUBJECTS = {"law": 40, "logic": 60, "arts": 10}
TEMPLATE = Template(
    instruction="Choose.", item="{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n答案：", answer="{answer}", passage=None
)


def write(path: Path, subject: str, n: int, answers: bool = True, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "Question", "A", "B", "C", "D", "Answer"])
        for i in range(first, first + n):
            writer.writerow([i, f"{subject} question {i}?", *(f"{x}{i}" for x in "abcd"), "ABCD"[i % 4] * answers])


@pytest.fixture
def exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExamSet]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    for subject, n in SUBJECTS.items():
        write(tmp_path / "dev" / f"{subject}.csv", subject, 5, first=900)
        write(tmp_path / "val" / f"{subject}.csv", subject, 8, first=800)
        write(tmp_path / "test" / f"{subject}.csv", subject, n)
        write(tmp_path / "blind" / f"{subject}.csv", subject, n, answers=False)

    def make(**options: Any) -> ExamSet:
        splits = {side: options.pop(side, split) for side, split in SPLITS.items()}
        files = {side: str(tmp_path / split / "{subject}.csv") for side, split in splits.items()}
        source = HubSource(hub=("csv",), files=files, **splits)
        given: dict[str, Any] = {"subjects": tuple(SUBJECTS), "columns": COLUMNS, "held_out": 36}
        return ExamSet(source=source, origin=Origin(name="exam", family="exam"), **(given | options))

    return make


def task(data: ExamSet, **options: Any) -> ExamTask:
    given: dict[str, Any] = {"split": "test", "n": None, "shots": 0, "shot_seed": 0, "max_tokens": None}
    return ExamTask(data=data, template=TEMPLATE, normalize="none", contextual_calibration=False, **(given | options))


def contents(data: ExamSet, split: str) -> set[str]:
    return {one.content for one in data.load(split).examples}


def test_held_out_questions_are_spread_evenly_and_never_tested(exam: Callable[..., ExamSet], tmp_path: Path) -> None:
    data = exam()
    assert isinstance(data, ExampleSet)
    train, test = data.load("train").examples, data.load("test").examples
    assert Counter(map(subject_of, train)) == {"law": 13, "logic": 13, "arts": 10}  # arts has no more
    assert Counter(map(subject_of, test)) == {"law": 27, "logic": 47}
    assert not contents(data, "train") & contents(data, "test")
    assert len({one.id for one in (*train, *test)}) == 110
    # A question that is repeated in the file, once held out and once not, is not tested.
    first = next(one for one in train if subject_of(one) == "law")
    row = [999, *first.fields.values(), first.target]
    with (tmp_path / "test" / "law.csv").open("a", newline="") as file:
        csv.writer(file).writerow(row)
    assert not contents(data, "train") & contents(data, "test")
    assert contents(exam(seed=5), "test") == contents(data, "test")  # no seed moves the cut


def test_calibration_questions_are_spread_evenly_and_follow_the_seed(exam: Callable[..., ExamSet]) -> None:
    options = {"train": "blind", "test": "val", "held_out": 0, "questions": 30}
    one, other = (exam(seed=seed, **options).load("train").examples for seed in (0, 1))
    assert Counter(map(subject_of, one)) == {"law": 10, "logic": 10, "arts": 10}
    assert [example.id for example in one] != [example.id for example in other]
    assert {example.target for example in one} == {""}


def test_a_prompt_has_the_shots_of_its_own_subject(exam: Callable[..., ExamSet]) -> None:
    data = exam()
    test = task(data, shots=5).load(tiny_tokenizer(), "f")
    prompts = test.prompts.fitted(None, ["A"])
    assert len(prompts) == 74
    for prompt in prompts:
        subject = subject_of(prompt.example)
        assert [f"{subject} question {900 + i}?" in prompt.text for i in range(5)] == [True] * 5
        assert not any(f"{other} question" in prompt.text for other in SUBJECTS if other != subject)
        assert prompt.text.endswith(f"D. {prompt.example.fields['D']}\n答案：")
        assert prompt.text.index("question 900") < prompt.text.index("question 904")
    assert test.prompts.values["shots"]["k"] == 15
    some = task(data, shots=2, shot_seed=3).prompts(tiny_tokenizer(), "f")
    again = task(data, shots=2, shot_seed=4).prompts(tiny_tokenizer(), "f")
    assert some.values["shots"]["k"] == 6
    assert some.values["shots"] != again.values["shots"]


def test_it_answers_by_the_likeliest_letter_and_counts_by_subject(exam: Callable[..., ExamSet]) -> None:
    model = long_llama()
    test = task(exam(), n=12).load(tiny_tokenizer(), "f")
    found = test.score(ModelHandle(model, tiny_tokenizer(), "tiny"), "exam", None, torch.device("cpu"), _quiet)
    items = found.items
    likelihoods = items[["ll_0", "ll_1", "ll_2", "ll_3"]].to_numpy()
    assert (items["predicted"].to_numpy() == likelihoods.argmax(1)).all()
    ids = tiny_tokenizer()(test.prompts.fitted(None, ["A"])[0].text)["input_ids"]
    with torch.no_grad():
        last = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    letters = tiny_tokenizer().convert_tokens_to_ids(["A", "B", "C", "D"])
    assert likelihoods[0].tolist() == pytest.approx(last[letters].tolist(), abs=1e-5)
    assert found.attachments["subjects.csv"] == by_subject(items)


def test_accuracy_by_subject() -> None:
    items = pd.DataFrame({"item": ["law:1", "law:2", "arts:0"], "accuracy": [1.0, 0.0, 1.0]})
    assert by_subject(items) == "subject,n,accuracy\narts,1,1\nlaw,2,0.5\n"


def test_calibration_shares_no_question_with_the_test(exam: Callable[..., ExamSet]) -> None:
    data, tokenizer = exam(), tiny_tokenizer()
    source = RenderedExamples(data=data, template=TEMPLATE, with_answers=True)
    calib = Calibration(source=source, sampler=WholeDocuments(), n=4, length=128, seed=0).draw_set(tokenizer)
    test = task(data).load(tokenizer, "f")
    assert calib.contents
    assert overlap(calib, test.token_rows, test.documents, test.contents).shared_items == 0
    text = tokenizer.decode(calib.tokens.flatten())
    assert "Choose.\n\n" in text
    assert "\n答案：" in text


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"held_out": 0}, "", "held_out=0, train=test, test=test: questions are held out"),
    ({"columns": {"question": "Question"}}, "", "columns: expected question, A, B, C, D and answer"),
    ({"shots": "val"}, "shots", "law has 8 questions in its split val, not 5: splits may have been merged"),
    ({"columns": {**COLUMNS, "D": "E"}}, "train", "exam.law, split train: no column 'E'; its columns:"),
    ({"columns": {**COLUMNS, "answer": "B"}}, "test", "row 0: the answer is 'b0', not A, B, C or D"),
    ({}, "valid", "no split 'valid'; it has train, test, shots"),
]


@pytest.mark.parametrize(("options", "split", "message"), WRONG)
def test_bad_input_is_named(exam: Callable[..., ExamSet], options: dict[str, Any], split: str, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        exam(**options).load(split)


def test_questions_without_answers_cannot_be_tested_nor_rendered_with_them(exam: Callable[..., ExamSet]) -> None:
    blind = exam(train="test", test="blind", held_out=0)
    with pytest.raises(ConfigError, match="law:0 and 109 others have no answer"):
        task(blind).load(tiny_tokenizer(), "f")
    data = exam(train="blind", test="val", held_out=0)
    with pytest.raises(DataError, match=r"it has no answers to render; set calib\.with_answers=false"):
        RenderedExamples(data=data, template=TEMPLATE, with_answers=True).load("train")
    assert (
        RenderedExamples(data=data, template=TEMPLATE, with_answers=False).load("train").documents[0].endswith("答案：")
    )
    with pytest.raises(DataError, match="9 shots were asked for, but law has 5"):
        task(exam(), shots=9).load(tiny_tokenizer(), "f")


HEADERS = {
    "ceval": ["id", "question", "A", "B", "C", "D", "answer", "explanation"],
    "cmmlu": ["", "Question", "A", "B", "C", "D", "Answer"],
}
"""Columns of the two exams."""


DOMAINS = [name for name in Catalogue().files("calib") if name.partition("_")[0] in HEADERS]
"""The option of each domain."""


def facts(name: str) -> dict[str, Any]:
    """The component that reads a domain, as its option and family give it."""
    option = Catalogue().option("calib", name)
    return data_set(name, option, Catalogue(), resolver({"seed": 0}, "calib"), f"calib={name}").data()


@pytest.mark.parametrize("name", DOMAINS)
def test_each_domain_reads_the_columns_of_its_exam(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow"))
    node, header = facts(name), HEADERS[name.partition("_")[0]]
    source, subjects = node["source"], node["subjects"][:2]
    for split, n in (("dev", 5), ("val", 12), ("test", 200)):
        for subject in subjects if split in (source["train"], source["test"], source["shots"]) else []:
            path = tmp_path / split / f"{subject}.csv"
            path.parent.mkdir(exist_ok=True)
            answers = split == source["test"] or split == source["shots"]
            with path.open("w", newline="") as opened:
                writer = csv.writer(opened)
                writer.writerow(header)
                for i in range(n):
                    row = [i, f"{split} {subject} {i}", "a", "b", "c", "d", "D" * answers, "why"]
                    writer.writerow(row[: len(header)])
    files = {side: str(tmp_path / source[side] / "{subject}.csv") for side in SPLITS}
    data = build(node | {"subjects": subjects, "source": source | {"hub": ["csv"], "files": files}}, ExamSet, "data")
    train, test, shots = (data.load(split).examples for split in ("train", "test", "shots"))
    assert Counter(map(subject_of, train)) == dict.fromkeys(subjects, 64)
    assert len(test) == (24 if source["test"] == "val" else 100)
    assert {example.target for example in (*test, *shots)} == {"D"}
    assert len(shots) == 10


def test_the_domains_hold_every_subject_once() -> None:
    counts: dict[str, dict[str, int]] = {"ceval": {}, "cmmlu": {}}
    seen: dict[str, list[str]] = {"ceval": [], "cmmlu": []}
    for name in DOMAINS:
        exam, _, domain = name.partition("_")
        counts[exam][domain] = len(facts(name)["subjects"])
        seen[exam] += facts(name)["subjects"]
    # Official sizes of C-Eval's domains; of CMMLU's with the China-specific subjects apart, as in the paper.
    assert counts["ceval"] == {"st": 20, "ss": 10, "hm": 11, "other": 11}
    assert counts["cmmlu"] == {"st": 17, "hm": 11, "ss": 13, "other": 11, "china": 15}
    assert sorted(seen["ceval"]) == sorted(CEVAL_SUBJECTS)
    assert sorted(seen["cmmlu"]) == sorted(CMMLU_SUBJECTS)


def _quiet(done: int, total: int) -> None:
    """Shows nothing."""


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_offline(monkeypatch, copy_of_datasets(["ceval___ceval-exam", "haonan-li___cmmlu"], tmp_path / "datasets"))


@pytest.mark.slow
def test_real_exams_run_by_domain_with_and_without_shots(real: None) -> None:
    """val of C-Eval: 257 humanities, 275 social science, 430 STEM questions; test of CMMLU without the 300 held out."""
    (cell,) = compose_cells(["calib=cmmlu_st", "eval=exams", "calib.length=64"])
    assert len(cell.tasks) == 12
    handle, tokenizer = ModelHandle(long_llama(16384), tiny_tokenizer(), "tiny"), tiny_tokenizer()
    sizes = {"ceval_hm": 257, "ceval_ss": 275, "ceval_st": 430}
    for name, made in cell.tasks.items():
        assert isinstance(made, ExamTask)
        tests = dataclasses.replace(made, n=2).load(tokenizer, "f")
        total = tests.prompts.values["items"]["N"]
        assert total == sizes.get(name.removesuffix("_5shot"), total)
        outcome = tests.score(handle, name, None, torch.device("cpu"), _quiet)
        assert outcome.items["accuracy"].isin([0.0, 1.0]).all()
        assert tests.prompts.values["shots"]["k"] == (5 * len(made.data.subjects) if "5shot" in name else 0)
    assert cell.calib is not None
    found = cell.calib.draw_set(tokenizer)
    assert isinstance(made, ExamTask)
    data = made.data
    assert data.origin.name == "cmmlu_st"
    assert len(data.load("train").examples) == 128
    assert not contents(data, "train") & contents(data, "test")
    assert found.shortfall == 0
