from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.core.apportion import evenly, largest_remainder

WEIGHTS = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any)


@given(st.integers(0, 300), WEIGHTS)
def test_shares_add_up_and_lie_within_one_of_their_exact_part(total: int, weights: list[int]) -> None:
    shares = largest_remainder(total, weights)
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - Fraction(total * weight, sum(weights))) < 1


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [
        (10, [1, 1, 1], [4, 3, 3]),  # equal remainders are served in order
        (7, [0.5, 0.3, 0.2], [4, 2, 1]),  # parts 3.5, 2.1, 1.4
        (10, [0.7, 0.2, 0.1], [7, 2, 1]),  # 0.7 + 0.2 + 0.1 is not 1 in binary
    ],
)
def test_the_largest_remainders_are_rounded_up(total: int, weights: list[float], shares: list[int]) -> None:
    assert largest_remainder(total, weights) == shares


@given(st.integers(0, 120), st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_even_shares_fill_up_together(total: int, capacities: list[int]) -> None:
    shares = evenly(total, capacities)
    assert sum(shares) == min(total, sum(capacities))
    assert all(share <= capacity for share, capacity in zip(shares, capacities, strict=True))
    unfilled = [share for share, capacity in zip(shares, capacities, strict=True) if share < capacity]
    assert not unfilled or max(shares) - min(unfilled) <= 1
