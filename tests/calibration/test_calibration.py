from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from quantbench.calibration.calibration import Calibration
from quantbench.calibration.samplers import DocumentWindows, JoinedWindows
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@dataclass(frozen=True)
class Lengths:
    """A source whose train text has 100 characters and whose test text has 30."""

    origin: Origin = Origin(name="lengths", family="lm")  # noqa: RUF009 - it is frozen

    def load(self, split: str) -> Documents:
        return Documents(self.origin.name, split, ("ab" * {"train": 50, "test": 15}[split],), "r7")

    def prepare(self) -> str:
        return "nothing to do"


def calibration(**options: Any) -> Calibration:
    given: dict[str, Any] = {"n": 5, "length": 10, "seed": 3, "sampler": JoinedWindows()} | options
    return Calibration(source=Lengths(), **given)


def test_the_set_says_where_it_came_from() -> None:
    calib = calibration(draw=1).draw_set(TOKENIZER)
    assert calib.tokens.shape == (5, 10)
    assert (calib.name, calib.split, calib.revision) == ("lengths", "train", "r7")
    assert (calib.seed, calib.draw, calib.shortfall, calib.n_tokens) == (3, 1, 0, 50)
    assert calib.text_fingerprint == Lengths().load("train").fingerprint
    assert calib.documents == ("ab" * 50,)


def test_the_fingerprint_is_that_of_the_tokens() -> None:
    assert calibration().draw_set(TOKENIZER).fingerprint == calibration().draw_set(TOKENIZER).fingerprint
    half = calibration(n=1, length=10, split="test").draw_set(TOKENIZER)
    assert torch.equal(half.tokens, calibration(n=1, length=10).draw_set(TOKENIZER).tokens)
    assert half.fingerprint == calibration(n=1, length=10).draw_set(TOKENIZER).fingerprint


def test_a_short_text_is_an_error_that_says_what_there_is_and_what_to_do() -> None:
    with pytest.raises(DataError) as caught:
        calibration(n=12).draw_set(TOKENIZER)
    message = str(caught.value)
    assert "calib=lengths: 12 sequences of 10 tokens were asked for as draw 0 (120 tokens), and 10 can be" in message
    assert "the train text has 100 tokens, 10 windows of 10" in message
    for remedy in ("calib.n", "calib.length", "calib.draw", "a scale", "calib.allow_short=true"):
        assert remedy in message


def test_allow_short_takes_what_there_is_and_counts_what_is_missing() -> None:
    calib = calibration(n=12, allow_short=True).draw_set(TOKENIZER)
    assert calib.tokens.shape == (10, 10)
    assert calib.shortfall == 2


@pytest.mark.parametrize("options", [{"length": 101}, {"draw": 2}, {"length": 101, "sampler": DocumentWindows()}])
def test_an_empty_set_is_an_error_even_then(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="0 can be had"):
        calibration(allow_short=True, **options).draw_set(TOKENIZER)


@pytest.mark.parametrize(
    "option",
    [{"n": 0}, {"n": "8"}, {"length": 1}, {"seed": -1}, {"draw": -1}, {"split": "dev"}, {"sampler": "x"}, {"m": 3}],
)
def test_options_are_checked(option: dict[str, Any]) -> None:
    given: dict[str, Any] = {"source": Lengths(), "sampler": JoinedWindows(), "n": 5, "length": 10, "seed": 3} | option
    with pytest.raises(ValidationError, match=next(iter(option))):
        Calibration(**given)
