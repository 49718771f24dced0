"""Calibration sets from task data, and the guard that keeps their items out of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompts import SENTIMENT, label_task, labelled, reviews, write_rows
from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import OneItem, Sampler, WholeDocuments
from quantbench.core.errors import DataError
from quantbench.datasets.documents import TextSource
from quantbench.datasets.overlap import overlap
from quantbench.datasets.rendered import RenderedExamples
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer(add_bos=False)


def calibration(source: RenderedExamples, sampler: Sampler | None = None, n: int = 2, length: int = 64) -> Calibration:
    return Calibration(source=source, sampler=sampler or WholeDocuments(), n=n, length=length, seed=0)


def test_items_are_rendered_as_the_task_renders_them_with_or_without_labels(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, train=reviews(8), test=reviews(4, start=50)))
    source = RenderedExamples(data=data, template=SENTIMENT, with_answers=True)
    assert isinstance(source, TextSource)
    assert (source.origin.name, source.origin.family) == ("mine", "sa")
    found = source.load("train")
    assert found.documents[1] == "bad or good?\n\nText: review 1 so nice\nIs: good"
    bare = RenderedExamples(data=data, template=SENTIMENT, with_answers=False).load("train")
    assert [text + tail for text, tail in zip(bare.documents, [" bad", " good"] * 4, strict=True)] == found.documents
    tested = RenderedExamples(data=data, template=SENTIMENT, with_answers=False).load("test").documents
    assert [prompt.text for prompt in label_task(data).load(TOKENIZER, "tok").fitted(None)] == tested


def test_every_set_has_the_same_number_of_tokens(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, train=reviews(30), test=reviews(4, start=50)))
    source = RenderedExamples(data=data, template=SENTIMENT, with_answers=True)
    found = calibration(source).draw_set(TOKENIZER)
    assert found.tokens.shape == (2, 64)
    assert str(TOKENIZER.decode(found.tokens[0].tolist())).startswith("bad or good?\n\nText: review")
    assert {f"review {i}" for i in range(30)} >= {" ".join(text.split()[:2]) for text in found.contents}
    other = calibration(source, n=4, length=32).draw_set(TOKENIZER)
    assert other.n_tokens == found.n_tokens


def test_one_item_a_sequence_keeps_its_end_or_says_what_to_do(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, train=reviews(30), test=reviews(4, start=50)))
    source = RenderedExamples(data=data, template=SENTIMENT, with_answers=True)
    found = calibration(source, OneItem(), n=6, length=24).draw_set(TOKENIZER)
    ends = [str(TOKENIZER.decode(row.tolist())) for row in found.tokens]
    assert all(text.endswith(("Is: bad", "Is: good")) for text in ends)
    with pytest.raises(DataError, match=r"0 of 30 items with at least 200 tokens .*whole_documents packs short ones"):
        calibration(source, OneItem(), length=200).draw_set(TOKENIZER)


def test_an_item_of_both_sides_is_refused_however_short(tmp_path: Path) -> None:
    train = [*reviews(6), {"text": "Nice  ONE", "label": 1}]
    other = labelled(write_rows(tmp_path / "b", test=[{"text": "nice one", "label": 0}, *reviews(3, start=60)]))
    data = labelled(write_rows(tmp_path, train=train, test=reviews(4, start=50)))
    calib = calibration(RenderedExamples(data=data, template=SENTIMENT, with_answers=True), n=5, length=64).draw_set(
        TOKENIZER
    )
    assert len(calib.contents) == 7
    test = label_task(other).load(TOKENIZER, "tok")
    found = overlap(calib, test.token_rows, test.documents, test.contents)
    assert found.shared_items == 1
    assert found.to_dict()["shared_items"] == 1
    with pytest.raises(DataError, match="calib=mine and task sa overlap: 1 items are in both, word for word"):
        found.check("mine", "sa")
    clean = label_task(data).load(TOKENIZER, "tok")
    none = overlap(calib, clean.token_rows, clean.documents, clean.contents)
    assert none.shared_items == 0  # the instruction that all prompts share is no overlap
    none.check("mine", "sa")


def test_an_item_that_is_tokenized_otherwise_or_nearly_the_same_is_refused(tmp_path: Path) -> None:
    film = "it 's a charming and often affecting journey , and it does n't cheat"
    train = [{"text": film, "label": 1}, *reviews(5)]
    data = labelled(write_rows(tmp_path / "a", train=train, test=reviews(4, start=50)))
    written = [
        {"text": "It's a charming, and often affecting, journey, and it doesn't cheat.", "label": 1},
        {"text": "It's a charming and often affecting journey and it doesn't ever cheat", "label": 1},
    ]
    other = labelled(write_rows(tmp_path / "b", test=[*written, *reviews(3, start=60)]))
    source = RenderedExamples(data=data, template=SENTIMENT, with_answers=True)
    calib = calibration(source, n=5, length=64).draw_set(TOKENIZER)
    assert len(calib.contents) == 6
    test = label_task(other).load(TOKENIZER, "tok")
    found = overlap(calib, test.token_rows, test.documents, test.contents)
    assert found.shared_items == 2
    with pytest.raises(DataError, match=r"2 items are in both, word for word or nearly so.*calib\.group=COLUMN"):
        found.check("mine", "sa")


def test_shots_are_no_items_of_the_tested_split_whatever_its_name(tmp_path: Path) -> None:
    held = [{"text": f"number {i} of the {word} held out reviews", "label": i % 2} for i, word in enumerate("abcdef")]
    train = [{"text": str(row["text"]).upper() + " !", "label": row["label"]} for row in held] + reviews(3)
    data = labelled(write_rows(tmp_path, train=train, test=reviews(4, start=50), validation=held))
    task = label_task(data, split="validation", shots=3)
    assert sorted(shot.fields["text"] for shot in task.draw_shots()) == sorted(row["text"] for row in reviews(3))
    with pytest.raises(DataError, match="4 shots were asked for, but its train split has 3 examples"):
        label_task(data, split="validation", shots=4).draw_shots()


def test_a_train_split_goes_without_its_own_test_items(tmp_path: Path) -> None:
    train = [*reviews(5), {"text": "REVIEW 50 so nice", "label": 1}]
    data = labelled(write_rows(tmp_path, train=train, test=reviews(4, start=50)))
    found = RenderedExamples(data=data, template=SENTIMENT, with_answers=True).load("train")
    assert len(found.documents) == 5
    assert "1 rows that are test items, too, skipped" in found.notes
    alone = labelled(write_rows(tmp_path / "c", train=train))
    found = RenderedExamples(data=alone, template=SENTIMENT, with_answers=True).load("train")
    assert len(found.documents) == 6
    assert "not compared with its own test split" in found.notes[-1]
    write_rows(tmp_path, train=reviews(4, start=50))
    with pytest.raises(DataError, match="every example of its train split is in its test split"):
        RenderedExamples(data=data, template=SENTIMENT, with_answers=True).load("train")
