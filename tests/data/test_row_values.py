"""What every row of a file must be, beyond the first one and its type: each fault is refused by its file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset

from prompts import answered, labelled, own
from quantbench.config.label_rules import by_value, label_rule
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.files import FileSource
from quantbench.datasets.labelled import CutLabel, LabelledSet, MapLabel
from quantbench.datasets.rows import Rows
from quantbench.datasets.spans import SpanSet
from quantbench.datasets.table import ArrowTable
from quantbench.datasets.text import TextSet

GOOD = {"text": "nice one", "label": 1}
BAD = {"text": "bad one", "label": 0}


def file(folder: Path, content: str | bytes, name: str = "test.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def text(path: Path, **options: Any) -> TextSet:
    given: dict[str, Any] = {
        "source": FileSource(path=path, test_path=path),
        "origin": Origin(name="mine", family="lm"),
    }
    return TextSet(**given, **options)


def stars(folder: Path, **options: Any) -> LabelledSet:
    rule = CutLabel(columns=("label",), at=(2.5,), labels=("bad", "good"))
    return LabelledSet(
        source=FileSource(path=folder, **options), origin=own("sa", folder), columns={"text": "text"}, label=rule
    )


def spans(folder: Path) -> SpanSet:
    return SpanSet(source=FileSource(path=folder), origin=own("ner", folder), tags={"0": "O", "1": "person"})


@pytest.mark.parametrize(
    ("content", "read", "said"),
    [
        # a key that later rows lack, or a value of another type
        (lines(GOOD, BAD, {"text": "x"}), labelled, "line 3: no column 'label'; its columns: text (the rows before"),
        (lines({"text": "x"}, GOOD), labelled, "line 1: no column 'label'; its columns: text (the set's keys"),
        (lines(GOOD, {"text": ["a", "b"], "label": 1}), labelled, "line 2: the column 'text' holds a list of 2"),
        (lines(GOOD, {"text": {"en": "a"}, "label": 1}), labelled, "line 2: the column 'text' holds an object"),
        (lines(GOOD, BAD, {"text": "x", "label": [1]}), labelled, "line 3: the column 'label' holds a list of 1"),
        (lines(GOOD, BAD, {"text": "x", "label": 2}), labelled, "line 3: the label column 'label' holds '2'"),
        (lines({"tokens": ["a", ["b"]], "ner_tags": [0, 1]}), spans, "line 1: the column 'tokens' holds ['b'] among"),
        (lines({"tokens": ["a"], "ner_tags": [[0]]}), spans, "line 1: the column 'ner_tags' holds a list of 1"),
        (lines({"context": "c", "question": "q", "answers": [1]}), answered, "line 1: answers: expected"),
        # what is no number
        (lines(GOOD, {"text": "x", "label": float("nan")}), labelled, "line 2: NaN is no number of JSON"),
        (lines(GOOD, {"text": float("nan"), "label": 1}), labelled, "line 2: NaN is no number"),
        ('{"text": "x", "label": 1e999}\n', labelled, "line 1: 'label' holds inf, which is no number"),
        (lines(GOOD, {"text": "x", "label": "nan"}), stars, "line 2: expected a number in the column 'label', "),
        (lines(GOOD, {"text": "x", "label": "inf"}), stars, "line 2: expected a number in the column 'label', "),
        (lines(GOOD, {"text": "x", "label": True}), stars, "line 2: expected a number in the column 'label', "),
        # JSON that would lose something
        (lines(GOOD, {"text": "x \ud83d", "label": 1}), labelled, r"line 2: 'text' holds \ud83d, half of a"),
        (lines(GOOD) + '{"text": "x", "text": "y", "label": 1}\n', labelled, "line 2: 'text' stands there twice"),
        (lines(GOOD) + '{"text": "x", "label": 1} {"text": "y"}\n', labelled, "line 2: not JSON: there is more behind"),
        (lines(GOOD) + "[" * 100_000 + "\n", labelled, "line 2: nested too deeply"),
        (lines(GOOD) + '{"text": "x", "label": ' + "9" * 5000 + "}\n", labelled, "line 2: cannot be read"),
    ],
)  # fmt: skip
def test_a_row_that_is_not_like_the_first_is_refused_by_its_line(
    tmp_path: Path, content: str, read: Callable[[Path], Any], said: str
) -> None:
    path = file(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read(tmp_path).load("test")
    assert f"{path}, {said}" in str(caught.value)


def test_rows_that_a_cut_moved_keep_their_lines(tmp_path: Path) -> None:
    rows = [{"text": f"message number {i} of them", "label": i % 2} for i in range(30)]
    rows[17]["label"] = [1]
    path = file(tmp_path, lines(*rows), "all.jsonl")
    data = LabelledSet(
        source=FileSource(path=path),
        origin=own("sa", path),
        columns={"text": "text"},
        label=MapLabel(column="label", map={"0": "bad", "1": "good"}),
    )
    side = next(side for side in ("train", "test") if "17" in data.rows(side).ids)
    with pytest.raises(DataError, match=r"all\.jsonl, line 18: the column 'label' holds a list"):
        data.load(side)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label,text\na,1,b\n", "line 1: the column 'text' stands there twice"),
        ("a.csv", 'text,label\na,1\n"b,0\nc,1\n', "line 3: unexpected end of data, read up to line 4"),
        ("a.csv", 'text,label\n"a\nb",1\nc\n', "line 4: 1 values, but 2 columns"),
        ("a.csv", 'text,label\na,1\n"b\nc"\n', "line 3: 1 values, but 2 columns"),  # the line that it begins in
        ("a.csv", b"text\none\ntwo \xff\n", "a.csv is not UTF-8 text: line 3"),
        ("a.csv", "text\none\n".encode("utf-16-le"), "a.csv, line 1: a NUL, which no text holds"),
        ("a.txt", "one\n\ntwo\0\n", "a.txt, line 3: a NUL"),
        ("a.txt", b"one\n\ntwo\n\n\xff", "a.txt is not UTF-8 text: line 5"),
        ("a.json", '[\n{"text": "a"},\n{"text": "b"\n}, {"text": 3}]', "line 4, element 2: 'text' holds int"),
        ("a.json", '[\n{"text": "a"},\n{"text": NaN}]', "line 3, element 1: NaN is no number"),
        ("a.json", '[{"text": "a"},\n]', "line 2, element 1: not JSON"),
        ("a.json", '[{"text": "a"}\n{"text": "b"}]', "line 1, element 0: not JSON: behind it stands"),
        ("a.json", '[{"text": "a"}] more', "not JSON: there is more behind the list: 'more'"),
        ("a.json", '[{"text": "a"}', "line 1, element 0: not JSON: behind it stands ''"),
        ("a.json", '{\n"text": "a",\n"text": "b"}', "line 1: 'text' stands there twice"),
        ("a.jsonl", lines({"text": "a"}, {"text": None}), "line 2: 'text' holds null, where a text is expected; take"),
        (
            "a.jsonl",
            lines({"text": "a"}, {"Text": "b"}),
            "no text under 'text' (its columns: Text); the rows before it",
        ),
    ],
)
def test_a_file_that_would_lose_rows_or_values_is_refused(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        text(file(tmp_path, content, name)).load("test")
    assert said in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("column", ["text", "{text}"])
def test_rows_inside_an_object_are_found_and_the_remedy_works(tmp_path: Path, indent: int | None, column: str) -> None:
    content = {"version": 1, "data": [{"text": "a"}, {"text": "b"}]}
    path = file(tmp_path, json.dumps(content, indent=indent), "a.json")
    with pytest.raises(DataError, match=r"a\.json, line 1: .*the file is one object whose 'data' holds a list of 2 ob"):
        text(path, text=column).load("test")
    written = file(tmp_path, lines(*content["data"]), "b.jsonl")  # type: ignore[misc]
    assert text(written).load("test").documents == ["a", "b"]


def test_an_object_over_several_lines_is_a_row(tmp_path: Path) -> None:
    assert text(file(tmp_path, '{\n "text": "a"\n}\n', "a.json")).load("test").documents == ["a"]


def test_a_list_gives_what_the_json_module_gives(tmp_path: Path) -> None:
    rows = [{"text": "a, [b] {c}", "n": {"x": [1, 2.5, None, True]}}, {"text": "\u00e9 \U0001f600 \n", "n": {}}]
    for form in (json.dumps(rows), json.dumps(rows, indent=2), " \n" + json.dumps(rows, ensure_ascii=False) + "\n\n"):
        path = file(tmp_path, form, "a.json")
        assert list(FileSource(path=path).read("mine", "test").table) == rows


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [{"text": f"document {i}"} for i in range(10)]
    path = file(tmp_path, lines(*rows, {"text": " "}, {"text": ""}, rows[0], rows[1], rows[2]), "a.jsonl")
    whole = TextSet(source=FileSource(path=path), origin=Origin(name="mine", family="lm"))
    notes = whole.load("train").notes
    assert "2 empty documents left out" in notes
    assert "3 documents that repeat an earlier one left out" in notes
    assert text(path, min_characters=10).load("test").notes[-1] == "2 documents below 10 characters left out"


@pytest.mark.parametrize(
    ("second", "said"),
    [({"id": None}, "line 2: no id in"), ({"id": [1]}, "line 2: the column 'id' holds a list"), ({}, "line 2: no id")],
)
def test_ids_are_single_values_that_are_there(tmp_path: Path, second: dict[str, Any], said: str) -> None:
    path = file(tmp_path, lines({"id": "a", "text": "x"}, {"text": "y", **second}))
    with pytest.raises(DataError, match=said):
        FileSource(path=path, id="id").read("mine", "test")


def test_of_a_table_of_the_hub_a_missing_number_is_nothing_and_a_list_is_refused() -> None:
    columns = {"text": ["a", "b", "c"], "label": pa.array([1.0, float("nan"), 4.0])}
    rule = CutLabel(columns=("label",), at=(2.5,), labels=("bad", "good"))

    class Held:
        """A source of one table."""

        def __init__(self, **columns: Any) -> None:
            table = ArrowTable(Dataset(pa.table(columns)))
            self.rows = Rows("mine", "test", table, [str(i) for i in range(len(table))], "r")
            self.group = self.group_until = None

        def read(self, name: str, side: str) -> Rows:
            return self.rows

    def held(**columns: Any) -> LabelledSet:
        made = object.__new__(LabelledSet)
        given = {"source": Held(**columns), "origin": own("sa", Path("x")), "columns": {"text": "text"}, "label": rule}
        made.__dict__.update(given)
        return made

    found = held(**columns).load("test")
    assert [(one.id, one.target) for one in found.examples] == [("0", "bad"), ("2", "good")]
    assert "1 rows with an empty text or label skipped" in found.notes
    with pytest.raises(DataError, match=r"data mine, split test, row 0: the column 'text' holds a list of 1"):
        held(text=[["a"], ["b", "c"]], label=[1.0, 2.0]).load("test")


# Labels as a yaml writes them


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"labels": {True: "good", False: "bad"}}, "calib.labels: YAML reads an unquoted yes, on or true as a truth"),
        ({"labels": {0: False, 1: True}}, "calib.labels.0: YAML reads an unquoted no, off or false as a truth value"),
        ({"labels": [False, True], "cuts": [3]}, "calib.labels: YAML reads an unquoted no"),
        (
            {"labels": {1: "good", "1": "bad"}},
            "calib.labels: the value 1 stands there twice, as a number and as a text",
        ),
        ({"labels": {0: "bad", 1: ["good"]}}, "calib.labels.1=['good']: expected the label's text"),
        ({"labels": {0: " ", 1: "good"}}, "calib.labels.0=' ': expected the label's text"),
    ],
)
def test_a_label_map_that_says_something_else_than_is_written_is_refused(facts: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        label_rule("calib", facts)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({0: "no", 1: "yes"}, [0, 1.0]),
        ({"yes": "a", "no": "b"}, ["yes ", "no"]),
        ({"true": "a", "0.5": "b"}, [True, 0.5]),
    ],
)
def test_a_label_map_names_values_as_files_hold_them(labels: dict[Any, str], values: list[object]) -> None:
    told = label_rule("calib", {"labels": labels})
    rule = MapLabel(column=told["column"], map=told["map"], drop=tuple(told["drop"]))
    assert [rule.label({"label": value}) for value in values] == list(labels.values())


def test_tags_are_named_as_labels_are() -> None:
    assert by_value("calib.tags", {0: "O", 1.0: "person"}) == {"0": "O", "1": "person"}
    with pytest.raises(ConfigError, match=r"calib\.tags: YAML reads an unquoted no"):
        by_value("calib.tags", {False: "O"})
