"""What the rest of a grid will take, judged by what was measured."""

from __future__ import annotations

import pytest

from quantbench.launch.plan import Measured


def test_what_took_as_much_is_asked_first_then_the_nearest_by_its_tokens() -> None:
    measured = Measured()
    for tokens, seconds in ((1000, 10.0), (1000, 30.0), (1000, 20.0), (64_000, 640.0)):
        measured.add("gptq", tokens, seconds)
    assert measured.seconds("gptq", 1000) == 20
    assert measured.seconds("gptq", 2000) == pytest.approx(40)
    assert measured.seconds("gptq", 32_000) == pytest.approx(320)


def test_what_was_never_measured_is_not_free() -> None:
    measured = Measured()
    measured.add("evaluate", 4096, 3.0)
    assert measured.seconds("gptq", 4096) is None


def test_a_recipe_that_reads_no_data_takes_what_it_took() -> None:
    measured = Measured()
    measured.add("rtn", 0, 2.0)
    assert measured.seconds("rtn", 0) == 2
