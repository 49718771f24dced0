"""Two sides of a comparison: what pairing cancels, and what it may not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from quantbench.metrics.draws import crossed_error, gap_error
from quantbench.metrics.totals import Totals
from quantbench.report.compare.groups import Draw
from quantbench.report.compare.pairing import Side, compare_sides

G = 12
RNG = np.random.default_rng(0)
HARD = RNG.normal(size=G)
WHERE = {"clusters": "c", "device": "cpu"}


def totals(value: float, noise: int, *, hard: float = 1.0, clusters: int = G) -> Totals:
    """A metric on `clusters` clusters of two items, whose influences are common but for some noise."""
    found = hard * HARD[:clusters] + 0.1 * np.random.default_rng(noise).normal(size=clusters)
    return Totals(value, found - found.mean(), 2 * clusters)


def side(draws: Mapping[Draw, Totals], text: str = "wiki", **where: str) -> Side:
    return Side(draws, WHERE | where, text)


def drawn(values: list[float], noise: int) -> dict[Draw, Totals]:
    return {(index,): totals(value, noise + index) for index, value in enumerate(values)}


def test_what_a_draw_does_to_both_sides_cancels_when_they_read_the_same_sequences() -> None:
    ours, theirs = [0.5, 0.9, 0.1], [0.4, 0.8, 0.05]
    paired = compare_sides(side(drawn(ours, 10)), side(drawn(theirs, 20)))
    assert paired.draws == pytest.approx((0.1, 0.1, 0.05))
    assert paired.mean == pytest.approx(0.25 / 3)
    assert paired.spread == pytest.approx(np.std([0.1, 0.1, 0.05], ddof=1))
    gap = compare_sides(side(drawn(ours, 10)), side(drawn(theirs, 20), text="news"))
    assert gap.mean == pytest.approx(paired.mean)
    assert paired.error is not None
    assert gap.error is not None
    assert gap.error.stderr > 3 * paired.error.stderr
    assert (paired.n_draws, paired.n_reference_draws, paired.one_draw, paired.note) == (3, 3, False, "")


def test_the_errors_are_those_of_crossed_draws_and_of_gaps() -> None:
    ours, theirs = drawn([0.5, 0.9, 0.1], 10), drawn([0.4, 0.8], 20)
    y, other = (np.stack([one.pseudo_values() for one in own.values()]) for own in (ours, theirs))
    gap = compare_sides(side(ours), side(theirs, text="news"))
    assert gap.error == gap_error(y, other)
    paired = compare_sides(side(ours), side(theirs))
    assert paired.error == crossed_error(y[:2] - other)
    assert paired.note == "1 draw without a counterpart left out"
    free = compare_sides(side(ours), side({(): totals(0.3, 30)}, text=""))
    assert free.error == crossed_error(y - totals(0.3, 30).pseudo_values())
    assert (free.n_draws, free.n_reference_draws) == (3, 1)
    back = compare_sides(side({(): totals(0.3, 30)}, text=""), side(ours))
    assert back.mean == -free.mean
    assert back.error == free.error


def test_one_draw_has_the_error_of_clusters_and_says_so() -> None:
    ours, theirs = totals(0.5, 1), totals(0.3, 2)
    found = compare_sides(side({(0,): ours}), side({(0,): theirs}))
    expected = Totals(0.2, ours.totals - theirs.totals, ours.n).error()
    assert expected is not None
    assert found.error is not None
    assert found.error.stderr == pytest.approx(expected.stderr)
    assert found.error.sources[0].df == G - 1
    assert (found.one_draw, found.note, found.spread) == (True, "this draw only", None)
    free = compare_sides(side({(): ours}, text=""), side({(): theirs}, text=""))
    assert (free.one_draw, free.note) == (False, "")
    assert free.error == found.error


def test_draws_that_are_not_the_same_are_not_paired() -> None:
    ours, theirs = {(0,): totals(0.5, 1), (1,): totals(0.6, 2)}, {(2,): totals(0.3, 3), (3,): totals(0.2, 4)}
    found = compare_sides(side(ours), side(theirs))
    assert found.note == "no draw in common: draws are not paired"
    assert found.error == compare_sides(side(ours), side(theirs, text="news")).error


@pytest.mark.parametrize(("name", "value"), [("device", "cuda:0"), ("clusters", "d")])
def test_what_must_be_the_same_is_named_where_it_is_not(name: str, value: str) -> None:
    found = compare_sides(side(drawn([0.5, 0.6], 1)), side(drawn([0.4, 0.5], 5), **{name: value}))
    assert found.error is None
    assert found.note.startswith(f"other {name}: {WHERE[name]} and {value}")


def test_a_metric_without_influences_and_a_single_cluster_have_no_error() -> None:
    nothing = Totals(0.5, np.full(G, math.nan), 2 * G)
    assert compare_sides(side({(): nothing}, ""), side({(): nothing}, "")).error is None
    one = totals(0.5, 1, clusters=1)
    assert compare_sides(side({(0,): one, (1,): one}), side({(0,): one, (1,): one})).error is None


def test_no_difference_at_all_is_no_finding() -> None:
    same = drawn([0.5, 0.6, 0.7], 1)
    found = compare_sides(side(same), side(same))
    assert found.error is not None
    assert (found.mean, found.error.stderr, found.error.p_value(found.mean)) == (0.0, 0.0, 1.0)
