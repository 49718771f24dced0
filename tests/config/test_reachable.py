"""What is said of data and models that cannot be had."""

from __future__ import annotations

from quantbench.cells.reachable import ADVICE, with_common_advice


def test_advice_that_several_have_in_common_stands_once_behind_the_last() -> None:
    problems = [f"data a: absent{ADVICE}prepare", "data b: no such split", f"data c: absent{ADVICE}prepare"]
    assert list(with_common_advice(problems)) == [
        "- data a: absent.",
        "- data b: no such split",
        f"- data c: absent{ADVICE}prepare",
    ]


def test_advice_that_differs_stays_with_its_problem() -> None:
    problems = [f"data a: absent{ADVICE}prepare", f"model m: absent{ADVICE}fetch it"]
    assert list(with_common_advice(problems)) == [f"- {problem}" for problem in problems]
