from __future__ import annotations

from typing import Any

import pytest

from quantbench.distributions import Origin, in_distribution, origin_of, origin_of_task, relation
from quantbench.evals.windows import TextTask
from quantbench.texts.hub import HubText

WIKI = Origin("wiki", "lm", "en", frozenset({"wikipedia"}))
NEWS = Origin("news", "lm", "en")
CODE = Origin("code", "lm", "Python")
SST = Origin("sst2", "sa", "en", frozenset({"sst5"}))


@pytest.mark.parametrize(
    ("calibrated", "test", "expected"),
    [
        (WIKI, WIKI, "in-distribution"),
        (NEWS, WIKI, "near OOD"),
        (CODE, WIKI, "far OOD"),
        (SST, WIKI, "far OOD"),
        (Origin("wiki103", "lm", "en", frozenset({"wikipedia"})), WIKI, "related"),
        (SST, Origin("sst5", "sa", "en"), "related"),
        (Origin("sst5", "sa", "en"), SST, "related"),  # whichever of the two names the other
        (Origin("squad", "eqa", "en", frozenset({"wikipedia"})), WIKI, "related"),
        (Origin("mine", "lm"), WIKI, None),
        (Origin("mine", "sa"), WIKI, "far OOD"),
        (Origin("local", "lm", path="a"), Origin("local", "lm", path="b"), None),
        (Origin("local", "lm", path="a"), Origin("local", "lm", path="a"), "in-distribution"),
        (Origin("random_tokens", "control"), WIKI, "control"),
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
    assert relation([CODE, Origin("mine", "lm")], WIKI) == "far OOD"


def test_without_calibration_there_is_no_relation() -> None:
    assert relation([], WIKI) is None
    assert in_distribution(None, []) is None


def test_what_a_text_and_a_task_say_of_themselves() -> None:
    about: dict[str, Any] = {"language": "en", "relatives": ["wikipedia"]}
    text = HubText(name="wiki", path="a/b", about=about)
    task = TextTask(source=text, window=8, n_windows=None, bos="none", about={"relatives": ["more"]})
    assert origin_of(text) == Origin("wiki", "lm", "en", frozenset({"wikipedia"}), "a/b")
    assert origin_of_task(task) == Origin("wiki", "lm", "en", frozenset({"more"}), "a/b")
