"""Answers that change sides."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.metrics import statistics
from quantbench.metrics.flips import Flips, above_chance, agreement, flips, flips_right, flips_wrong

FULL = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
QUANTIZED = np.array([1.0, 0.0, 0.0, 1.0, 0.0])


def test_flips_are_counted_in_both_directions() -> None:
    found = flips(QUANTIZED, FULL)
    assert found == Flips(lost=2, gained=1, n=5)
    assert found.share == 0.6
    assert flips_wrong(QUANTIZED, FULL).value == 0.4
    assert flips_right(QUANTIZED, FULL).value == 0.2
    assert agreement(QUANTIZED, FULL).value == pytest.approx(1 - found.share)
    assert flips_wrong(FULL, FULL).stderr == 0


def test_the_change_of_a_score_is_what_flipped_right_minus_what_flipped_wrong() -> None:
    change = statistics.mean(QUANTIZED).value - statistics.mean(FULL).value
    gained, lost = flips_right(QUANTIZED, FULL), flips_wrong(QUANTIZED, FULL)
    assert gained.value - lost.value == pytest.approx(change)
    assert gained.influence - lost.influence == pytest.approx(QUANTIZED - FULL - change)


def test_answers_agree_by_what_they_are() -> None:
    assert agreement(np.array([3.0, 1.0, 2.0]), np.array([3.0, 2.0, 2.0])).value == pytest.approx(2 / 3)


def test_above_chance_guessing_is_nothing_and_all_right_is_one() -> None:
    found = above_chance(statistics.mean(np.array([1.0, 1.0, 0.0, 0.0])), 0.25)
    assert found.value == pytest.approx(1 / 3)
    assert found.influence == pytest.approx(np.array([2, 2, -2, -2]) / 3)
    assert above_chance(statistics.mean(np.ones(4)), 0.25).value == 1
    with pytest.raises(ValueError, match="chance is a share of items below 1, not 1"):
        above_chance(statistics.mean(FULL), 1)


def test_columns_that_are_no_aligned_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="one length, not 5 and 4"):
        flips(QUANTIZED, FULL[1:])
    with pytest.raises(ValueError, match="one length, not 5 and 4"):
        agreement(QUANTIZED, FULL[1:])
    with pytest.raises(ValueError, match="columns of 0"):
        flips_wrong(QUANTIZED + 0.5, FULL)
