"""What a comparison says, in one of five words that never go beyond its tests."""

from __future__ import annotations

from enum import StrEnum

from quantbench.metrics.errors import Error

ALPHA = 0.05
"""The chance of a false word that is accepted, over a family of comparisons where p values are adjusted for one."""


class Verdict(StrEnum):
    """The words, defined in docs/statistics.md."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    NOT_COMPARABLE = "not comparable"


def verdict(
    value: float,
    error: Error | None,
    *,
    higher_is_better: bool,
    margin: float | None = None,
    p_value: float | None = None,
    equivalence_p: float | None = None,
) -> Verdict:
    """The word for a difference candidate - reference.

    margin         differences below it do not matter, in the unit of the value; None: nothing is called equivalent
    p_value        adjusted for the family of comparisons; None: that of this one alone
    equivalence_p  the same, of the two one-sided tests

    Equivalent comes first: a difference that is shown to be below what matters is no gain, however sure its sign. No
    error: not comparable.
    """
    if error is None:
        return Verdict.NOT_COMPARABLE
    if margin is not None:
        one_sided = error.equivalence_p(value, margin) if equivalence_p is None else equivalence_p
        if one_sided <= ALPHA:
            return Verdict.EQUIVALENT
    if (error.p_value(value) if p_value is None else p_value) > ALPHA:
        return Verdict.UNDECIDED
    return Verdict.BETTER if (value > 0) == higher_is_better else Verdict.WORSE
