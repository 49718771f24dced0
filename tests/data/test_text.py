"""Rows as running text: several columns, instructions, and chats in plain words or in the model's own template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import WholeDocuments
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.origin import Origin
from quantbench.datasets.chat import ModelChat, PlainChat, Rendering
from quantbench.datasets.documents import TextSource, TokenizerText
from quantbench.datasets.files import FileSource
from quantbench.datasets.text import TextSet
from tiny import tiny_tokenizer

CHAT = PlainChat(column="messages", prefixes={"user": "User: ", "assistant": "Assistant: "})
TALK = [{"role": "user", "content": " Hello\n"}, {"role": "assistant", "content": "Good {day}."}]


def text(folder: Path, made: Rendering | str, *rows: Any) -> TextSet:
    """A text whose documents are made of rows: by a rendering, or from columns."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    how: dict[str, Any] = {"text": made} if isinstance(made, str) else {"render": made}
    origin = Origin(name="mine", family="instruct", language="en", relatives=("web",))
    return TextSet(source=FileSource(path=path, test_path=path), origin=origin, **how)


def test_empty_parts_and_empty_rows_are_left_out(tmp_path: Path) -> None:
    rows = [{"a": "x", "b": "", "c": "z"}, {"a": " y{1} ", "b": "w", "c": "z"}, {"a": None, "b": "", "c": " "}]
    made = text(tmp_path, "Q: {a}\n\n{b}\n\nA: {c} ({{{c}}})", *rows)
    assert isinstance(made, TextSource)
    found = made.load("train")
    assert found.documents == ["Q: x\n\nA: z ({z})", "Q: y{1}\n\nw\n\nA: z ({z})"]
    assert "1 empty documents left out" in found.notes


def test_one_column_is_taken_as_it_is_but_for_white_space_at_its_ends(tmp_path: Path) -> None:
    rows = [{"a": " x\n"}, {"a": " "}, {"a": "{y}\n\nz"}]
    assert text(tmp_path, "a", *rows).load("train").documents == ["x", "{y}\n\nz"]


def test_a_chat_without_a_template(tmp_path: Path) -> None:
    found = text(tmp_path, CHAT, {"messages": TALK}).load("test")
    assert found.documents == ["User: Hello\n\nAssistant: Good {day}."]


def test_a_chat_in_the_template_of_the_models_tokenizer(tmp_path: Path) -> None:
    made = text(tmp_path, ModelChat(column="messages"), *[{"messages": TALK}] * 2)
    assert isinstance(made, TokenizerText)
    tokenizer = tiny_tokenizer()
    with pytest.raises(ConfigError, match=r"has no chat template; use calib\.render=chat"):
        made.load_for("train", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
    assert made.load_for("train", tokenizer).documents[0] == "[user| Hello\n][assistant|Good {day}.]"
    calib = Calibration(source=made, sampler=WholeDocuments(), n=1, length=16, seed=0)
    assert tokenizer.decode(calib.draw_set(tokenizer).tokens[0]) == "[user| Hello\n][a"


@pytest.mark.parametrize(
    ("made", "row", "message"),
    [
        (
            CHAT,
            {"messages": [{"role": "tool", "content": "x"}]},
            "line 1: the role 'tool' has no prefix; `prefixes`",
        ),
        (CHAT, {"messages": "hello"}, "line 1: the column 'messages' is not a list of messages with role and content"),
        (CHAT, {"messages": [{"role": "user"}]}, "is not a list of messages with role and content"),
        (CHAT, {"dialogue": []}, "no column 'messages'; its columns: dialogue"),
        (CHAT, {"messages": []}, "none of 1 rows holds text"),
        ("{a}", {"a": 3}, "line 1: the column 'a' holds int, not text"),
        ("{a}\n\n{b}", {"a": "x"}, "no column 'b'; its columns: a"),
    ],
)
def test_rows_that_are_not_as_expected(tmp_path: Path, made: Rendering | str, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"data mine.*{message}"):
        text(tmp_path, made, row).load("train")


@pytest.mark.parametrize(
    ("template", "message"),
    [("{a}\n\nnone", "each part between blank lines must name a {column}"), ("{a", "is not a template")],
)
def test_what_is_no_template_is_refused(tmp_path: Path, template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        text(tmp_path, template)
