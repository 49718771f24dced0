from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from quantbench.calibration.calibration import Calibration
from quantbench.calibration.controls import RandomTokens, Shuffled
from quantbench.calibration.mixture import Mixture
from quantbench.calibration.samplers import DocumentWindows, JoinedWindows
from quantbench.config.calibrations import Calibrations
from quantbench.config.catalogue import Catalogue
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ConfigError, DataError
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


@dataclass(frozen=True)
class Own:
    """A calibration set that a user may have written."""

    n: int
    length: int
    seed: int

    def draw_set(self, tokenizer: Any) -> Any:
        raise NotImplementedError


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


BOS_ID = 0


@pytest.mark.parametrize(
    ("bos", "adds", "before"), [("none", True, 0), ("auto", True, 1), ("auto", False, 0), ("each", False, 1)]
)
def test_a_bos_stands_before_each_sequence_where_it_is_wanted(bos: str, adds: bool, before: int) -> None:
    tokenizer = tiny_tokenizer(add_bos=adds)
    found = calibration(bos=bos).draw_set(tokenizer)
    text = calibration(length=10 - before).draw_set(tokenizer).tokens
    assert found.tokens.shape == (5, 10)
    assert torch.equal(found.tokens[:, before:], text)
    assert (found.tokens[:, :before] == BOS_ID).all()
    assert found.before == found.provenance()["special_tokens_before"] == before


def test_a_bos_is_asked_of_a_tokenizer_that_has_one() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(ConfigError, match=r"^calib\.bos=each: .* has no BOS token; use calib\.bos=none$"):
        calibration(bos="each").draw_set(tokenizer)


def test_the_controls_leave_the_bos_at_the_beginning() -> None:
    options: dict[str, Any] = {"n": 5, "length": 10, "seed": 3, "bos": "each"}
    shuffled = Shuffled(source=Lengths(), sampler=JoinedWindows(), **options).draw_set(TOKENIZER)
    random = RandomTokens(**options).draw_set(TOKENIZER)
    for found in (shuffled, random):
        assert found.tokens.shape == (5, 10)
        assert (found.tokens == BOS_ID).nonzero().tolist() == [[row, 0] for row in range(5)]


def test_the_option_reaches_every_part_of_a_mixture() -> None:
    parts = ("calib.parts.wiki_sample=0.5", "calib.parts.news_sample=0.5")
    (cell,) = compose_cells(["calib=mix", *parts, "calib.bos=auto"])
    assert isinstance(cell.calib, Mixture)
    assert {part.set.bos for part in cell.calib.mixed.values()} == {"auto"}  # type: ignore[attr-defined]
    (plain,) = compose_cells(["calib=wiki_sample"])
    assert plain.calib.bos == "none"  # type: ignore[union-attr]


def test_a_class_of_ones_own_that_knows_no_bos_refuses_one() -> None:
    own = {"_target_": f"{Own.__module__}.Own", "n": 2, "length": 8, "seed": 0}
    calibrations = Calibrations(Catalogue.__new__(Catalogue), lambda node: node)
    assert calibrations.full("own", own | {"bos": "none"})["n"] == 2
    with pytest.raises(ConfigError, match=r"^calib\.bos=each: .*Own has no option bos; use calib\.bos=none$"):
        calibrations.full("own", own | {"bos": "each"})
