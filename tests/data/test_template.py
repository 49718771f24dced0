"""Templates: what stands in a prompt, and which templates are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prompts import PAIR, SENTIMENT, labelled, reviews, write_rows
from quantbench.core.errors import ConfigError
from quantbench.datasets.examples import Example
from quantbench.datasets.template import Template

ONE = Example("1", {"text": "fine {braces}"}, "good", ("good",))
TWO = Example("2", {"text": "awful"}, "bad", ("bad",))


def test_a_prompt_is_instruction_shots_and_item() -> None:
    prompt = SENTIMENT.prompt(ONE.fields, ["bad", "so so", "good"], [TWO])
    assert prompt == "bad, so so or good?\n\nText: awful\nIs: bad\n\nText: fine {braces}\nIs:"
    assert SENTIMENT.rendered(ONE, ["good"], answers=True) == "good?\n\nText: fine {braces}\nIs: good"
    assert SENTIMENT.rendered(ONE, ["good"], answers=False) == "good?\n\nText: fine {braces}\nIs:"


def test_a_cut_keeps_both_ends_and_as_many_characters_as_asked() -> None:
    fields = {"premise": "abcdefghij", "hypothesis": "kept"}
    assert PAIR.shortened(fields, 5) == {"premise": "abc ... ij", "hypothesis": "kept"}
    assert PAIR.shortened(fields, 0)["premise"] == "..."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "x"}, "expected a text with the slot {answer}"),
        ({"instruction": "{text}"}, "its only slot is {labels}"),
        ({"passage": "body"}, "`item` has no such slot"),
        ({"item": "{text"}, "is not a template"),
    ],
)
def test_templates_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    usual = {"instruction": "", "item": "{text}", "answer": "{answer}", "passage": "text"}
    with pytest.raises(ConfigError, match=message):
        Template(**(usual | options))


def test_slots_that_the_data_do_not_fill_are_named(tmp_path: Path) -> None:
    examples = labelled(write_rows(tmp_path, test=reviews(4))).load("test")
    with pytest.raises(ConfigError, match=r"\{hypothesis\} is no field of data mine, which has text"):
        PAIR.check(examples)
