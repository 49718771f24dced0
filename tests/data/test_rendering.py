"""Rows as running text: instructions, and chats in plain words or in the model's own template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import WholeDocuments
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import origin_of
from quantbench.datasets.documents import TextSource, TokenizerText
from quantbench.datasets.local_rows import LocalRows
from quantbench.datasets.rendering import Filled, ModelChat, PlainChat, Rendering, RowText
from tiny import tiny_tokenizer

CHAT = PlainChat(column="messages", prefixes={"user": "User: ", "assistant": "Assistant: "})
TALK = [{"role": "user", "content": " Hello\n"}, {"role": "assistant", "content": "Good {day}."}]


def text(folder: Path, render: Rendering, *rows: Any) -> RowText:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = {"language": "en", "relatives": ["web"]}
    return RowText(
        rows=LocalRows(name="mine", family="instruct", path=path, test_path=path, about=about), render=render
    )


def test_empty_parts_and_empty_rows_are_left_out(tmp_path: Path) -> None:
    filled = Filled(parts=("Q: {a}", "{b}", "A: {c}"), between="\n")
    rows = [{"a": "x", "b": "", "c": "z"}, {"a": " y{1} ", "b": "w", "c": "z"}, {"a": None, "b": "", "c": " "}]
    made = text(tmp_path, filled, *rows)
    assert isinstance(made, TextSource)
    found = made.load("train")
    assert found.documents == ["Q: x\nA: z", "Q: y{1}\nw\nA: z"]
    assert "1 empty rows left out" in found.notes
    assert (made.name, made.family) == ("mine", "instruct")
    assert origin_of(made).relatives == {"web"}
    assert origin_of(made).language == "en"


def test_a_chat_without_a_template(tmp_path: Path) -> None:
    found = text(tmp_path, CHAT, {"messages": TALK}).load("test")
    assert found.documents == ["User: Hello\n\nAssistant: Good {day}."]


def test_a_chat_in_the_template_of_the_models_tokenizer(tmp_path: Path) -> None:
    made = text(tmp_path, ModelChat(column="messages"), *[{"messages": TALK}] * 2)
    assert isinstance(made, TokenizerText)
    tokenizer = tiny_tokenizer()
    with pytest.raises(ConfigError, match=r"has no chat template; use render@calib\.source\.render=chat"):
        made.load_for("train", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
    assert made.load_for("train", tokenizer).documents[0] == "[user| Hello\n][assistant|Good {day}.]"
    calib = Calibration(source=made, sampler=WholeDocuments(), n=1, length=16, seed=0)
    assert tokenizer.decode(calib.draw_set(tokenizer).tokens[0]) == "[user| Hello\n][a"


@pytest.mark.parametrize(
    ("render", "row", "message"),
    [
        (
            CHAT,
            {"messages": [{"role": "tool", "content": "x"}]},
            "row 0: the role 'tool' has no prefix; `prefixes`",
        ),
        (CHAT, {"messages": "hello"}, "row 0: the column 'messages' is not a list of messages with role and content"),
        (CHAT, {"messages": [{"role": "user"}]}, "is not a list of messages with role and content"),
        (CHAT, {"dialogue": []}, "no column 'messages'; its columns: dialogue"),
        (CHAT, {"messages": []}, "none of 1 rows holds text"),
        (Filled(parts=("{a}",)), {"a": 3}, "row 0: the column 'a' holds int, not text"),
    ],
)
def test_rows_that_are_not_as_expected(tmp_path: Path, render: Rendering, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        text(tmp_path, render, row).load("train")


@pytest.mark.parametrize(("part", "message"), [("none", "names no {column}"), ("{a", "is not a template")])
def test_parts_that_are_no_template(part: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filled(parts=(part,))
