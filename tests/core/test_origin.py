from __future__ import annotations

from typing import Any

import pytest

from quantbench.core.build import build
from quantbench.core.errors import ConfigError
from quantbench.core.origin import Origin, in_distribution, relation


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"langauge": "en"}, r"^x\.langauge: no such option\. Did you mean 'language'\?"),
        ({"family": "sentiment"}, r"^x\.family='sentiment': input should be 'lm', 'instruct'"),
        ({"relatives": "wikipedia"}, r"^x\.relatives='wikipedia': input should be a valid tuple"),
        ({"domain": 3}, r"^x\.domain=3: input should be a valid string"),
        ({"language": ""}, r"^x\.language='': "),
        ({"name": ""}, r"^x\.name='': "),
    ],
)
def test_what_is_no_fact_is_refused(wrong: dict[str, Any], message: str) -> None:
    spec = {"_target_": "quantbench.core.origin.Origin", "name": "wiki", "family": "lm", **wrong}
    with pytest.raises(ConfigError, match=message):
        build(spec, Origin, "x")
