"""Documents that share a footer: it is shown, taken out where that is asked for, and written down."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts import labelled, own
from quantbench.cells.session import Session, check_inputs
from quantbench.config.composer import compose_cells
from quantbench.core.errors import DataError, QuantbenchError
from quantbench.core.origin import Origin
from quantbench.datasets.chat import PlainChat
from quantbench.datasets.files import FileSource
from quantbench.datasets.labelled import LabelledSet, MapLabel
from quantbench.datasets.passages import RUN, most_shared, shared_between, without_boilerplate
from quantbench.datasets.split import cut_texts
from quantbench.datasets.text import TextSet
from quantbench.store.store import Store
from quantbench.tasks.windows import TextTask
from tiny import save_tiny_model, tiny_tokenizer

FOOTER = "This message is confidential: " + " ".join(f"clause {i}" for i in range(20)) + "."
"""46 words and marks."""


def words(generator: random.Random, count: int) -> str:
    return " ".join("".join(generator.choices("abcdefghij", k=6)) for _ in range(count))


def tickets(count: int, footer: str = FOOTER, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [f"{words(generator, 12)}.\n\n{footer}" for _ in range(count)]


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(path: Path, column: str = "text", **options: Any) -> TextSet:
    origin = Origin(name="mine", family="lm")
    return TextSet(source=FileSource(path=path), origin=origin, text=column, **options)


# Passages


def test_the_passage_that_most_documents_hold_is_found_in_full() -> None:
    documents = [*tickets(30), *(f"{i} {' '.join(f'w{k}' for k in range(50))}" for i in range(2))]
    found = most_shared(documents)
    assert found is not None
    # The full stop before the footer is the same everywhere, but no part of it.
    assert (found.text, found.words, found.documents) == (FOOTER, 46, 30)
    assert str(found).startswith('"This message is confidential: clause 0')
    assert str(found).endswith('..." (46 words, in 30 documents)')
    assert most_shared([f"{i} nothing" for i in range(9)]) is None
    assert most_shared([]) is None


def test_a_passage_is_counted_once_a_document() -> None:
    (first, second) = tickets(2)
    found = most_shared([f"{first} {FOOTER} {FOOTER}", second, "short"])
    assert found is not None
    assert found.documents == 2


def test_what_is_shared_between_two_texts_is_what_most_of_the_second_hold() -> None:
    mine, theirs = tickets(3, seed=1), tickets(8, seed=2)
    found = shared_between(mine, theirs)
    assert found is not None
    assert (found.documents, found.words) == (8, 46)
    assert shared_between(mine, [words(random.Random(5), 40)]) is None
    chinese = shared_between(
        ["甲，乙，丙，丁，戊，己"], ["子，乙，丙，丁，戊，丑"]
    )  # without spaces a clause is a word
    assert chinese is not None
    assert chinese.text == "乙，丙，丁，戊，"


@given(st.integers(0, 10_000), st.integers(4, 12), st.floats(0.05, 0.9))
def test_afterwards_no_passage_is_left_that_so_many_hold_and_nothing_else_is_gone(
    seed: int, count: int, share: float
) -> None:
    generator = random.Random(seed)
    notices = [words(generator, generator.randint(RUN - 2, 50)) for _ in range(3)]
    texts = []
    for _ in range(count):
        parts = [words(generator, generator.randint(1, 20)) for _ in range(3)]
        parts += [notice for notice in notices if generator.random() < 0.6]
        generator.shuffle(parts)
        texts.append("\n\n".join(parts))
    found = without_boilerplate(texts, share)
    left = most_shared(found.texts)
    assert left is None or left.documents <= max(1, share * count)
    taken = [passage.text.split() for passage in found.passages]
    for before, after in zip(texts, found.texts, strict=True):
        rest = iter(before.split())
        assert all(any(word == other for other in rest) for word in after.split())  # in the old order
        if not taken:
            assert after == before


def test_only_what_more_than_the_share_hold_is_taken_out_and_copies_are_one_document() -> None:
    other = [words(random.Random(i), 40) for i in range(10, 17)]
    three = tickets(3)
    assert without_boilerplate([*other, *three], 0.3).texts == [*other, *three]
    stripped = without_boilerplate([*other, *three], 0.29)
    assert [len(one.split()) for one in stripped.texts] == [*[40] * 7, *[12] * 3]
    assert (stripped.changed, stripped.documents) == (3, 10)
    copies = [other[0], other[0], *other[1:]]
    assert without_boilerplate(copies, 0.1).texts == copies


def test_what_stood_around_a_passage_stays_apart() -> None:
    texts = [f"{start}\n\n{FOOTER}\n\n{end}" for start, end in (("one two", "three"), ("four", "five six"), ("x", ""))]
    assert without_boilerplate(texts, 0.5).texts == ["one two\n\nthree", "four\n\nfive six", "x"]


# The cut


def test_a_footer_under_every_document_is_shown_with_the_option_that_helps(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "tickets.jsonl", [{"text": one} for one in tickets(300)])
    with pytest.raises(DataError) as caught:
        text(path).load("train")
    said = str(caught.value)
    assert "300 distinct documents in 1 group(s) that share long passages cannot be cut" in said
    assert '300 of them hold "This message is confidential: clause 0 ' in said
    assert "(46 words, in 300 documents)" in said
    assert "strip_boilerplate=0.1" in said
    assert "give more documents" not in said
    sides = {side: text(path, strip_boilerplate=0.1).load(side) for side in ("train", "test")}
    assert [len(sides[side].documents) for side in ("train", "test")] == [240, 60]
    assert not any("clause" in one for side in sides.values() for one in side.documents)


def test_documents_that_only_copy_each_other_are_asked_for_more() -> None:
    with pytest.raises(DataError, match=r"1 distinct documents .* cannot be cut .*; give more documents"):
        cut_texts(["one", "one"], "mine")


@pytest.mark.parametrize("column", ["text", "{text}"])
def test_what_was_taken_out_is_noted_and_in_the_protocol(tmp_path: Path, column: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": one} for one in tickets(20)])
    found = text(path, column, strip_boilerplate=0.1).load("test")
    (note,) = [note for note in found.notes if "strip_boilerplate" in note]
    assert note.startswith("1 passages that more than 0.1 of 20 documents hold were taken out of 20 of them")
    assert "clause 0" in note
    told = found.processing["strip_boilerplate"]
    assert told == {"share": 0.1, "run": RUN, "passages": [FOOTER]}
    task = TextTask(source=text(path, column, strip_boilerplate=0.1), window=8, n_windows=2, bos="none")
    values = task.load(tiny_tokenizer(), "tok").protocol_values
    assert values["strip_boilerplate"] == told
    bare = jsonl(tmp_path / "b.jsonl", [{"text": one} for one in tickets(20, footer="")])
    plain = TextTask(source=text(bare, column), window=8, n_windows=2, bos="none").load(tiny_tokenizer(), "tok")
    assert "strip_boilerplate" not in plain.protocol_values


def test_messages_and_labelled_rows_lose_it_too(tmp_path: Path) -> None:
    chats = [{"messages": [{"role": "user", "content": one}]} for one in tickets(20)]
    render = PlainChat(column="messages", prefixes={"user": "User: "})
    made = text(jsonl(tmp_path / "a.jsonl", chats), render=render, strip_boilerplate=0.1)
    documents = [one for side in ("train", "test") for one in made.load(side).documents]
    assert len(documents) == 20
    assert not any("clause" in one for one in documents)
    path = jsonl(tmp_path / "b.jsonl", [{"text": one, "label": i % 2} for i, one in enumerate(tickets(40))])
    rule = MapLabel(column="label", map={"0": "bad", "1": "good"})
    options: dict[str, Any] = {"origin": own("sa", path), "columns": {"text": "text"}, "label": rule}
    data = LabelledSet(source=FileSource(path=path), strip_boilerplate=0.1, **options)
    found = [data.load(side) for side in ("train", "test")]
    assert sum(len(one.examples) for one in found) == 40
    assert "strip_boilerplate" in found[0].rows.processing
    with pytest.raises(DataError, match="40 of them hold"):
        LabelledSet(source=FileSource(path=path), **options).load("train")
    assert labelled(tmp_path).strip_boilerplate is None


def test_a_footer_of_two_files_is_shown_as_the_overlap_and_the_option_takes_it_away(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    long = FOOTER + " " + " ".join(f"part {i}" for i in range(60))
    paths = [
        jsonl(tmp_path / f"{name}.jsonl", [{"text": one} for one in tickets(20, long, seed)])
        for name, seed in (("train", 1), ("test", 2))
    ]
    given = [f"calib.path={paths[0]}", f"calib.test_path={paths[1]}", "quantizer=gptq", "scale=smoke"]
    given += ["model=local", f"model.path={tmp_path / 'model'}", "calib=local", "calib.n=4", "calib.length=128"]
    given += ["scale.window=128", "scale.windows=4", "threads=1", "quantizer.weight.group_size=16"]
    store = Store(tmp_path / "outputs")
    with pytest.raises(QuantbenchError) as caught:
        check_inputs(Session(store), compose_cells(given))
    said = str(caught.value)
    assert "of the test windows share a run of 64 tokens with the calibration set" in said
    assert "Of the test's documents 20 hold a passage that was calibrated on, too: " in said
    assert '"This message is confidential: clause 0' in said
    check_inputs(Session(store), compose_cells([*given, "calib.strip_boilerplate=0.1"]))


# Which document lies in which part


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_test_text_can_be_put_together_by_hand(tmp_path: Path, name: str) -> None:
    documents = [f"document {i}, {words(random.Random(i), 10)}" for i in range(30)]
    path = tmp_path / name
    if name.endswith("txt"):
        path.write_text("\n\n".join([*documents, documents[0]]))
    else:
        jsonl(path, [{"text": one} for one in [*documents, documents[0]]])
    task = TextTask(source=text(path), window=8, n_windows=2, bos="none")
    test = task.load(tiny_tokenizer(), "tok")
    rows = list(csv.DictReader(io.StringIO(test.listing)))
    lines = path.read_text().split("\n")
    held = [lines[int(row["place"].rpartition("line ")[2]) - 1] for row in rows]
    if name.endswith("jsonl"):
        held = [json.loads(line)["text"] for line in held]
    assert tuple(held) == test.documents
    assert [row["document"] for row in rows] == [str(number) for number in range(6)]
    assert {row["split"] for row in rows} == {"test"}
    assert rows[0]["place"].startswith(str(path))
    assert rows[0]["begins"] == " ".join(held[0][:60].split())


def test_only_documents_drawn_from_are_listed_of_a_calibration_set(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"document {i} " + words(random.Random(i), 5)} for i in range(30)])
    found = text(path).load("train")
    (line,) = csv.DictReader(io.StringIO(found.listing({found.documents[3]})))
    assert (line["document"], line["data"], line["split"]) == ("3", "mine", "train")
    number = int(found.documents[3].split()[1])
    assert line["place"] == f"{path}, line {number + 1}"
