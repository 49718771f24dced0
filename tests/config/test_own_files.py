"""Files of one's own on a command line: documents of several columns, and several files as one square table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from quantbench.config.composer import compose_cells
from quantbench.core.errors import ConfigError
from quantbench.core.origin import relation

ROWS = [{"subject": f"on {i}", "body": f"text number {i}", "n": i} for i in range(10)] + [{"subject": "", "body": "x"}]


@pytest.fixture
def tickets(tmp_path: Path) -> list[str]:
    """The overrides that choose a file of tickets, both as train and as test side."""
    path = tmp_path / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return ["calib=local", f"calib.path={path}", f"calib.test_path={path}", "quantizer=gptq"]


@pytest.mark.parametrize(
    ("typed", "first", "last"),
    [
        ("calib.text='{subject}: {body}'", "on 0: text number 0", ": x"),
        ('calib.text="{subject}: {body}"', "on 0: text number 0", ": x"),
        (r'calib.text="{subject}\n\n{body}"', "on 0\n\ntext number 0", "x"),
        ("calib.text='{subject}\n\n{body}'", "on 0\n\ntext number 0", "x"),
        (r"calib.text='{subject}\t{body}'", "on 0\ttext number 0", "x"),
        ("calib.text=[subject,body]", "on 0\n\ntext number 0", "x"),
        ("calib.text='{body}'", "text number 0", "x"),
        ("calib.text=body", "text number 0", "x"),
    ],
)
def test_a_document_is_made_of_columns(tickets: list[str], typed: str, first: str, last: str) -> None:
    (cell,) = compose_cells([*tickets, typed])
    for source in (cast("Any", cell.calib).source, cast("Any", cell.tasks["local"]).source):
        documents = source.load("test").documents
        assert (documents[0], documents[-1]) == (first, last)


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_columns_in_brackets_are_one_text_in_a_grid_too(tickets: list[str], multirun: list[str]) -> None:
    cells = compose_cells([*multirun, *tickets, "calib.text=[subject,body]", *(["seed=0,1"] if multirun else [])])
    assert [cast("Any", cell.calib).source.text for cell in cells] == ["{subject}\n\n{body}"] * len(cells)
    assert cells[0].overrides[:5] == (*tickets, "calib.text=[subject,body]")


def test_two_columns_beside_each_other_are_two_texts(tickets: list[str]) -> None:
    cells = compose_cells(["-m", *tickets, "calib.text=subject,body"])
    assert [cast("Any", cell.calib).source.text for cell in cells] == ["subject", "body"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("calib.text='{subject'", r"^calib: '\{subject' is not a template: expected '\}'"),
        ("calib.text='{subject}\n\nfooter'", r"^calib: text=.*each part between blank lines must name a \{column\}"),
        ("calib.text=[]", r"^calib\.text='': string should have at least 1 character"),
        ("calib.text={a: b}", r"^calib\.text=\{'a': 'b'\}: input should be a valid string"),
        ("calib.text=''", r"^calib\.text='': string should have at least 1 character"),
    ],
)
def test_what_is_no_text_is_refused(tickets: list[str], typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_cells([*tickets, typed])


# Several files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files in the folder one works in, and a third of a name of the first in another one."""
    (tmp_path / "more").mkdir()
    for name in ("a.txt", "b.txt", "more/a.txt", "wiki.txt"):
        (tmp_path / name).write_text("\n\n".join(f"document {i} of {name}" for i in range(20)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(*typed: str) -> dict[tuple[str, str], str | None]:
    """Calibration set, test -> how far that one lies."""
    cells = compose_cells(["-m", "calib=local", "quantizer=gptq", *typed])
    found = {}
    for cell in cells:
        assert cell.calib is not None
        for name, task in cell.tasks.items():
            assert task.origin.name == name
            found[cell.calib.origins[0].name, name] = relation(cell.calib.origins, task.origin)
    return found


@pytest.mark.usefixtures("folder")
def test_several_files_make_a_square_table_by_their_names() -> None:
    assert table("calib.path=a.txt,b.txt") == {
        ("a", "a"): "in-distribution",
        ("a", "b"): None,
        ("b", "a"): None,
        ("b", "b"): "in-distribution",
    }
    german = table("calib.path=a.txt,b.txt", "calib.language=de")
    assert german["a", "b"] == "near OOD"
    assert set(table("calib.path=a.txt,b.txt", "seed=0,1")) == set(german)


@pytest.mark.usefixtures("folder")
def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    found = table("calib.path=a.txt,more/a.txt")
    assert len(found) == 4
    assert {calib for calib, _ in found} == {"a.txt", "more_a.txt"}


@pytest.mark.usefixtures("folder")
def test_one_file_and_files_that_are_named_keep_their_name() -> None:
    assert table("calib.path=a.txt") == {("local", "local"): "in-distribution"}
    assert set(table("calib.path=a.txt", "seed=0,1")) == {("local", "local")}
    assert set(table("calib.path=a.txt,b.txt", "calib.name=mine")) == {("mine", "mine")}


@pytest.mark.usefixtures("folder")
def test_tests_that_are_said_stay_as_they_are_said() -> None:
    found = table("calib.path=a.txt,b.txt", "eval.sets=[wiki]")
    assert set(found) == {("a", "wiki"), ("b", "wiki")}


@pytest.mark.usefixtures("folder")
def test_a_file_called_like_a_data_set_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"a data set is called 'wiki' already; rename the file, or give calib\.name"):
        table("calib.path=a.txt,wiki.txt")
    assert set(table("calib.path=wiki.txt")) == {("local", "local")}


@pytest.mark.usefixtures("folder")
def test_options_of_one_file_as_a_test_are_named_after_it() -> None:
    cells = compose_cells(["-m", "calib=local", "calib.path=a.txt,b.txt", "eval.tasks.b.window=64"])
    assert [{name: cast("Any", task).window for name, task in cell.tasks.items()} for cell in cells] == [
        {"a": 512, "b": 64}
    ] * 2
