from __future__ import annotations

from typing import Any

import pytest
from quantbench.datasets.hub_text import HubText

from quantbench.core.origin import Origin, in_distribution, origin_of, relation


def make(name: str, family: Any, language: str = "unknown", relatives: tuple[str, ...] = (), path: str = "") -> Origin:
    return Origin(name=name, family=family, language=language, relatives=relatives, path=path)


WIKI = make("wiki", "lm", "en", ("wikipedia",))
NEWS = make("news", "lm", "en")
CODE = make("code", "lm", "Python")
SST = make("sst2", "sa", "en", ("sst5",))


@pytest.mark.parametrize(
    ("calibrated", "test", "expected"),
    [
        (WIKI, WIKI, "in-distribution"),
        (NEWS, WIKI, "near OOD"),
        (CODE, WIKI, "far OOD"),
        (SST, WIKI, "far OOD"),
        (make("wiki103", "lm", "en", ("wikipedia",)), WIKI, "related"),
        (SST, make("sst5", "sa", "en"), "related"),
        (make("sst5", "sa", "en"), SST, "related"),  # whichever of the two names the other
        (make("squad", "eqa", "en", ("wikipedia",)), WIKI, "related"),
        (make("mine", "lm"), WIKI, None),
        (make("mine", "sa"), WIKI, "far OOD"),
        (make("local", "lm", path="a"), make("local", "lm", path="b"), None),
        (make("local", "lm", path="a"), make("local", "lm", path="a"), "in-distribution"),
        (make("random_tokens", "control"), WIKI, "control"),
    ],
)
def test_relation_follows_from_name_relatives_family_and_language(
    calibrated: Origin, test: Origin, expected: str | None
) -> None:
    assert relation([calibrated], test) == expected
    assert in_distribution(expected, [calibrated]) == (expected == "in-distribution")


def test_a_mixture_is_as_near_as_its_nearest_part_but_never_in_distribution() -> None:
    assert relation([CODE, NEWS], WIKI) == "near OOD"
    assert relation([CODE, WIKI], WIKI) == "mixed"
    assert in_distribution("mixed", [CODE, WIKI]) is None
    assert relation([CODE, make("mine", "lm")], WIKI) == "far OOD"


def test_without_calibration_there_is_no_relation() -> None:
    assert relation([], WIKI) is None
    assert in_distribution(None, []) is None


def test_what_a_text_says_of_itself() -> None:
    about: dict[str, Any] = {"language": "en", "relatives": ["wikipedia"]}
    text = HubText(name="wiki", path="a/b", about=about)
    assert origin_of(text) == make("wiki", "lm", "en", ("wikipedia",), "a/b")
